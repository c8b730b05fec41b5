"""Failed pictures, and clean lines with contrast: statistics read against references and base, never one-sided.

No-reference quality models are trained on photographs and call line art bad (facts/metrics.md 5). What is normal here
is what the references and the base images have.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from metrics.descriptor import quantiles
from metrics.images import equal_area, gaussian_blur, gradients, opponent, resized

Floats = NDArray[np.float64]
SANITY = ("contrast", "clipped", "grain", "colour_noise")
LINES = ("contrast", "acutance", "coherence", "grain")


@torch.inference_mode()
def sanity_statistics(images: Sequence[Tensor], side: int) -> Floats:
    """Return (N, 4): SD of luma, share of pixels with a channel at 0 or 1, grain and colour noise at the finest scale.

    Both noises are Immerkaer's estimate (1996), the mean response to a mask that is blind to planes and edges. In luma
    it counts where directions are incoherent only, as hatching of 3 px answers more strongly than noise does.
    """
    mask = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])[None, None]
    rows = []
    for image in images:
        picture = resized([image], *equal_area(image, side))
        channels = opponent(picture)
        grey = channels[:, :1]
        answer = functional.conv2d(channels.transpose(0, 1), mask).abs() * float(np.sqrt(np.pi / 2)) / 6
        incoherent = 1 - coherence(grey)[:, 1:-1, 1:-1]
        clipped = ((picture <= 0.002) | (picture >= 0.998)).any(1).float().mean()
        rows.append([grey.std(), clipped, (answer[0] * incoherent).mean(), answer[1:].mean()])
    return np.array(rows, dtype=np.float64)


def coherence(grey: Tensor) -> Tensor:
    """Return the structure-tensor coherence of (1, 1, H, W) luma, (1, H, W) in [0, 1]: 1 where lines are parallel."""
    dx, dy = gradients(grey)
    xx, xy, yy = gaussian_blur(torch.cat([dx * dx, dx * dy, dy * dy], 1), 1.5).unbind(1)
    return ((xx - yy) ** 2 + 4 * xy**2).sqrt() / (xx + yy + 1e-4)


def failed(statistics: Floats, normal: Floats) -> NDArray[np.bool_]:
    """Return which pictures failed: nearly one tone, clipped or noisy beyond everything in `normal`.

    Args:
        statistics: (N, 4) of the pictures.
        normal: (M, 4) of references and base images.

    Range: a flag per picture; the rate lies in 0 ... 1, lower is better.
    Fooled by: broken anatomy or a torn layout with ordinary statistics (read composition and adherence); noise of one
    tone in a style that is itself grain.
    Source: facts/metrics.md 9(d), the hard sanity checks. Margins from the corruption ladder in
    tests/metrics/test_image_quality.py: a third of the least contrast; a quarter of the picture more clipped; half as
    much noise again.
    """
    constant = statistics[:, 0] < min(0.02, normal[:, 0].min() / 3) + 1e-9
    clipped = statistics[:, 1] > normal[:, 1].max() + 0.25
    noisy = (statistics[:, 2:] > 1.5 * normal[:, 2:].max(0) + 0.01).any(1)
    return np.asarray(constant | clipped | noisy)


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
