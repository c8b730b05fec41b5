"""Diversity: do different prompts and seeds still give different pictures?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SAME = 1 / 3  # of the base's mean distance: over it likeness falls to 1/e


def effective_number(distances: Floats, scale: float) -> float:
    """Return how many different pictures there are, from their (N, N) distances: 1 if all are one, at most N.

    Source: Vendi score, exp of the entropy of the eigenvalues of K / N (Friedman & Dieng 2023, arXiv 2210.02410), with
    K = exp(-distance / scale).
    """
    likeness = np.exp(-(distances + distances.T) / 2 / scale)
    np.fill_diagonal(likeness, 1)
    shares = np.linalg.eigvalsh(likeness / len(distances)).clip(1e-12)  # rounding leaves some just below 0
    return float(np.exp(-(shares * np.log(shares)).sum()))


def diversity_ratio(samples: Floats, base: Floats) -> float:
    """Return how many different pictures the samples are beyond one, over the base images', by (N, N) distances.

    Range: 0 ... about 2, higher is better, 1 = as varied as the base; 0 = all samples are one picture.
    Fooled by: texture. LPIPS between pictures of one hatched style is smaller than between flat ones, so a style alone
    moves it a little (figures in README); read beside the same ratio in layout distance, which a style does not move.
    Source: facts/metrics.md 4 and 9. A mean distance would rise while copies of an unusual picture spread (V12).
    """
    count = len(base)
    scale = SAME * float((base.sum() - np.trace(base)) / max(1, count * (count - 1)))
    if scale < 1e-9 or (among_base := effective_number(base, scale)) < 1 + 1e-6:
        return 1.0
    return (effective_number(samples, scale) - 1) / (among_base - 1)
