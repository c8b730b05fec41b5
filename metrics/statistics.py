"""How sure a number is: paired differences, intervals, Holm's correction, and ties below the noise ruler.

Three levels carry noise (facts/metrics.md 6). Prompts carry most of it on Flux (0.7) and are resampled, each with its
own seeds: what these differ by is in the prompts' means already, and drawing them anew would count it twice (Davison &
Hinkley 1997, 3.8). Trials share both, so that one `seed` here gives every trial the same resamples (common random
numbers) and a difference is taken within the pair. Training seeds come last and are drawn from a t distribution with
the spread found between trainings: resampling two or three trainings reaches only three or ten different means and
cannot cover what it promises. No torch here: reports read outcome files with it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit  # scipy.stats calls these, and takes half a second to load

from metrics.settings import ScoreSettings

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # from (..., P) prompt means to (...)


@dataclass(frozen=True)
class Ruler:
    """How far apart trainings of one recipe land that differ in nothing but their seed."""

    sd: float  # between trainings of one recipe, in the metric's own unit
    df: int  # degrees of freedom it was found with: trainings minus recipes

    def tie(self, first: int = 1, second: int = 1, confidence: float = 0.95) -> float:
        """Return the difference that two means over `first` and `second` trainings of ONE recipe stay below.

        In `confidence` of all cases; a difference below it is a tie. About 2.8 SDs for one training each.
        """
        return float(stdtrit(self.df, (1 + confidence) / 2) * self.sd * np.sqrt(1 / first + 1 / second))


@dataclass(frozen=True)
class Difference:
    """First minus second, over common prompts and seeds."""

    value: float
    low: float  # bounds of the interval
    high: float
    p: float  # two-sided, of no difference; Holm's where several were compared
    tie: bool  # the interval holds 0, or the difference is below the noise ruler
    ruler: float  # what differs by less counts as a tie; 0 without a ruler


def mean_of_prompts(prompt_values: Floats) -> Floats:
    """Return the mean over the last axis: how every metric but style becomes one number."""
    return np.asarray(prompt_values.mean(-1))


def statistic_of(name: str, settings: ScoreSettings) -> Statistic:
    """Return how the values of a metric become one number: the capped objective for "style", else the mean."""
    if name != "style":
        return mean_of_prompts
    return lambda gains: style_objective(
        np.minimum(gains, settings.gain_cap), tail_weight=settings.tail_weight, tail_share=settings.tail_share
    )


def style_objective(prompt_gains: Floats, *, tail_weight: float, tail_share: float) -> Floats:
    """Return (1 - w) * mean + w * CVaR over the last axis (prompts): the weakest prompts count twice.

    Args:
        prompt_gains: (..., P) mean gain of each prompt, capped.
        tail_weight: w; facts 9.1 takes 0.3.
        tail_share: the share of prompts that is the tail, at least one prompt; facts 9.1 takes a quarter.
    """
    count = max(1, round(tail_share * prompt_gains.shape[-1]))
    tail = np.sort(prompt_gains, axis=-1)[..., :count].mean(-1)
    return np.asarray((1 - tail_weight) * prompt_gains.mean(-1) + tail_weight * tail)


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


def common_pairs(first: Sequence[Hashable], second: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Return the positions of what both have, in the order of the first: only these may be compared.

    Args:
        first: what identifies each picture of one trial, such as (text, seed, width, height).
        second: the same of the other.

    Raises:
        ValueError: if nothing is common, or a trial has one twice.
    """
    for name, keys in (("first", first), ("second", second)):
        if len(set(keys)) < len(keys):
            raise ValueError(f"`{name}` has a prompt and seed twice: they cannot be paired")
    places = {key: index for index, key in enumerate(second)}
    shared = [(index, places[key]) for index, key in enumerate(first) if key in places]
    if not shared:
        raise ValueError("the two have no prompt and seed in common: nothing can be compared")
    return [i for i, _ in shared], [j for _, j in shared]


