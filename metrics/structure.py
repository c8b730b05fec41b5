"""How far apart two layouts are, whatever style they are drawn in.

Tolerant edge-F and normalised gradient field (NGF, Haber & Modersitzki 2006), and where a patch encoder is given the
self-similarity of its patches (Tumanyan et al. 2022, "Splicing ViT Features"), in equal parts. Edges and gradients look
at where tone or colour changes and in which direction, never at how much or with which sign, so chalk (light on dark)
counts as the flat picture it came from. They are read at the area of a 96 px square: 2 px of tolerance mean the same at
every size.

The decision worth knowing: gradients are taken at sigma 2.5 px of 96, not at the 1.5 of facts/metrics.md 2.2. Hatching
of 3.5 px at 64 px has a period of 5.3 px there; sigma 1.5 lets 20 % of it through and sigma 2.5 lets 1 %. On the
drawn scenes of tests/metrics the rank test (same layout in another medium is nearer than another layout in the same
medium) rises from .833 to .984, for hatching from .69 to 1.00.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from metrics.images import equal_area, gaussian_blur, gradients, opponent, resized

SIDE = 96  # px; edge of the square with the area at which layouts are compared
SIGMA = 2.5  # px of 96; removes texture with a period below about 6 px, see the module's docstring
TOLERANCE = 2  # px of 96 by which an edge may lie beside its mate (facts 2.2)
EDGE_SHARE = 0.06  # at most this share of the pixels are edges: the outlines of a picture, not its texture
EDGE_FLOOR = 0.5  # of the 99.5th percentile of edge strength; weaker ones do not carry the layout
NGF_FLOOR = 2.0  # of the mean squared gradient; below it a direction counts as noise


class PatchEncoder(Protocol):
    """A network that sees a picture as patches."""

    def patches(self, images: Sequence[Tensor]) -> Tensor:
        """Return (N, T, D) patch tokens."""


@dataclass(frozen=True)
class Layout:
    """Edges of pictures of one size: rows are pictures, columns pixels."""

    edges: Tensor  # (N, H*W) 0 or 1
    near: Tensor  # (N, H*W) 1 where an edge lies within TOLERANCE
    field: Tensor  # (N, 3*H*W) normalised gradient products xx, sqrt(2) xy, yy: free of sign
    similarity: Tensor | None = None  # (N, T*T) unit: cosines between all patches, centred; None without an encoder

    def __getitem__(self, index: Sequence[int]) -> Layout:
        """Return the rows `index`."""
        rows = torch.tensor(list(index), dtype=torch.long)
        similarity = None if self.similarity is None else self.similarity[rows]
        return Layout(self.edges[rows], self.near[rows], self.field[rows], similarity)


def canonical_size(image: Tensor) -> tuple[int, int]:
    """Return the (height, width) in px at which `image`'s layout is read."""
    return equal_area(image, SIDE)


def layout(images: Sequence[Tensor], size: tuple[int, int], patches: PatchEncoder | None = None) -> Layout:
    """Return the layouts of `images`, all stretched to `size` (height, width) in px."""
    products = gradient_products(gaussian_blur(opponent(resized(images, *size)), SIGMA))
    edges = _edges(*products)
    reach = 2 * TOLERANCE + 1
    near = functional.max_pool2d(edges[:, None], reach, stride=1, padding=TOLERANCE)[:, 0]
    similarity = None if patches is None else _self_similarity(patches.patches(images))
    return Layout(edges.flatten(1), near.flatten(1), direction_field(*products).flatten(1), similarity)


