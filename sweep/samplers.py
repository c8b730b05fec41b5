"""Who suggests the next trial, by name, and which options each takes.

A sampler is made anew for every draw and seeded by (seed, trial number, attempt), so that an interrupted study,
continued, gets the suggestions that an uninterrupted one would have had.
"""

import copy
import inspect
import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sweep.errors import InputError
from sweep.rules import Conditions
from sweep.settings import Sampler, SearchSettings
from sweep.space import Space
from sweep.study import rectangle

NO_OPTION = re.compile("Callable|Base|dict|list|ndarray|FrozenTrial")  # what a line of text cannot be
KINDS: dict[str, set[type]] = {"bool": {bool}, "int": {int}, "float": {int, float}, "str": {str}, "None": {type(None)}}
OURS = {"self", "seed", "warn_independent_sampling"}


class QuasiRandom(BaseSampler):
    """The n-th point of a scrambled Sobol sequence for trial n (Owen 1998, as in `scipy.stats.qmc`).

    Optuna's own counts its points in the study, so that a killed process loses one, and leaves choices to chance.
    """

    def __init__(self, space: Space, seed: int, number: int, *, scramble: bool = True) -> None:
        self.space = space
        self.seed = seed
        self.number = number
        self.scramble = scramble

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Space:
        """The whole space."""
        return self.space

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        """The trial's point."""
        from scipy.stats.qmc import Sobol

        sequence = Sobol(len(search_space), scramble=self.scramble, rng=np.random.default_rng(self.seed))
        if self.number:  # scipy 1.17 cannot go forward by 0
            sequence.fast_forward(self.number)
        [unit] = sequence.random(1)
        return {key: _at(dist, float(u)) for (key, dist), u in zip(search_space.items(), unit, strict=True)}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Not reached: every parameter is part of the point."""
        raise NotImplementedError(param_name)


def _at(dist: BaseDistribution, u: float) -> Any:
    """The value that a fraction u in [0, 1) of a distribution lies below."""
    if isinstance(dist, CategoricalDistribution):
        return dist.choices[int(u * len(dist.choices))]
    if isinstance(dist, IntDistribution) and dist.log:
        return round(math.exp(math.log(dist.low) + u * math.log(dist.high / dist.low)))
    if isinstance(dist, IntDistribution):
        return dist.low + dist.step * int(u * ((dist.high - dist.low) // dist.step + 1))
    if not isinstance(dist, FloatDistribution):
        raise TypeError(f"unknown distribution {dist!r}")
    if dist.step is not None:
        return dist.low + dist.step * int(u * (round((dist.high - dist.low) / dist.step) + 1))
    if dist.log:
        return math.exp(math.log(dist.low) + u * math.log(dist.high / dist.low))
    return dist.low + u * (dist.high - dist.low)


class OneValue(CmaEsSampler):
    """Optuna's CMA-ES, which knows one objective; of several it gets what `best` goes by, the rectangle.

    A trial that breaks constraints has minus what it breaks them by, so that any usable one is better.
    """

    def _raise_error_if_multi_objective(self, study: optuna.Study) -> None:
        """Does not."""

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The trial's point."""
        return super().sample_relative(_with_one_objective(study), trial, search_space)


def _with_one_objective(study: optuna.Study) -> optuna.Study:
    if len(study.directions) == 1:
        return study
    single = copy.copy(study)
    single._directions = [StudyDirection.MAXIMIZE]
    trials = study._get_trials(deepcopy=False, use_cache=True)
    single._thread_local.cached_all_trials = [_with_one_value(trial) for trial in trials]
    return single


def _with_one_value(trial: FrozenTrial) -> FrozenTrial:
    if trial.state != TrialState.COMPLETE:
        return trial
    broken = sum(value for value in trial.constraints.values() if value > 0)
    single = copy.copy(trial)
    single.values = [-broken if broken else rectangle(trial.values)]
    return single


# Each sampler's class, and the options it has here unless others are given.
SAMPLERS: dict[Sampler, tuple[Callable[..., BaseSampler], Callable[[SearchSettings], dict[str, Any]]]] = {
    Sampler.tpe: (TPESampler, lambda search: {"n_startup_trials": search.startup}),
    Sampler.gp: (GPSampler, lambda search: {"n_startup_trials": search.startup, "warn_independent_sampling": False}),
    Sampler.nsga2: (NSGAIISampler, lambda search: {"population_size": max(2, 2 * search.startup)}),
    Sampler.nsga3: (NSGAIIISampler, lambda search: {"population_size": max(2, 2 * search.startup)}),
    Sampler.cmaes: (OneValue, lambda search: {"n_startup_trials": search.startup}),
    Sampler.random: (RandomSampler, lambda search: {}),
}


def sampler_for(search: SearchSettings, space: Space, number: int, attempt: int = 0) -> BaseSampler:
    """The sampler that draws the point of trial `number`.

    Args:
        attempt: 0, 1, … when an earlier draw could not be used.
    """
    words = [search.seed, number] + ([attempt] if attempt else [])
    seed = int(np.random.SeedSequence(words).generate_state(1)[0])
    if search.sampler == Sampler.qmc:
        return QuasiRandom(space, search.seed, number, **search.options) if not attempt else RandomSampler(seed=seed)
    made, ours = SAMPLERS[search.sampler]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # NSGA-III and some options; their versions are pinned
        return made(seed=seed, **{**ours(search), **search.options})


def check_sampler(search: SearchSettings, space: Space, conditions: Conditions) -> None:
    """Refuses a sampler that cannot search this space, and options that it does not have.

    Raises:
        InputError: naming the sampler, the keys or the option, and what to do.
    """
    name = search.sampler.value
    known = _options(search.sampler)
    odd = [option for option in search.options if option not in known]
    if odd:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise InputError(f"`search.options`: the sampler {name} has no option {', '.join(odd)}; {has}")
    wrong = [f"{o} must be {known[o]}, got {v!r}" for o, v in search.options.items() if not _is_a(v, known[o])]
    if wrong:
        raise InputError(f"`search.options`: of the sampler {name} {', '.join(wrong)}")
    if search.sampler == Sampler.cmaes:
        _check_cmaes(space, conditions)
    if search.sampler == Sampler.grid:
        return
    try:
        sampler_for(search, space, 0)
    except (TypeError, ValueError) as fault:
        raise InputError(f"`search.options`: the sampler {name} refuses them: {fault}") from fault


def _options(sampler: Sampler) -> dict[str, str]:
    """What can be set of a sampler in a line of text -> its type, as Optuna writes it."""
    if sampler == Sampler.grid:
        return {}
    if sampler == Sampler.qmc:
        return {"scramble": "bool"}
    parameters = inspect.signature(SAMPLERS[sampler][0]).parameters.values()
    return {p.name: p.annotation for p in parameters if p.name not in OURS and not NO_OPTION.search(str(p.annotation))}


def _is_a(value: Any, wanted: str) -> bool:
    return any(type(value) in KINDS[word] for word in wanted.split(" | "))


def _check_cmaes(space: Space, conditions: Conditions) -> None:
    chosen = [key for key, dist in space.items() if isinstance(dist, CategoricalDistribution) or key in conditions.when]
    if chosen:
        raise InputError(
            f"`search.sampler` cmaes searches numbers alone; {', '.join(chosen)} is a choice or has a condition:"
            " fix it, or take tpe"
        )
    try:
        import cmaes  # noqa: F401
    except ImportError:
        raise InputError("`search.sampler` cmaes needs a package: pip install 'stylesweep[cmaes]'") from None
