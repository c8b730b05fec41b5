"""Composition kept: how much of the base image's layout is still there.

D (see `structure`) is read between two marks, never raw: the *floor* is what a pure change of style costs, measured by
redrawing the base images without moving anything; the *null* is the distance to samples of other prompts.

The floor redraws rather than recolours. Facts/metrics.md 2.3 proposes grey, posterise, edge drawing, invert and palette
permutation; D is invariant to four of these (measured 0.000 to 0.004, an edge drawing costs 0.29), so their median
would call a faithful engraving (D = 0.26) a loss of 30 %. Here the recolourings are combined with a line screen, a dot
screen and inverted edges, so that every one of them is a drawing in another medium. And it is their ninth decile, not
their median: the styles that people train have outlines and texture, as the heavier redrawings do, and below their cost
a stronger style would read as a lost layout (V7).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.images import ScoreError, gradients, opponent, resized
from metrics.structure import Layouts, PatchEncoder, canonical_size, distances, layout

Floats = NDArray[np.float64]
# Of the D of redrawings: the upper quartile reads 0.86 and 0.83 for a pure engraving and chalk, this 0.95 and 0.92.
FLOOR_QUANTILE = 0.9
DOSES = (0.5, 1.0)  # shares of a redrawing in a blend with the picture itself at which its cost is measured
ROUNDING = 1e-6  # D of a picture and itself may be 1e-8
LOWEST = -0.5  # C is cut here: beyond "unrelated" nothing more is learnt
# D between floor and null, below which composition cannot be read: two unrelated pictures differ by about 0.85 and a
# restyled one by about 0.3; 0.1 leaves a fifth of that range.
RANGE_AT_LEAST = 0.1


def restyled(images: Tensor) -> list[Tensor]:
    """Return five deterministic redrawings of (N, 3, H, W) at 96 px that move nothing."""
    grey = opponent(images)[:, :1]
    edges = _edge_drawing(grey)
    height, width = images.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    period = 5.0  # px of 96: hatching of 3.3 px at 64
    lines = 0.5 + 0.5 * torch.cos(2 * math.pi * (x + y) / math.sqrt(2) / period)
    dots = 0.5 + 0.25 * (torch.cos(2 * math.pi * x / period) + torch.cos(2 * math.pi * y / period))
    posterised = (images * 3).round() / 3
    return [
        torch.minimum((3 * (grey - lines) + 0.5).clamp(0, 1), 1 - edges).expand(-1, 3, -1, -1),  # engraving, from grey
        torch.minimum((4 * (opponent(posterised)[:, :1] - dots) + 0.5).clamp(0, 1), 1 - edges).expand(-1, 3, -1, -1),
        (1 - edges).expand(-1, 3, -1, -1),  # edge drawing
        (edges * (0.6 + 0.4 * lines)).expand(-1, 3, -1, -1),  # inverted: chalk
        torch.minimum(posterised[:, [1, 2, 0]], 1 - edges),  # palette permuted, with outlines
    ]


def _edge_drawing(grey: Tensor) -> Tensor:
    """Return lines in [0, 1] where tone changes, stretched so that faint pictures have lines too."""
    dx, dy = gradients(grey)
    strength = (dx**2 + dy**2).sqrt()
    top = torch.quantile(strength.flatten(1), 0.98, dim=1).clamp_min(1e-3)
    return (strength / top[:, None, None, None]).clamp(0, 1)


@dataclass(frozen=True)
class Floor:
    """What a pure change of style costs, by how strong it is."""

    costs: tuple[float, ...]  # D at each of DOSES

    @classmethod
    def of(cls, redrawn: Sequence[Sequence[Sequence[float]]]) -> Floor:
        """Return the ninth decile of the D of all redrawings of all base images, from their `redrawn_distances`."""
        costs = np.quantile(np.concatenate([np.array(each) for each in redrawn]), FLOOR_QUANTILE, axis=0)
        return cls(tuple(costs.tolist()))

    @property
    def whole(self) -> float:
        """What a whole redrawing costs."""
        return self.costs[-1]

    def at(self, dose: Floats | float) -> Floats:
        """Return the cost at strengths, from 0 (nothing is redrawn, and nothing allowed) to 1 and beyond."""
        return np.asarray(np.interp(dose, (0.0, *DOSES), (ROUNDING, *self.costs)))


def redrawn_distances(image: Tensor, patches: PatchEncoder | None = None) -> list[list[float]]:
    """Return D between a picture and each of its redrawings (rows) at each of DOSES (columns)."""
    size = canonical_size(image)
    own = resized([image], *size)[0]
    drawn = [own + dose * (picture[0] - own) for picture in restyled(own[None]) for dose in DOSES]
    found = layout([image, *drawn], size, patches)
    rows: list[list[float]] = distances(found[[0]], found[range(1, len(drawn) + 1)])[0].view(-1, len(DOSES)).tolist()
    return rows


def distance_matrix(base: Layouts, samples: Layouts) -> Floats:
    """Return D between every base image (row) and every sample (column); a sample of another size is stretched."""
    found = np.zeros((len(base.sizes), len(samples.sizes)))
    for size in sorted(set(base.sizes)):
        rows = [i for i, s in enumerate(base.sizes) if s == size]
        found[rows] = distances(base.at(size)[rows], samples.at(size)).double().numpy()
    return found


def null_distance(matrix: Floats, texts: Sequence[str]) -> float:
    """Return the median D between base images and samples of other prompts.

    Raises:
        ScoreError: if there is only one prompt.
    """
    if len(set(texts)) < 2:
        raise ScoreError(f"composition needs samples of at least 2 different prompts, got {len(set(texts))}")
    names = np.array(texts)
    return float(np.median(matrix[names[:, None] != names[None]]))


def composition(pairs: Floats, *, null: float, floor: Floor, dose: Floats | float = 1.0) -> Floats:
    """Return C per picture = clip((null - D) / (null - floor at its dose), -0.5, 1).

    Args:
        pairs: (N,) D between base images and samples.
        null: D of unrelated pictures.
        floor: of the base images.
        dose: (N,) strength of each sample's style, 0 ... 1, as its style gain; beyond these it counts as 0 and as 1.

    Range: -0.5 ... 1, higher is better; 1 = what a pure restyling of that strength keeps, 0 = an unrelated picture.
    Fooled by: see `structure.distances`; under a strong style, moves too small to exceed the floor (about 2 px of 96);
    a style of another kind than the references', which has no dose and so no floor.
    Source: facts/metrics.md 2.3, with the floor of this module.

    Raises:
        ScoreError: if null and floor are too near for anything to be read between them.
    """
    if null - floor.whole < RANGE_AT_LEAST:
        raise ScoreError(
            f"composition cannot be measured: unrelated prompts differ by {null:.3f}, a pure restyling by "
            f"{floor.whole:.3f}; at least {RANGE_AT_LEAST} between them is needed. Use prompts with different layouts; "
            "a base that draws noise has none."
        )
    return np.clip((null - pairs) / (null - floor.at(dose)), LOWEST, 1.0)