def gradient_products(channels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the products xx, xy and yy of the gradients of (N, C, H, W), each (N, H, W), summed over channels.

    Di Zenzo's colour gradient: an edge between equally light colours counts.
    """
    dx, dy = gradients(channels)
    return (dx * dx).sum(1), (dx * dy).sum(1), (dy * dy).sum(1)


def direction_field(xx: Tensor, xy: Tensor, yy: Tensor) -> Tensor:
    """Return the normalised gradient field of pictures, (N, 3, H, W): xx, sqrt(2) xy, yy, free of sign and contrast."""
    floor = NGF_FLOOR * (xx + yy).flatten(1).mean(1)[:, None, None] + 1e-12
    return torch.stack([xx, math.sqrt(2) * xy, yy], 1) / (xx + yy + floor)[:, None]


def _self_similarity(tokens: Tensor) -> Tensor:
    """Return (N, T*T) cosines between the patches of each picture, centred and of length 1."""
    unit = functional.normalize(tokens, dim=2)
    cosines = (unit @ unit.transpose(1, 2)).flatten(1)
    return functional.normalize(cosines - cosines.mean(1, keepdim=True), dim=1)


def _edges(xx: Tensor, xy: Tensor, yy: Tensor) -> Tensor:
    """Return thin edges, (N, H, W) of 0 and 1: ridges of the gradient, the strongest EDGE_SHARE of the pixels."""
    half = (xx - yy) / 2
    strength = ((xx + yy) / 2 + (half**2 + xy**2).sqrt()).sqrt()
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)
    height, width = strength.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")

    def beside(sign: int) -> Tensor:  # strength one px along the gradient
        px = (x + sign * angle.cos()) / (width - 1) * 2 - 1
        py = (y + sign * angle.sin()) / (height - 1) * 2 - 1
        at = torch.stack([px, py], -1)
        return functional.grid_sample(strength[:, None], at, align_corners=True, padding_mode="border")[:, 0]

    ridges = (strength * ((strength >= beside(1)) & (strength >= beside(-1)))).flatten(1)
    kept = ridges.topk(int(EDGE_SHARE * height * width), dim=1).values[:, -1:]
    floor = torch.maximum(kept, EDGE_FLOOR * torch.quantile(ridges, 0.995, dim=1, keepdim=True))
    # 1e-4 of the tone range per px: below it a blank picture would show edges in its rounding errors.
    return ((ridges >= floor) & (ridges > 1e-4)).float().view_as(strength)


class Layouts:
    """Pictures and their layouts, each read at a size once."""

    def __init__(self, images: Sequence[Tensor], patches: PatchEncoder | None = None) -> None:
        self.sizes = [canonical_size(image) for image in images]
        self._images, self._patches = images, patches
        self._known: dict[tuple[int, int], Layout] = {}

    def at(self, size: tuple[int, int]) -> Layout:
        """Return all pictures' layouts, stretched to `size`."""
        if size not in self._known:
            self._known[size] = layout(self._images, size, self._patches)
        return self._known[size]


def distances(first: Layout, second: Layout) -> Tensor:
    """Return D of every pair, (N, M) in [0, 1]: 0 the same layout, about 0.85 unrelated ones.

    Fooled by: a subject swapped for one of the same silhouette (read adherence and leakage), a zoom or crop, which
    counts as loss though a person may not mind; texture coarser than 6 px of 96 counts as layout.
    Source: facts/metrics.md 2.2 and 2.3.
    """
    hit = (first.edges @ second.near.T) / first.edges.sum(1, keepdim=True).clamp_min(1)
    found = (first.near @ second.edges.T) / second.edges.sum(1)[None].clamp_min(1)
    edge_f = 2 * hit * found / (hit + found).clamp_min(1e-9)
    norms = first.field.norm(dim=1)[:, None] * second.field.norm(dim=1)[None]
    ngf = (first.field @ second.field.T) / norms.clamp_min(1e-9)
    likeness = [edge_f, ngf]
    if first.similarity is not None and second.similarity is not None:
        likeness.append((first.similarity @ second.similarity.T).clamp_min(0))  # Pearson's r of the self-similarities
    return (1 - torch.stack(likeness).mean(0)).clamp(0, 1)
