"""Style strength as gain over the base image, against held-out references.

Raw closeness to a style's pictures is no measure: an unchanged picture already has much of it, and a leaked subject
raises it (facts/metrics.md 0.1, 0.4). So closeness is read against a frozen pool of other styles (a cross-domain
similarity like CSLS), in every encoder, and only its gain over the base image counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from metrics.images import ScoreError

Floats = NDArray[np.float64]
NEAR_REFERENCES = 3  # closeness to the style is the mean of this many nearest references
NEAR_OTHERS = 10  # and to the other styles of this many nearest pool pictures


@dataclass(frozen=True)
class StyleSpace:
    """One encoder's view of a style: features of references and pool, centred on both and scaled.

    `margin` of a picture is mean top-3 cosine to the references minus mean top-10 cosine to the pool; `sigma` is that,
    z-scored by its own leave-one-out distribution over references and pool, so that encoders can be averaged.
    """

    references: Tensor  # (R, D) unit rows
    others: Tensor  # (N, D) unit rows
    centre: Tensor  # (D,)
    scale: Tensor  # (D,)
    mean: float
    spread: float
    ceiling: float  # median sigma of the references, each against the others of them

    @classmethod
    def fit(cls, references: Tensor, others: Tensor, *, whiten: bool) -> StyleSpace:
        """Fit to raw features (R, D) and (N, D).

        Args:
            references: held-out pictures of the style.
            others: the pool of other styles.
            whiten: divide every feature by the geometric mean of its SD over everything and its SD within the
                references. What all references share then says most, what changes with their subjects says little:
                on the drawn scenes the rank test V1 of the descriptor rises from .861 (SD over everything) to .994.
        """
        everything = torch.cat([references, others])
        centre = everything.mean(0)
        scale = torch.ones_like(centre)
        if whiten:
            total = everything.std(0).clamp_min(1e-4)
            scale = (total * torch.maximum(references.std(0), 0.1 * total)).sqrt()
        space = cls(_unit(references, centre, scale), _unit(others, centre, scale), centre, scale, 0.0, 1.0, 0.0)
        same_r = ~torch.eye(len(references), dtype=torch.bool)
        same_o = ~torch.eye(len(others), dtype=torch.bool)
        of_references = _margins(space.references, space.references, space.others, allowed_references=same_r)
        of_others = _margins(space.others, space.references, space.others, allowed_others=same_o)
        margins = np.concatenate([of_references, of_others])
        spread = float(margins.std()) or 1.0
        mean = float(margins.mean())
        ceiling = (float(np.median(of_references)) - mean) / spread
        return cls(space.references, space.others, centre, scale, mean, spread, ceiling)

    def unit(self, features: Tensor) -> Tensor:
        """Return raw features (M, D) as this space compares them: centred, scaled, of length 1."""
        return _unit(features, self.centre, self.scale)

    def sigma(self, features: Tensor, allowed_others: Tensor | None = None) -> Floats:
        """Return the style strength of raw features (M, D), in SDs of the pool; higher is more of the style.

        Args:
            features: raw features of the pictures.
            allowed_others: (M, N) bool, which pool pictures may be compared (a picture is never its own neighbour).
        """
        units = self.unit(features)
        found = _margins(units, self.references, self.others, allowed_others=allowed_others)
        return (found - self.mean) / self.spread


def _unit(features: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Return centred, scaled and normalised rows; 4 of its scales are the most that one feature may say."""
    return functional.normalize(((features - centre) / scale).clamp(-4, 4), dim=1)


def _margins(
    units: Tensor,
    references: Tensor,
    others: Tensor,
    *,
    allowed_references: Tensor | None = None,
    allowed_others: Tensor | None = None,
) -> Floats:
    near = _top_mean(units @ references.T, NEAR_REFERENCES, allowed_references)
    far = _top_mean(units @ others.T, NEAR_OTHERS, allowed_others)
    return (near - far).double().numpy()


def _top_mean(cosines: Tensor, count: int, allowed: Tensor | None) -> Tensor:
    """Return the mean of each row's `count` largest allowed cosines, or of all where there are fewer."""
    if allowed is None:
        allowed = torch.ones_like(cosines, dtype=torch.bool)
    ordered = cosines.masked_fill(~allowed, -torch.inf).sort(dim=1, descending=True).values[:, :count]
    kept = ordered.isfinite()
    return ordered.masked_fill(~kept, 0).sum(1) / kept.sum(1).clamp_min(1)


def style_gain(samples: Floats, base: Floats, *, base_level: float, ceiling: float, range_at_least: float) -> Floats:
    """Return the gain per picture, (sigma(g) - sigma(b)) / (ceiling - base_level).

    Range: about -0.5 ... 1.1, higher is better; 0 = no change, 1 = as close as the references are to each other.
    Fooled by: colour alone (half of the descriptor), subjects of the references (so they are held out and varied), a
    style that the base already draws (refused). Above 1 lies copying: read memorisation.
    Source: facts/metrics.md 9(a); CSLS after Conneau et al. 2018, pool after arXiv 2605.09030.

    Raises:
        ScoreError: if base and references are nearer than `range_at_least` SDs of the pool.
    """
    if ceiling - base_level < range_at_least:
        raise ScoreError(
            f"style cannot be measured: the references lie {ceiling - base_level:.2f} SDs above the base images and "
            f"`style_range_at_least` is {range_at_least}. Either the base already draws this style, or the encoder "
            "cannot tell it from the other styles."
        )
    return (samples - base) / (ceiling - base_level)
