"""Diversity: do different prompts and seeds still give different pictures?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def spread(distances: Floats) -> float:
    """Return the mean distance between different pictures, from their (N, N) matrix; 0 for fewer than two."""
    count = len(distances)
    if count < 2:
        return 0.0
    return float((distances.sum() - np.trace(distances)) / (count * (count - 1)))


def diversity_ratio(samples: Floats, base: Floats) -> float:
    """Return the spread of the samples over that of the base images, in one distance.

    Range: 0 ... about 2, higher is better, 1 = as varied as the base; 0 = all samples are one picture.
    Fooled by: texture. LPIPS between pictures of one hatched style is smaller than between flat ones, so a style alone
    moves it (figures in README); read beside the same ratio in layout distance, which a style does not move.
    Source: OneIG-Bench diversity (mean pairwise distance), relative to the base: facts/metrics.md 4 and 9.
    """
    reference = spread(base)
    return spread(samples) / reference if reference > 1e-9 else 1.0
