"""Is a picture in one piece? Tears and exchanged parts, looked for in it and confirmed by its base image.

A break alone proves nothing: a ship ends at the water line, an engraving is ruled from edge to edge. Of 942 samples of
real LoRAs, nearly all in one piece, 5 % have a stronger break than references and base images usually have. What a tear
does and a drawing does not is to *move* what the base image has in its place. So every place counts by the break there
and by how much better the base image is found beside it, and neither is enough by itself for a tear.

All at the area of a square of `SIDE` px. The constants were chosen on drawn scenes of seeds 20261124 to 20261130 and on
those 942 samples, whole, torn and with parts exchanged (metrics/README.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from metrics.images import equal_area, gaussian_blur, opponent, resized
from metrics.structure import direction_field, gradient_products

Floats = NDArray[np.float64]
SIDE, PART, STEP = 64, 16, 4  # px; parts that were exchanged are squares of PART px, looked for every STEP px
SIGMA = 1.7  # px of 64, as layouts are read at 2.5 of 96
BAND = 16  # px on either side of a tear in which the base image is looked for
APART = 3  # px by which the two sides must have moved against each other
SCANT = 0.25  # of the mean energy of a band: with less drawn in it there is nothing to find
FAINT = 0.3  # the same of a part
USUAL = 0.95  # quantile of what is normal: one odd reference or failed base image must not excuse every sample
MARGINS = torch.tensor([1.5, 2.0])  # times the usual break of a tear, of an exchange
WORD = 0.005  # of likeness by which the base image must be found better beside its place
ALONE, CONFIRMED = 0.5, 0.98  # of the tolerance: the most that a break counts without and with the base image's word
MOVED = 2.0  # weight of that word itself


@dataclass(frozen=True)
class Pieces:
    """What a picture shows at every place of being put together from moved pieces."""

    torn: tuple[Tensor, Tensor]  # (H - 1,) between rows, (W - 1,) between columns
    exchanged: Tensor  # (P, P) for the parts at P places; -inf where they overlap
    field: Tensor  # (3, H, W) directions in which tone and colour change, see `structure.direction_field`

    @property
    def breaks(self) -> Tensor:
        """Return (2,): the strongest tear and exchange, whatever the base image says."""
        return torch.stack([torch.cat(self.torn).max(), self.exchanged.max().clamp_min(0)])


def pieces(image: Tensor) -> Pieces:
    """Read a picture, (3, H, W) in [0, 1] of any size."""
    channels = opponent(resized([image], *equal_area(image, SIDE)))
    field = direction_field(*gradient_products(gaussian_blur(channels, SIGMA)))[0]
    return Pieces((_torn(channels[0]), _torn(channels[0].mT)), _exchanged(channels[0, 0]), field)


def broken_score(found: Pieces, base: Pieces, usual: Tensor) -> float:
    """Return how sure it is that a picture was torn or had parts exchanged; above 0 it was.

    Args:
        found: of a sample.
        base: of its base image, of the same size.
        usual: (2,) from `usual_breaks`.

    Range: about -1 ... 3, lower is better; a picture against itself is not torn.
    Fooled by: a tear that leaves what is drawn on one side of it, which only moves a thing (read composition); one
    through a layout that the LoRA has changed altogether, which the base image cannot confirm; parts exchanged along a
    curve or far smaller than a quarter of the picture.
    Source: none; the two kinds of evidence are those of `_torn`, `_exchanged`, and their confirmation by the base.
    """
    limits = MARGINS * usual + 0.01
    moved = torch.cat([_moved(found.field, base.field), _moved(found.field.mT, base.field.mT)])
    most = torch.where(moved > WORD, CONFIRMED, ALONE)
    tears = torch.minimum(torch.cat(found.torn) / limits[0], most) + MOVED * moved
    exchanges = (found.exchanged / limits[1] + _elsewhere(found.field, base.field)).max()
    return float(torch.maximum(tears.max(), exchanges)) - 1


def usual_breaks(normal: list[Pieces]) -> Tensor:
    """Return (2,): the break that USUAL of references and base images do not exceed."""
    return torch.quantile(torch.stack([p.breaks for p in normal]), USUAL, dim=0)


def _torn(channels: Tensor) -> Tensor:
    """Return (H - 1,): how far between two rows of (C, H, W) all looks moved sideways from there on.

    At a tear, two neighbouring rows are less alike than the pairs of rows beside them, and moving one sideways would
    mend that; where a drawn thing ends, no move does. Rows are compared by correlation, smoothed along themselves so
    that hatching does not count; a row of one tone is like its neighbours. About 0 in one piece, towards 1 at a tear.
    """
    rows = functional.avg_pool2d(functional.pad(channels[None], (1, 1, 0, 0), mode="replicate"), (1, 3), 1)[0]
    rows = rows - rows.mean(2, keepdim=True)
    power = rows.square().mean((0, 2))
    floor = 0.1 * float(power.max()) + 1e-6
    shared = _along(rows[:, :-1], rows[:, 1:]) / (rows.shape[2] * len(rows))
    alike = (shared + floor) / (torch.sqrt(power[1:] * power[:-1]) + floor)[:, None]  # (H - 1, moves)
    half = alike.shape[1] // 2
    still = alike[:, half]
    mended = torch.cat([alike[:, :half], alike[:, half + 1 :]], 1).amax(1)
    beside = functional.pad(still[None], (3, 3), mode="replicate")[0].unfold(0, 7, 1)[:, [0, 1, 5, 6]]
    return (beside.mean(1) + beside.amin(1) + mended) / 3 - still


def _along(first: Tensor, second: Tensor) -> Tensor:
    """Return (H, 2 * (W // 2) + 1): each row of (C, H, W) with the same row of another, moved by -W/2 ... W/2 px."""
    width = first.shape[2]
    # twice as wide: what is moved out at one edge does not enter at the other
    waves = torch.fft.rfft(first, n=2 * width).conj() * torch.fft.rfft(second, n=2 * width)
    shared = torch.fft.irfft(waves, n=2 * width).sum(0)
    half = width // 2
    return torch.cat([shared[:, -half:], shared[:, : half + 1]], 1)


def _moved(found: Tensor, base: Tensor) -> Tensor:
    """Return (H - 1,) in about -2 ... 2: how much better the base is found if both sides of a row moved differently.

    The likeness of the two bands beside the row to the base image, each at its own best move, minus that at the best
    move of both together: positive at a tear, near 0 where one side has nothing drawn or the layout is another, and
    negative where base and sample agree. A thing that was moved whole moves both bands.
    """
    likeness = _along(base, found).cumsum(0)
    energy = [field.square().sum((0, 2)).cumsum(0) for field in (found, base)]
    height = len(likeness)
    row = torch.arange(1, height)
    scant = SCANT * BAND / height * (energy[0][-1] * energy[1][-1]).sqrt() + 1e-9

    def within(sums: Tensor, start: Tensor, end: Tensor) -> Tensor:
        padded = functional.pad(sums.T, (1, 0)).T if sums.ndim == 2 else functional.pad(sums, (1, 0))
        return padded[end] - padded[start]

    bands = []
    for start, end in (((row - BAND).clamp_min(0), row), (row, (row + BAND).clamp_max(height))):
        shared = (within(energy[0], start, end) * within(energy[1], start, end)).clamp_min(0).sqrt()
        bands.append(within(likeness, start, end) / (shared + scant)[:, None])
    before, after = bands
    none = torch.full((len(row), APART), -9.0)
    below = torch.cat([none, after.cummax(1).values[:, :-APART]], 1)
    above = torch.cat([after.flip(1).cummax(1).values.flip(1)[:, APART:], none], 1)
    return (before + torch.maximum(below, above)).amax(1) - (before + after).amax(1)


def _exchanged(grey: Tensor) -> Tensor:
    """Return (P, P): how much smoother (H, W) luma would get at their edges if two squares in it changed places.

    What the steps across both outlines fall by, in tones per px of an edge: below 0.5 in most pictures in one
    piece, 1 ... 4 with parts exchanged. Absolute steps, as squared ones are mostly those of a few hard lines. Steps
    across outlines are what jigsaw puzzles are solved by (Cho, Avidan and Freeman 2010).
    """
    top, left = _places(grey)
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
    return ((own[:, None] + own - steps - steps.T) / PART).masked_fill(~apart, -torch.inf)


def _elsewhere(found: Tensor, base: Tensor) -> Tensor:
    """Return (P, P) in -2 ... 2: how much better the base is found in two parts if they changed places."""
    top, left = _places(found[0])
    parts = [f.unfold(1, PART, 1).unfold(2, PART, 1)[:, top, left].transpose(0, 1).flatten(1) for f in (found, base)]
    norms = [part.norm(dim=1) for part in parts]
    faint = FAINT * norms[0].mean() * norms[1].mean() + 1e-9
    likeness = parts[0] @ parts[1].T / (norms[0][:, None] * norms[1] + faint)
    own = likeness.diag()
    return likeness + likeness.T - own[:, None] - own


def _places(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Return top and left of every part of (H, W)."""
    starts = [
        torch.unique(torch.cat([torch.arange(0, e - PART + 1, STEP), torch.tensor([e - PART])])) for e in picture.shape
    ]
    top, left = torch.meshgrid(*starts, indexing="ij")
    return top.flatten(), left.flatten()
