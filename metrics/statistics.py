"""Intervals by the paired bootstrap: prompts are resampled, then seeds within every prompt.

On Flux prompts carry far more of the variance than seeds (facts/metrics.md 0.7), so prompts come first. Values are
already differences to the base image of the same prompt and seed; trials share both, so that the same `seed` here
gives the same resamples to every trial of a study (common random numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def prompt_means(values: Floats, texts: Sequence[str]) -> Floats:
    """Return the mean of the values of each prompt, (P,), in the order of their first appearance."""
    groups = prompt_groups(texts)
    return np.array([values[group].mean() for group in groups])


def prompt_groups(texts: Sequence[str]) -> list[NDArray[np.intp]]:
    """Return the positions of each different text, in the order of their first appearance."""
    found: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        found.setdefault(text, []).append(index)
    return [np.array(group) for group in found.values()]


def bootstrap_interval(
    values: Floats,
    texts: Sequence[str],
    *,
    statistic: Callable[[Floats], Floats] | None = None,
    samples: int,
    confidence: float,
    seed: int,
) -> tuple[float, float]:
    """Return the percentile interval of a statistic of prompt means.

    Args:
        values: (N,) one per picture.
        texts: (N,) the prompt of each.
        statistic: from (..., P) prompt means to (...); the mean by default.
        samples: resamples.
        confidence: level, 0 ... 1.
        seed: of the generator.

    Source: Davison & Hinkley 1997, 3.8 (resampling with hierarchy); scipy.stats.bootstrap has no hierarchy.
    """
    rng = np.random.default_rng(seed)
    groups = prompt_groups(texts)
    widest = max(len(group) for group in groups)
    table = np.stack([np.resize(values[group], widest) for group in groups])  # (P, S), ragged rows padded
    sizes = np.array([len(group) for group in groups])
    prompts = rng.integers(0, len(groups), (samples, len(groups)))  # (B, P)
    draws = rng.random((samples, len(groups), widest))
    seeds = (draws * sizes[prompts][..., None]).astype(np.intp)  # (B, P, S): a seed of the prompt drawn
    drawn = table[prompts[..., None], seeds]
    used = np.arange(widest) < sizes[prompts][..., None]  # a prompt with fewer seeds draws only so many
    means = (drawn * used).sum(-1) / used.sum(-1)
    found = means.mean(-1) if statistic is None else statistic(means)
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)