def training_ruler(recipes: Sequence[ArrayLike]) -> Ruler | None:
    """Return the noise between trainings, pooled over recipes; None if no recipe was trained twice.

    Args:
        recipes: for each recipe the metric's value of every training of it that differs by its seed alone.
    """
    repeated = [np.asarray(values, dtype=float) for values in recipes if np.size(values) > 1]
    df = sum(len(values) - 1 for values in repeated)
    if df == 0:
        return None
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in repeated)
    return Ruler(float(np.sqrt(squares / df)), df)


def bootstrap_interval(
    values: ArrayLike,
    texts: Sequence[str],
    *,
    statistic: Statistic = mean_of_prompts,
    ruler: Ruler | None = None,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the interval of a statistic of prompt means, averaged over trainings.

    Args:
        values: (N,) one per picture, or (R, N) for R trainings of one recipe; pictures that do not count left out.
        texts: (N,) the prompt of each picture.
        statistic: see `statistic_of`.
        ruler: the noise between trainings; by default that of the R trainings, and none for a single one, whose
            interval then speaks of prompts and seeds only.
        samples: resamples.
        confidence: level, 0 ... 1.
        seed: of the generator.

    Source: Davison & Hinkley 1997, 3.8 (groups with, members without replacement); percentiles widened for few prompts
    after Hesterberg 2015, "What Teachers Should Know About the Bootstrap", 5.3.
    """
    table = _trainings(values)
    ruler = ruler or training_ruler([_point(table, texts, statistic)])
    return _resampled([table], texts, statistic, ruler, samples, seed).interval(confidence)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    texts: Sequence[str],
    *,
    statistic: Statistic = mean_of_prompts,
    ruler: Ruler | None = None,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Return first minus second, both on the same prompts and seeds, picture by picture.

    Args:
        first: (N,) or (R, N) as in `bootstrap_interval`; use `common_pairs` where the two were drawn differently.
        second: the same of the other recipe, (N,) or (R', N).
        texts: (N,) the prompt of each picture.
        statistic: see `statistic_of`.
        ruler: the noise between trainings; by default pooled from both. Without one, one training against one other
            says nothing of their recipes: `tie` is then read from the interval alone.
        samples: resamples.
        confidence: level of interval and ruler.
        seed: of the generator.

    Raises:
        ValueError: if the two do not have one value for every text.
    """
    tables = [_trainings(first), _trainings(second)]
    if not all(table.shape[1] == len(texts) for table in tables):
        shapes = " and ".join(str(table.shape[1]) for table in tables)
        raise ValueError(f"both must have one value for each of the {len(texts)} texts, got {shapes}")
    ruler = ruler or training_ruler([_point(table, texts, statistic) for table in tables])
    draws = _resampled(tables, texts, statistic, ruler, samples, seed)
    value = float(_point(tables[0], texts, statistic).mean() - _point(tables[1], texts, statistic).mean())
    low, high = draws.interval(confidence)
    least = ruler.tie(len(tables[0]), len(tables[1]), confidence) if ruler else 0.0
    tie = low <= 0 <= high or abs(value) < least
    return Difference(value, low, high, draws.p(confidence), tie, least)


def compare(
    candidates: Mapping[str, ArrayLike],
    texts: Sequence[str],
    *,
    against: str,
    statistic: Statistic = mean_of_prompts,
    ruler: Ruler | None = None,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Difference]:
    """Return `against` minus every other candidate, p-values corrected by Holm over all of them.

    The noise between trainings is pooled over all candidates unless `ruler` is given. A difference that is no longer
    significant after Holm is a tie. Arguments as in `paired_difference`.
    """
    tables = {name: _trainings(values) for name, values in candidates.items()}
    ruler = ruler or training_ruler([_point(table, texts, statistic) for table in tables.values()])
    options = {"samples": samples, "confidence": confidence, "seed": seed}
    found = {
        name: paired_difference(tables[against], table, texts, statistic=statistic, ruler=ruler, **options)  # type: ignore[arg-type]
        for name, table in tables.items()
        if name != against
    }
    corrected = holm([difference.p for difference in found.values()])
    return {
        name: replace(difference, p=p, tie=difference.tie or p > 1 - confidence)
        for (name, difference), p in zip(found.items(), corrected, strict=True)
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down corrected p-values, in the given order; scipy has Benjamini-Hochberg only.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.asarray(p_values, dtype=float)[order] * np.arange(len(order), 0, -1)
    found = np.empty(len(order))
    found[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(p) for p in found]


def _trainings(values: ArrayLike) -> Floats:
    """Return (R, N) float64."""
    return np.atleast_2d(np.asarray(values, dtype=np.float64))


def _point(table: Floats, texts: Sequence[str], statistic: Statistic) -> Floats:
    """Return the statistic of each training, (R,)."""
    means = np.stack([prompt_means(row, texts) for row in table])
    return statistic(means)


@dataclass(frozen=True)
class _Draws:
    """What a statistic could have been: draws over prompts and seeds, and what training seeds add to each."""

    prompts: Floats  # (B,)
    trainings: Floats  # (B,), around 0
    count: int  # different prompts

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the percentile interval."""
        tail = float(ndtr(self._widening(confidence) * ndtri((1 - confidence) / 2)))
        low, high = np.quantile(self.prompts + self.trainings, [tail, 1 - tail])
        return float(low), float(high)

    def p(self, confidence: float) -> float:
        """Return the two-sided p-value of 0: below 1 - confidence where the interval leaves out 0."""
        drawn = self.prompts + self.trainings
        least = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
        deviation = min(float(ndtri((least + 1) / (len(drawn) + 1))), 0.0)
        return float(2 * ndtr(deviation / self._widening(confidence)))

    def _widening(self, confidence: float) -> float:
        """Return how much wider than a normal's the interval must be; training seeds are drawn from a t already."""
        count = max(2, self.count)
        level = (1 - confidence) / 2
        wide = np.sqrt(count / (count - 1)) * stdtrit(count - 1, level) / ndtri(level)
        by_prompts, by_trainings = float(self.prompts.var()), float(self.trainings.var())
        share = by_prompts / (by_prompts + by_trainings) if by_prompts else 0.0
        return float(1 + (wide - 1) * share)


def _resampled(
    tables: Sequence[Floats], texts: Sequence[str], statistic: Statistic, ruler: Ruler | None, samples: int, seed: int
) -> _Draws:
    """Return what the statistic of one table, or the first's minus the second's, could have been."""
    rng, count = np.random.default_rng(seed), len(set(texts))
    resamples = rng.integers(0, count, (samples, count))  # (B, P), the same for both: that is what pairs them
    first, *second = (_drawn(table, texts, resamples, statistic) for table in tables)
    noise = _by_training(ruler, sum(1 / len(table) for table in tables), samples, rng)
    return _Draws(first - sum(second), noise, count)


def _drawn(table: Floats, texts: Sequence[str], resamples: NDArray[np.intp], statistic: Statistic) -> Floats:
    """Return the statistic averaged over trainings for every resample, (B,)."""
    means = np.stack([prompt_means(row, texts) for row in table])  # (R, P)
    return np.asarray(statistic(means[:, resamples]).mean(0))


def _by_training(ruler: Ruler | None, variances: float, samples: int, rng: np.random.Generator) -> Floats:
    """Return what training seeds add, (B,); `variances` is 1 / R of a mean over R trainings, their sum for two."""
    if ruler is None:
        return np.zeros(samples)
    # The quantiles themselves in a random order: drawn freely, the tails of so few degrees of freedom are mostly luck.
    levels = (rng.permutation(samples) + 0.5) / samples
    return np.asarray(ruler.sd * np.sqrt(variances) * stdtrit(ruler.df, levels))
