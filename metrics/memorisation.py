"""Memorisation: are samples copies of training pictures?

New pictures of the right style lie near the training pictures too, so nearness alone says nothing. The controls are
held-out references of the same style, which cannot have been copied: how near they lie to the training pictures is
what style alone brings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Floats = NDArray[np.float64]


def expected_nearest(distances: Floats, count: int) -> Floats:
    """Return the expected smallest of `count` columns drawn without replacement, per row of (N, M) distances.

    Resampling in closed form: the i-th smallest of M is the smallest drawn with probability C(M-i, n-1) / C(M, n). It
    makes training and reference sets of different sizes comparable, as a larger set always has a nearer member.
    """
    ordered = np.sort(distances, axis=1)
    total = ordered.shape[1]
    if not 1 <= count <= total:
        raise ValueError(f"`count` must lie between 1 and {total}, got {count}")
    rank = np.arange(1, total - count + 2)

    def log_choose(n: Floats, k: int) -> Floats:
        return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))

    weights = np.exp(log_choose((total - rank).astype(float), count - 1) - log_choose(np.array([float(total)]), count))
    return np.asarray(ordered[:, : len(rank)] @ weights)


def memorisation_gap(to_training: Floats, to_references: Floats) -> Floats:
    """Return per sample how much nearer the nearest training picture is than the nearest reference, in LPIPS.

    Range: about -0.3 ... 0.8, lower is better; 0 = no nearer than to pictures that were never seen.
    Fooled by: references whose subjects differ from the training's: then it is also large for new pictures of the
    training subjects, and small for copies of unrelated ones. A diagnostic; `copies` is the constraint.
    Source: facts/metrics.md 9, memorisation.
    """
    count = min(to_training.shape[1], to_references.shape[1])
    return expected_nearest(to_references, count) - expected_nearest(to_training, count)


def copies(
    to_training: Floats, references_to_training: Floats, *, share: float, base_to_training: Floats | None = None
) -> NDArray[np.bool_]:
    """Return which samples are copies: nearer to a training picture than `share` of what may be expected.

    Expected is what references usually are, or what the sample's own base image is where that is nearer: a base that
    draws such pictures by itself was not taught them. A sample that equals its base image is never a copy.

    Args:
        to_training: (N, M) distances of the samples.
        references_to_training: (R, M) of the held-out references.
        share: 0 ... 1.
        base_to_training: (N, M) of the base images.

    Range: a flag per sample; the rate lies in 0 ... 1, lower is better.
    Fooled by: a copy that was cut by more than an eighth or moved, which LPIPS does not call near (corners, the
    middle, a square and mirrored copies are compared too); very plain styles, in which all pictures are alike.
    Source: facts/metrics.md 9; the share was set on the drawn scenes (tests/metrics/test_memorisation.py).
    """
    expected = np.full(len(to_training), np.median(references_to_training.min(1)))
    if base_to_training is not None:
        expected = np.minimum(expected, base_to_training.min(1))
    return np.asarray(to_training.min(1) < share * expected)
