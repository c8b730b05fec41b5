"""Who suggests the next trial, by name.

A sampler is made anew for every trial and seeded by (seed, trial number), so that an interrupted study, continued,
gets the suggestions that an uninterrupted one would have had.
"""

from collections.abc import Callable

import numpy as np
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from sweep.settings import Sampler, SearchSettings


def _tpe(search: SearchSettings, seed: int) -> BaseSampler:
    return TPESampler(n_startup_trials=search.startup, seed=seed)


def _nsga2(search: SearchSettings, seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=max(2, 2 * search.startup), seed=seed)


def _random(search: SearchSettings, seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


SAMPLERS: dict[Sampler, Callable[[SearchSettings, int], BaseSampler]] = {
    Sampler.tpe: _tpe,
    Sampler.nsga2: _nsga2,
    Sampler.random: _random,
}


def sampler_for(search: SearchSettings, number: int) -> BaseSampler:
    """The sampler that suggests trial `number`."""
    seed = int(np.random.SeedSequence([search.seed, number]).generate_state(1)[0])
    return SAMPLERS[search.sampler](search, seed)
