"""A style descriptor made by hand: colour, spectrum, texture and line statistics of a picture.

The second encoder of the style score. It is blind to what is shown and where: every number is a statistic over the
whole picture, colours enter as how saturated and how light, not as which hue belongs to what. It needs no weights and
so cannot have been trained on the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from metrics.images import equal_area, gaussian_blur, gradients, opponent, resized

BANDS = 8  # rings of the power spectrum, from 2 cycles per picture to the Nyquist frequency
SCALES = (0.7, 1.4, 2.8)  # px; Gaussians between which texture is measured
QUANTILES = (0.02, 0.10, 0.25, 0.50, 0.75, 0.90, 0.98)


@torch.inference_mode()
def describe(images: Sequence[Tensor], side: int) -> Tensor:
    """Return (N, D) float32 statistics of pictures brought to the area of a square of `side` px; unscaled."""
    sizes = [equal_area(image, side) for image in images]
    rows: dict[int, Tensor] = {}
    for size in sorted(set(sizes)):
        at = [i for i, s in enumerate(sizes) if s == size]
        pictures = resized([images[i] for i in at], *size)
        found = torch.cat([_colour(pictures), _spectrum(pictures), _texture(pictures), _lines(pictures)], 1)
        rows.update(zip(at, found, strict=True))
    return torch.stack([rows[i] for i in range(len(images))])


def quantiles(values: Tensor, at: Sequence[float]) -> Tensor:
    """Return (N, len(at)) quantiles of (N, ...) values; by sorting, as torch.quantile refuses large pictures."""
    ordered = torch.from_numpy(np.sort(values.flatten(1).numpy()))  # several times as fast as torch's
    last = ordered.shape[1] - 1
    return torch.stack([ordered[:, round(q * last)] for q in at], 1)


def _colour(pictures: Tensor) -> Tensor:
    """Return tone quantiles, spread, saturation and the mean tint."""
    channels = opponent(pictures)
    grey, chroma = channels[:, 0], channels[:, 1:]
    saturation = chroma.square().sum(1).sqrt()
    tint = chroma.flatten(2)
    # The share of saturation that is one common tint: 1 for sepia on cream, small for many colours.
    unity = tint.mean(2).norm(dim=1) / (saturation.flatten(1).mean(1) + 1e-3)
    return torch.cat(
        [
            quantiles(grey, QUANTILES),
            grey.flatten(1).std(1, keepdim=True),
            quantiles(saturation, (0.1, 0.5, 0.9, 0.98)),
            quantiles(tint[:, 0], (0.5,)),
            quantiles(tint[:, 1], (0.5,)),
            unity[:, None],
        ],
        1,
    )


def _spectrum(pictures: Tensor) -> Tensor:
    """Return log power in rings of frequency and how peaked the fine half of the spectrum is."""
    grey = opponent(pictures)[:, 0]
    height, width = grey.shape[-2:]
    window = torch.hann_window(height, periodic=False)[:, None] * torch.hann_window(width, periodic=False)
    power = torch.fft.rfft2((grey - grey.mean((1, 2), keepdim=True)) * window).abs().square() / (height * width)
    fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    frequency = (fx**2 + fy**2).sqrt()
    edges = torch.logspace(torch.log10(torch.tensor(2 / max(height, width))).item(), -0.301, BANDS + 1)  # ... 0.5
    rings = [power[:, (frequency >= low) & (frequency < high)] for low, high in pairwise(edges)]
    logs = torch.stack([(ring.mean(1) + 1e-6).log() for ring in rings], 1)
    fine = power[:, frequency > 0.15]
    peaked = (fine.amax(1) + 1e-6).log() - (fine.mean(1) + 1e-6).log()  # hatching and dots stand out as peaks
    return torch.cat([logs, peaked[:, None]], 1)


def _texture(pictures: Tensor) -> Tensor:
    """Return local contrast per scale: quantiles, so that a textured ground differs from a few strong edges."""
    grey = opponent(pictures)[:, :1]
    found = []
    finer = grey
    for sigma in SCALES:
        coarser = gaussian_blur(grey, sigma)
        local = gaussian_blur((finer - coarser).square(), 2 * sigma).clamp_min(0).sqrt()
        found.append((quantiles(local, (0.1, 0.3, 0.5, 0.7, 0.9)) + 1e-3).log())
        finer = coarser
    return torch.cat(found, 1)


def _lines(pictures: Tensor) -> Tensor:
    """Return gradient quantiles, orientation coherence at two scales and the shares of ink and of light lines."""
    grey = opponent(pictures)[:, :1]
    dx, dy = gradients(grey)
    strength = (dx**2 + dy**2).sqrt()
    products = torch.cat([dx * dx, dx * dy, dy * dy], 1)
    found = [(quantiles(strength, (0.5, 0.75, 0.9, 0.97)) + 1e-3).log()]
    for sigma in (1.5, 3.0):
        xx, xy, yy = gaussian_blur(products, sigma).unbind(1)
        # Structure-tensor coherence, weighted by energy: 1 for parallel lines, 0 for grain and dots.
        coherent = ((xx - yy) ** 2 + 4 * xy**2).sqrt().flatten(1).sum(1) / ((xx + yy).flatten(1).sum(1) + 1e-6)
        found.append(coherent[:, None])
    surround = functional.avg_pool2d(functional.pad(grey, (3, 3, 3, 3), mode="replicate"), 7, 1)
    found += [((surround - grey) > 0.1).flatten(1).float().mean(1, keepdim=True)]  # dark lines
    found += [((grey - surround) > 0.1).flatten(1).float().mean(1, keepdim=True)]  # light lines
    return torch.cat(found, 1)
