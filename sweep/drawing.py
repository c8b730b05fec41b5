"""Which point a trial tries: what the sampler proposes, unless a rule forbids it or a trial has tried it already.

A point that was tried with the same training seed has the same values, so trying it again buys nothing: the sampler
draws again, then chance picks among what is left, and a space in which nothing is left ends the study. All draws of a
trial depend on (`search.seed`, its number, the attempt) alone, and it is begun with all that is known of it in one
write: a process that is killed before leaves no trial, and the next one draws the same point.
"""

import copy
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from sweep.errors import InputError
from sweep.rules import Conditions, Point
from sweep.rungs import BUDGET
from sweep.samplers import sampler_for
from sweep.settings import Sampler, SearchSettings
from sweep.space import Space, contains, suggest

DRAWS = 10  # of the sampler for one trial, before chance decides
BLIND_DRAWS = 1000  # by chance, in a space that is too large to be listed
LISTED = 20_000  # points of a space that is gone through one by one
ENQUEUED = "fixed_params"  # where Optuna keeps what an enqueued trial will be suggested
CHANCE = 1 << 20  # an attempt that no sampler reaches


class _Aside:
    """A study's storage for a sampler whose trial is not in it yet: what it notes on that trial is put aside."""

    def __init__(self, storage: BaseStorage, notes: dict[str, Any]) -> None:
        self.storage = storage
        self.notes = notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Puts it aside."""
        self.notes[key] = value


@dataclass(frozen=True)
class Ground:
    """The space a study searches, with its conditions."""

    search: SearchSettings
    space: Space  # every parameter after those its condition speaks of
    conditions: Conditions = field(default_factory=Conditions)
    listed: tuple[Point, ...] | None = None  # every point, in the order of a grid; None if there is no end of them

    def example(self, key: str, value: object) -> Point:
        """A point to look at a choice with: the choice alone, or with what its condition asks for; empty if unknown."""
        if key not in self.conditions.when:
            return {key: value}
        return next((point for point in self.listed or () if key in point and point[key] == value), Point())

    def exhausted(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether every point has had its trial."""
        if self.listed is None or len(trials) < len(self.listed):
            return False
        tried = _tried(trials)
        return all(_key(point) in tried for point in self.listed)

    def begin(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> Trial:
        """Begins a trial at a new point.

        Args:
            trials: of the study; nobody else may have begun one since they were read.

        Raises:
            InputError: if no point that keeps the rules could be found.
        """
        frozen = create_trial(state=TrialState.RUNNING)
        frozen.number = len(trials)
        notes: dict[str, Any] = {}
        aside = copy.copy(study)
        aside._storage = _Aside(study._storage, notes)  # type: ignore[assignment]
        aside._thread_local.cached_all_trials = list(trials)  # so that no sampler reads them again
        point, repeated = self._draw(aside, frozen, _tried(trials))
        whole = create_trial(
            state=TrialState.RUNNING,
            params=point,
            distributions={key: dist for key, dist in self.space.items() if key in point},
            user_attrs={} if repeated is None else {"drawn_instead_of": repeated},
            system_attrs=notes,
        )
        whole.number = frozen.number  # a server's storage begins it under no other
        return Trial(study, study._storage.create_new_trial(study._study_id, whole))

    def settle(self, trial: Trial) -> Trial:
        """Gives a trial the rest of the point that it was enqueued with."""
        given: Point = trial._cached_frozen_trial.system_attrs.get(ENQUEUED, {})
        suggest(trial, {key: dist for key, dist in self.space.items() if key in given})
        return trial

    def _draw(self, study: optuna.Study, frozen: FrozenTrial, tried: dict[str, int]) -> tuple[Point, int | None]:
        """A point, and the trial that the sampler would have repeated."""
        repeated: int | None = None
        for attempt in range(DRAWS if self.search.sampler != Sampler.grid else 0):
            sampler = sampler_for(self.search, self.space, frozen.number, attempt)
            point = self._propose(study, frozen, sampler)
            if self.conditions.allow(point):
                if _key(point) not in tried:
                    return point, repeated
                repeated = tried[_key(point)] if repeated is None else repeated
        return self._by_chance(study, frozen, tried), repeated

    def _propose(self, study: optuna.Study, frozen: FrozenTrial, sampler: BaseSampler) -> Point:
        """What the sampler says, without telling the study."""
        sampler.before_trial(study, frozen)
        jointly = sampler.infer_relative_search_space(study, frozen)
        together = sampler.sample_relative(study, frozen, jointly)
        point: Point = {}
        for key, dist in self.space.items():
            if not self.conditions.active(key, point):
                continue
            if key in together and contains(dist, together[key]):
                point[key] = together[key]
            else:
                point[key] = sampler.sample_independent(study, frozen, key, dist)
        return point

    def _by_chance(self, study: optuna.Study, frozen: FrozenTrial, tried: dict[str, int]) -> Point:
        if self.listed is not None:
            left = [point for point in self.listed if _key(point) not in tried]
            if left:
                by_order = self.search.sampler == Sampler.grid
                return left[0 if by_order else int(_rng(self.search.seed, frozen.number).integers(len(left)))]
        for attempt in range(BLIND_DRAWS):
            sampler = RandomSampler(seed=int(_rng(self.search.seed, frozen.number, attempt).integers(1 << 31)))
            point = self._propose(study, frozen, sampler)
            if self.conditions.allow(point) and _key(point) not in tried:
                return point
        rules = "; ".join(rule.text for rule in self.conditions.rules)
        raise InputError(f"no point of the space keeps `search.rules` ({rules}) and is new, in {BLIND_DRAWS} draws")


def ground(search: SearchSettings, space: Space, conditions: Conditions, *, shuffled: bool = True) -> Ground:
    """Puts a space in order and lists its points where they have an end.

    Args:
        shuffled: whether the sampler `grid` goes through them in a seeded order, so that a part of them is a fair
            sample, instead of the last parameter changing fastest.

    Raises:
        InputError: if the rules leave no point, or `grid` is asked for where there is no end of points.
    """
    points = _list(space, conditions)
    if search.sampler == Sampler.grid:
        _refuse_endless(space, points)
        if shuffled and points is not None:
            points = tuple(points[i] for i in np.random.default_rng(search.seed).permutation(len(points)))
            if search.n_trials >= len(points):
                points = _shorter_first(points)
    if points is not None and not points:
        rules = "; ".join(rule.text for rule in conditions.rules)
        raise InputError(f"`search.rules` leaves nothing to search: no point of the space keeps {rules}")
    return Ground(search, space, conditions, points)


def _list(space: Space, conditions: Conditions) -> tuple[Point, ...] | None:
    columns: list[list[object]] = []
    size = 1
    for dist in space.values():
        values = _values(dist)
        if values is None or (size := size * len(values)) > LISTED:
            return None
        columns.append(values)
    found: dict[str, Point] = {}
    for row in itertools.product(*columns):
        point: Point = {}
        for key, value in zip(space, row, strict=True):
            if conditions.active(key, point):
                point[key] = value
        if _key(point) not in found and conditions.allow(point):
            found[_key(point)] = point
    return tuple(found.values())


def _shorter_first(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points in their order, but for those that differ in their budgets alone: the longer goes on from the shorter.

    Not for a part of a grid, which would be the short trainings then.
    """
    places: dict[str, list[int]] = {}
    for place, point in enumerate(points):
        places.setdefault(_key({k: v for k, v in point.items() if not k.startswith(BUDGET)}), []).append(place)
    ordered = list(points)
    for equal in places.values():
        budgets = [[value for key, value in points[place].items() if key.startswith(BUDGET)] for place in equal]
        if all(isinstance(amount, int | float) for budget in budgets for amount in budget):
            for place, (_, source) in zip(equal, sorted(zip(budgets, equal, strict=True)), strict=True):
                ordered[place] = points[source]
    return tuple(ordered)


def _values(dist: optuna.distributions.BaseDistribution) -> list[object] | None:
    if isinstance(dist, CategoricalDistribution):
        return list(dist.choices)
    if isinstance(dist, IntDistribution):
        return list(range(dist.low, dist.high + 1, dist.step)) if (dist.high - dist.low) < LISTED * dist.step else None
    if isinstance(dist, FloatDistribution) and dist.step is not None:
        return [dist.low + i * dist.step for i in range(round((dist.high - dist.low) / dist.step) + 1)]
    return [dist.low] if isinstance(dist, FloatDistribution) and dist.single() else None


def _refuse_endless(space: Space, points: tuple[Point, ...] | None) -> None:
    endless = [key for key, dist in space.items() if _values(dist) is None]
    if endless:
        raise InputError(
            f"`search.sampler` grid goes through every point, and there is no end of them in {', '.join(endless)}:"
            " write it as range(low, high, step) or choice(…), or take another sampler, search.sampler=qmc"
        )
    if points is None:
        raise InputError(f"`search.sampler` grid: there are more than {LISTED} points; take another sampler")


def _tried(trials: Iterable[FrozenTrial]) -> dict[str, int]:
    """The points of trials -> the first trial that has each."""
    found: dict[str, int] = {}
    for trial in trials:
        found.setdefault(_key(trial.system_attrs.get(ENQUEUED) or trial.params), trial.number)
    return found


def _key(point: Point) -> str:
    return repr(sorted(point.items()))


def _rng(seed: int, number: int, attempt: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed, number, CHANCE + attempt])
