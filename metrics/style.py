"""Style strength as gain over the base image, against held-out references.

Raw closeness to a style's pictures is no measure: an unchanged picture already has much of it, and a leaked subject
raises it (facts/metrics.md 0.1, 0.4). So closeness is read against a frozen pool of other styles (a cross-domain
similarity like CSLS), in every encoder, and only its gain over the base image counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from metrics.images import ScoreError

Floats = NDArray[np.float64]
NEAR_REFERENCES = 3  # closeness to the style is the mean of this many nearest references
NEAR_OTHERS = 10  # and to the other styles of this many nearest pool pictures


class Whitening(StrEnum):
    """How features are scaled before cosines are taken."""

    none = "none"
    features = "features"  # each by itself: for statistics with units of their own
    directions = "directions"  # what the references differ in is suppressed: for learned features


@dataclass(frozen=True)
class Scaling:
    """How centred features are scaled: each by a factor, then some directions among them once more."""

    factors: Tensor  # (D,)
    directions: Tensor  # (K, D) orthonormal rows, K may be 0; a full (D, D) matrix would not fit for wide networks
    shrink: Tensor  # (K,) share of each direction that is taken away
    limit: float = float("inf")  # most of its scales that one feature by itself may say

    def unit(self, centred: Tensor) -> Tensor:
        """Return (N, D) rows of length 1."""
        scaled = (centred * self.factors).clamp(-self.limit, self.limit)
        return functional.normalize(scaled - (scaled @ self.directions.T * self.shrink) @ self.directions, dim=1)


@dataclass(frozen=True)
class StyleSpace:
    """One encoder's view of a style: features of references and pool, centred on both and scaled.

    `margin` of a picture is mean top-3 cosine to the references minus mean top-10 cosine to the pool; `sigma` is that,
    z-scored by its own leave-one-out distribution over references and pool, so that encoders can be averaged.
    """

    references: Tensor  # (R, D) unit rows
    others: Tensor  # (N, D) unit rows
    centre: Tensor  # (D,)
    scaling: Scaling
    mean: float = 0.0
    spread: float = 1.0
    ceiling: float = 0.0  # median sigma of the references, each in a space fitted to the others of them

    @classmethod
    def fit(cls, references: Tensor, others: Tensor, *, whitening: Whitening) -> StyleSpace:
        """Fit to raw features (R, D) and (N, D).

        Args:
            references: held-out pictures of the style.
            others: the pool of other styles.
            whitening: see `SCALINGS`.
        """
        space = cls._framed(references, others, whitening)
        apart = ~torch.eye(len(others), dtype=torch.bool)
        of_others = _margins(space.others, space.references, space.others, allowed_others=apart)
        # A reference in the space it helped to shape would look nearer to the others than any new picture can be.
        left_out = [torch.arange(len(references)) != i for i in range(len(references))]
        frames = [cls._framed(references[kept], others, whitening) for kept in left_out]
        alone = [frame._margin(references[~kept]) for frame, kept in zip(frames, left_out, strict=True)]
        of_references = np.concatenate(alone)
        margins = np.concatenate([of_references, of_others])
        mean, spread = float(margins.mean()), float(margins.std()) or 1.0
        return replace(space, mean=mean, spread=spread, ceiling=(float(np.median(of_references)) - mean) / spread)

    @classmethod
    def _framed(cls, references: Tensor, others: Tensor, whitening: Whitening) -> StyleSpace:
        """Return the space before its scale is known."""
        everything = torch.cat([references, others])
        centre, scaling = everything.mean(0), SCALINGS[whitening](references, everything)
        return cls(scaling.unit(references - centre), scaling.unit(others - centre), centre, scaling)

    def unit(self, features: Tensor) -> Tensor:
        """Return raw features (M, D) as this space compares them: centred, scaled, of length 1."""
        return self.scaling.unit(features - self.centre)

    def sigma(self, features: Tensor, allowed_others: Tensor | None = None) -> Floats:
        """Return the style strength of raw features (M, D), in SDs of the pool; higher is more of the style.

        Args:
            features: raw features of the pictures.
            allowed_others: (M, N) bool, which pool pictures may be compared (a picture is never its own neighbour).
        """
        return (self._margin(features, allowed_others) - self.mean) / self.spread

    def _margin(self, features: Tensor, allowed_others: Tensor | None = None) -> Floats:
        return _margins(self.unit(features), self.references, self.others, allowed_others=allowed_others)


def _unscaled(references: Tensor, everything: Tensor) -> Scaling:
    return _by_factors(torch.ones_like(everything[0]))


def _by_feature(references: Tensor, everything: Tensor) -> Scaling:
    """Return one over the geometric mean of a feature's SD over everything and within the references.

    What all references share then says most, what changes with their subjects says little: on the drawn scenes of
    tests/metrics the rank test V1 of the descriptor rises from .861 (SD over everything) to .994.
    """
    total = everything.std(0).clamp_min(1e-4)
    return _by_factors((total * torch.maximum(references.std(0), 0.1 * total)).rsqrt(), limit=4)


def _by_factors(factors: Tensor, limit: float = float("inf")) -> Scaling:
    return Scaling(factors, factors.new_zeros(0, len(factors)), factors.new_zeros(0), limit)


def _by_direction(references: Tensor, everything: Tensor) -> Scaling:
    """Return one over a feature's SD, then the inverse root of the references' covariance, ridged by 1.

    Learned features are about subjects first. Among references of one style and many subjects the subjects are what
    differs, so those directions count little. Source: within-class covariance normalisation, Hatch et al. 2006.
    """
    spread = everything.std(0)
    factors = 1 / torch.maximum(spread, 0.01 * spread.mean()).clamp_min(1e-6)  # a channel that hardly answers is noise
    scaled = (references - references.mean(0)) * factors
    _, spreads, directions = torch.linalg.svd(scaled, full_matrices=False)
    variances = spreads.square() / max(1, len(references) - 1)
    return Scaling(factors, directions, 1 - (1 + variances).rsqrt())


SCALINGS: dict[Whitening, Callable[[Tensor, Tensor], Scaling]] = {
    Whitening.none: _unscaled,
    Whitening.features: _by_feature,
    Whitening.directions: _by_direction,
}


def _margins(
    units: Tensor,
    references: Tensor,
    others: Tensor,
    *,
    allowed_others: Tensor | None = None,
) -> Floats:
    near = _top_mean(units @ references.T, NEAR_REFERENCES, None)
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
