"""Failed pictures, and clean lines with contrast: statistics read against references and base, never one-sided.

No-reference quality models are trained on photographs and call line art bad (facts/metrics.md 5). What is normal here
is what the references and the base images have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from metrics.descriptor import quantiles
from metrics.images import equal_area, gaussian_blur, gradients, opponent, resized
from metrics.pieces import USUAL, Pieces, broken_score, pieces, usual_breaks

Floats = NDArray[np.float64]
CELLS = 4  # a noise patch is looked for in the cells of a 4 x 4 grid
LINES = ("contrast", "acutance", "coherence", "grain")


@dataclass(frozen=True)
class Sanity:
    """What a picture shows of having failed."""

    tones: Floats  # (5,): SD of luma, share clipped, grain, colour noise, patchiness
    pieces: Pieces


@torch.inference_mode()
def sanity(images: Sequence[Tensor], side: int) -> list[Sanity]:
    """Read pictures at the area of a square of `side` px.

    SD of luma; share of pixels with a channel at 0 or 1; grain and colour noise at the finest scale; how far the
    noisiest cell of the picture stands above its median cell; and whether it is in one piece.

    Both noises are Immerkaer's estimate (1996), the mean response to a mask that is blind to planes and edges. In luma
    it counts where directions are incoherent only, as hatching of 3 px answers more strongly than noise does.
    """
    mask = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])[None, None]
    read = []
    for image in images:
        picture = resized([image], *equal_area(image, side))
        channels = opponent(picture)
        grey = channels[:, :1]
        answer = functional.conv2d(channels.transpose(0, 1), mask).abs() * float(np.sqrt(np.pi / 2)) / 6
        incoherent = 1 - coherence(grey)[:, 1:-1, 1:-1]
        clipped = ((picture <= 0.002) | (picture >= 0.998)).any(1).float().mean()
        noise = answer[0] * incoherent
        cells = functional.adaptive_avg_pool2d(noise + answer[1:].mean(0), CELLS).flatten()
        patch = cells.max() - cells.median()
        tones = [grey.std(), clipped, noise.mean(), answer[1:].mean(), patch]
        read.append(Sanity(np.array(tones, dtype=np.float64), pieces(image)))
    return read


def coherence(grey: Tensor) -> Tensor:
    """Return the structure-tensor coherence of (1, 1, H, W) luma, (1, H, W) in [0, 1]: 1 where lines are parallel."""
    dx, dy = gradients(grey)
    xx, xy, yy = gaussian_blur(torch.cat([dx * dx, dx * dy, dy * dy], 1), 1.5).unbind(1)
    return ((xx - yy) ** 2 + 4 * xy**2).sqrt() / (xx + yy + 1e-4)


@torch.inference_mode()
def failure_score(found: Sequence[Sanity], base: Sequence[Sanity], normal: Sequence[Sanity]) -> Floats:
    """Return how far each picture lies beyond what is normal, at its worst statistic; above 0 it failed.

    Args:
        found: of N pictures.
        base: of their base images, which say whether a break is a tear (see `pieces`).
        normal: of references and base images.

    Range: about -1 ... 10, lower is better; 0 = just tolerated, 1 = as far beyond the tolerance again.
    Fooled by: broken anatomy with ordinary statistics; noise of one tone in a style that is itself grain; what fools
    `pieces.broken_score`.
    Source: facts/metrics.md 9(d), the hard sanity checks. Margins from the corruption ladder in
    tests/metrics/test_image_quality.py: a third of the least contrast; a quarter of the picture more clipped; half as
    much noise and patchiness again as all but a twentieth have.
    """
    tones, usual = (np.stack([s.tones for s in some]) for some in (found, normal))
    least = min(0.02, float(usual[:, 0].min()) / 3) + 1e-9
    flat = 1 - tones[:, :1] / least
    clipped = (tones[:, 1:2] - usual[:, 1].max()) / 0.25 - 1
    noise = tones[:, 2:] / (1.5 * np.quantile(usual[:, 2:], USUAL, axis=0) + 0.01) - 1
    breaks = usual_breaks([s.pieces for s in normal])
    broken = [broken_score(f.pieces, b.pieces, breaks) for f, b in zip(found, base, strict=True)]
    return np.asarray(np.concatenate([flat, clipped, noise, np.array(broken)[:, None]], 1).max(1))


def failed(found: Sequence[Sanity], base: Sequence[Sanity], normal: Sequence[Sanity]) -> NDArray[np.bool_]:
    """Return which pictures failed: nearly one tone, clipped, too noisy, torn or with parts exchanged.

    Range: a flag per picture; the rate lies in 0 ... 1, lower is better. Arguments and source: `failure_score`.
    """
    return np.asarray(failure_score(found, base, normal) > 0)


@torch.inference_mode()
def line_statistics(images: Sequence[Tensor], side: int) -> Floats:
    """Return (N, 4) float: contrast P98 - P2 of luma, acutance, structure-tensor coherence, log grain.

    Acutance is the 97th percentile of the gradient over the contrast, per px; grain the log of the median local SD.
    """
    rows = []
    for image in images:
        grey = opponent(resized([image], *equal_area(image, side)))[:, :1]
        low, high = quantiles(grey, (0.02, 0.98))[0].tolist()
        dx, dy = gradients(grey)
        steep = quantiles((dx**2 + dy**2).sqrt(), (0.97,))[0, 0].item()
        energy = gaussian_blur(dx**2 + dy**2, 1.5)[:, 0]
        parallel = ((coherence(grey) * energy).sum() / (energy.sum() + 1e-6)).item()
        local = gaussian_blur((grey - gaussian_blur(grey, 1.0)).square(), 2.0).clamp_min(0).sqrt()
        grain = (quantiles(local, (0.5,)) + 1e-2).log()[0, 0].item()
        rows.append([high - low, steep / max(high - low, 1e-2), parallel, grain])
    return np.array(rows)


def line_quality(samples: Floats, base: Floats, references: Floats) -> Floats:
    """Return Q = mean over statistics of exp(-z^2 / 2), per sample.

    z is how far a sample lies outside of the interval between its own base image and the references (their 5-95 %
    range), in SDs of the references: a style on its way is no fault, and neither more nor less than both is good.

    Range: 0 ... 1, higher is better; a sample equal to its base has exactly 1.
    Fooled by: faults that happen to lie between base and style (a slight blur of a style sharper than the base).
    Source: facts/metrics.md 9(g), with the interval instead of the references' mean.
    """
    low, high = np.quantile(references, [0.05, 0.95], axis=0)
    scale = np.maximum(references.std(0), 0.05 * np.abs(references).mean(0) + 1e-3)
    below = np.maximum(np.minimum(base, low) - samples, 0)
    above = np.maximum(samples - np.maximum(base, high), 0)
    return np.asarray(np.exp(-0.5 * ((below + above) / scale) ** 2).mean(1))
