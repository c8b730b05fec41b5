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
SANITY = ("contrast", "clipped", "grain", "colour_noise", "patch", "seam", "exchanged")
USUAL = 0.95  # quantile of what is normal: one odd reference or failed base image must not excuse every sample
CELLS = 4  # a noise patch is looked for in the cells of a 4 x 4 grid
PARTS_SIDE, PART, STEP = 64, 16, 4  # px; moved parts are looked for at this scale, squares of 16 px every 4 px
LINES = ("contrast", "acutance", "coherence", "grain")


@torch.inference_mode()
def sanity_statistics(images: Sequence[Tensor], side: int) -> Floats:
    """Return (N, 7): SANITY of pictures at the area of a square of `side` px.

    SD of luma; share of pixels with a channel at 0 or 1; grain and colour noise at the finest scale; how far the
    noisiest cell of the picture stands above its median cell; `_torn` along rows or columns; `_exchanged`.

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
        noise = answer[0] * incoherent
        cells = functional.adaptive_avg_pool2d(noise + answer[1:].mean(0), CELLS).flatten()
        patch = cells.max() - cells.median()
        parts = opponent(resized([image], *equal_area(image, PARTS_SIDE)))[0]
        moved = [max(_torn(parts), _torn(parts.mT)), _exchanged(parts[0])]
        rows.append([grey.std(), clipped, noise.mean(), answer[1:].mean(), patch, *moved])
    return np.array(rows, dtype=np.float64)


def _torn(channels: Tensor) -> float:
    """Return how sure it is that the rows of (C, H, W) were moved sideways from some row on.

    At a tear, two neighbouring rows are less alike than the pairs of rows beside them, and moving one sideways would
    mend that; where a drawn thing ends, no move does. Rows are compared by correlation, smoothed along themselves so
    that hatching does not count; a row of one tone is like its neighbours. About 0 in a picture in one piece, towards 1
    where it is torn.
    """
    rows = functional.avg_pool2d(functional.pad(channels[None], (1, 1, 0, 0), mode="replicate"), (1, 3), 1)[0]
    rows = rows - rows.mean(2, keepdim=True)
    power = rows.square().mean((0, 2))
    floor = 0.1 * float(power.max()) + 1e-6
    width = rows.shape[2]
    # twice as wide: what is moved out at one edge does not enter at the other
    waves = torch.fft.rfft(rows, n=2 * width)
    shared = torch.fft.irfft(waves[:, :-1].conj() * waves[:, 1:], n=2 * width).sum(0) / (width * len(rows))
    alike = (shared + floor) / (torch.sqrt(power[1:] * power[:-1]) + floor)[:, None]  # (H - 1, moves)
    still, half = alike[:, 0], width // 2
    mended = torch.cat([alike[:, 1 : half + 1], alike[:, -half:]], 1).amax(1)
    beside = functional.pad(still[None], (3, 3), mode="replicate")[0].unfold(0, 7, 1)[:, [0, 1, 5, 6]]
    return float(((beside.mean(1) + beside.amin(1) + mended) / 3 - still).max())


def _exchanged(grey: Tensor) -> float:
    """Return how much smoother (H, W) luma would get at their edges if two squares in it changed places.

    The most that the steps across both outlines fall by, in tones per px of an edge: below 0.5 in most pictures in one
    piece, 1 ... 4 with parts exchanged. Absolute steps, as squared ones are mostly those of a few hard lines. Steps
    across outlines are what jigsaw puzzles are solved by (Cho, Avidan and Freeman 2010).
    """
    top, left = (corners.flatten() for corners in torch.meshgrid(*map(_places, grey.shape), indexing="ij"))
    along = torch.arange(PART)
    edged = functional.pad(grey[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    rows, columns = top[:, None] + 1, left[:, None] + 1
    steps = torch.zeros(len(top), len(top))  # of the part from the first place at the second
    for down, right, exists in (
        (-1, None, top > 0),
        (PART, None, top + PART < grey.shape[0]),
        (None, -1, left > 0),
        (None, PART, left + PART < grey.shape[1]),
    ):
        beyond = edged[rows + (along if down is None else down), columns + (along if right is None else right)]
        y, x = (along if by is None else min(max(by, 0), PART - 1) for by in (down, right))
        steps += torch.cdist(edged[rows + y, columns + x], beyond, p=1) * exists
    apart = ((top[:, None] - top).abs() >= PART) | ((left[:, None] - left).abs() >= PART)
    own = steps.diag()
    return max(0.0, float(((own[:, None] + own - steps - steps.T) * apart).max()) / PART)


def _places(edge: int) -> Tensor:
    return torch.unique(torch.cat([torch.arange(0, edge - PART + 1, STEP), torch.tensor([edge - PART])]))


def coherence(grey: Tensor) -> Tensor:
    """Return the structure-tensor coherence of (1, 1, H, W) luma, (1, H, W) in [0, 1]: 1 where lines are parallel."""
    dx, dy = gradients(grey)
    xx, xy, yy = gaussian_blur(torch.cat([dx * dx, dx * dy, dy * dy], 1), 1.5).unbind(1)
    return ((xx - yy) ** 2 + 4 * xy**2).sqrt() / (xx + yy + 1e-4)


def failure_score(statistics: Floats, normal: Floats) -> Floats:
    """Return how far each picture lies beyond what is normal, at its worst statistic; above 0 it failed.

    Args:
        statistics: (N, 7) of the pictures.
        normal: (M, 7) of references and base images.

    Range: about -1 ... 10, lower is better; 0 = just tolerated, 1 = as far beyond the tolerance again.
    Fooled by: broken anatomy with ordinary statistics, parts exchanged along a curve or far smaller than a quarter of
    the picture, a tear through nothing but background (read composition and adherence); noise of one tone in a style
    that is itself grain.
    Source: facts/metrics.md 9(d), the hard sanity checks. Margins from the corruption ladder in
    tests/metrics/test_image_quality.py: a third of the least contrast; a quarter of the picture more clipped; half as
    much noise, patchiness, tear and exchange again as all but a twentieth have.
    """
    least = min(0.02, float(normal[:, 0].min()) / 3) + 1e-9
    flat = 1 - statistics[:, :1] / least
    clipped = (statistics[:, 1:2] - normal[:, 1].max()) / 0.25 - 1
    most = 1.5 * np.quantile(normal[:, 2:], USUAL, axis=0) + 0.01
    return np.asarray(np.concatenate([flat, clipped, statistics[:, 2:] / most - 1], 1).max(1))


def failed(statistics: Floats, normal: Floats) -> NDArray[np.bool_]:
    """Return which pictures failed: nearly one tone, clipped, noisy or torn beyond what is normal.

    Range: a flag per picture; the rate lies in 0 ... 1, lower is better. Arguments and source: `failure_score`.
    """
    return np.asarray(failure_score(statistics, normal) > 0)


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
