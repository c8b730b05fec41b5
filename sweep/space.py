"""The search space: Hydra's override grammar read as Optuna's distributions.

    captions=choice(none,edited)                      one of these, in this order; config groups too
    mix.repeats.512=range(0,6)                        whole numbers 0 … 5, as Hydra's range excludes its end
    train.optimizer.learning_rate=interval(1e-4,1e-2) any number between; tag(log, interval(…)) on a log scale
    train.lora.rank=int(interval(4,64))               whole numbers 4 … 64, both ends in

A parameter is named by its Hydra key, so that `key=value` of a trial's parameters is the command that repeats it.
A choice that is not a number, a truth value or null is kept as the text Hydra would read back.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import Trial

from sweep.errors import InputError
from sweep.points import choices, is_plain, searched

Space = dict[str, BaseDistribution]


@dataclass(frozen=True)
class Arguments:
    """A command line taken apart: what is fixed for every trial, and what is searched."""

    fixed: list[str]
    space: Space
    plain: bool = False  # lists alone, as in any Hydra application: every combination of them is run
    left_out: tuple[str, ...] = ()  # choices of `search.params` that cannot be made, and why
    typed: frozenset[str] = frozenset()  # keys of the space that the command line searches
    varied: tuple[Override, ...] = ()  # what the space was read from


def read_arguments(
    arguments: Sequence[str],
    params: Mapping[str, str],
    loader: ConfigLoader | None,
    lacks: Callable[[str, str], str] = lambda key, choice: "",
) -> Arguments:
    """Takes the command line and the space of `search.params` apart.

    What the command line searches is added to the space or replaces the entry of that key; what it fixes leaves the
    space. If all it has are plain lists (`captions=none,edited train.seed=1,2,3`), it is no search: every combination
    of them is run, as Hydra does without a sweeper, and `search.params` has no say.

    Args:
        lacks: (key, choice) -> what a choice of `search.params` would need; such a one is left out, unless all are. One
            that the command line names is not: it is refused later.

    Raises:
        InputError: if a sweep cannot be searched, or nothing is left to search.
    """
    parser = OverridesParser.create(config_loader=loader)
    given = parser.parse_overrides(list(arguments))
    varied = searched(given, params, parser)
    sweeps = [override for override in given if override.is_sweep_override()]
    typed = frozenset(override.get_key_element() for override in sweeps)
    listed = {o.get_key_element(): distribution(o) for o in varied if o.get_key_element() not in typed}
    left_out = _leave_out(listed, lacks)
    space = listed | {override.get_key_element(): distribution(override) for override in sweeps}
    if not space:
        raise InputError(
            "nothing is left to search: `search.params` is empty, or the command line fixes all of it. Search one,"
            " for example captions=choice(none,edited), or leave out -m to train this one configuration"
        )
    fixed = [override.input_line or "" for override in given if not override.is_sweep_override()]
    return Arguments(fixed, space, is_plain(sweeps), left_out, typed, tuple(varied))


def _leave_out(space: Space, lacks: Callable[[str, str], str]) -> tuple[str, ...]:
    """Takes the choices out of a space that lack something, and says what."""
    said: list[str] = []
    for key, dist in space.items():
        if isinstance(dist, CategoricalDistribution):
            named = [choice for choice in dist.choices if isinstance(choice, str)]
            wanting = {choice: why for choice in named if (why := lacks(key, choice))}
            if len(wanting) < len(dist.choices):
                space[key] = CategoricalDistribution([choice for choice in dist.choices if choice not in wanting])
                said += [f"{key}={choice}: {why}" for choice, why in wanting.items()]
    return tuple(said)


def ranges(space: Space) -> str:
    """What is searched, in one line."""
    parts = []
    for key, dist in space.items():
        if isinstance(dist, CategoricalDistribution):
            shown = ", ".join(str(choice) for choice in dist.choices)
            parts.append(f"{key} {shown}" if len(dist.choices) < 4 else f"{key} ({len(dist.choices)} choices)")
        elif isinstance(dist, IntDistribution | FloatDistribution):
            parts.append(f"{key} {dist.low:g}…{dist.high:g}")
    return "; ".join(parts)


def distribution(override: Override) -> BaseDistribution:
    """The distribution an override of the search grammar stands for.

    Raises:
        InputError: if it is no sweep, is empty, or shuffles or sorts, which means nothing to a search.
    """
    key, sweep = override.get_key_element(), override.value()
    if override.is_choice_sweep():
        listed = choices(override)
        if not listed:
            raise InputError(f"`{key}` has no choices: {override.input_line}")
        return CategoricalDistribution(listed)
    if isinstance(sweep, RangeSweep):
        return _stepped(key, sweep)
    if isinstance(sweep, IntervalSweep):
        return _interval(key, sweep)
    raise InputError(f"`{key}` is not a search: write choice(…), range(…) or interval(…), got {override.input_line}")


def _stepped(key: str, sweep: RangeSweep) -> BaseDistribution:
    start, stop, step = sweep.start, sweep.stop, sweep.step
    if start is None or stop is None or step <= 0:
        raise InputError(f"`{key}` needs a range(start, stop, step) that goes up, got step {step}")
    if all(isinstance(bound, int) for bound in (start, stop, step)):
        if start >= stop:
            raise InputError(f"`{key}` has an empty range: {start} to {stop}, the end excluded")
        return IntDistribution(int(start), int(range(int(start), int(stop), int(step))[-1]), step=int(step))
    values = list(sweep.range())
    if not values:
        raise InputError(f"`{key}` has an empty range: {start} to {stop}, the end excluded")
    return FloatDistribution(values[0], values[-1], step=float(step))


def _interval(key: str, sweep: IntervalSweep) -> BaseDistribution:
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    if low is None or high is None or low > high:
        raise InputError(f"`{key}` needs an interval(low, high) with low <= high, got {low} and {high}")
    if log and low <= 0:
        raise InputError(f"`{key}` is searched on a log scale, so its low end must be above 0, got {low}")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def suggest(trial: Trial, space: Space) -> dict[str, Any]:
    """Draws every parameter; what the trial has already keeps its value, so that an interrupted trial is repeated."""
    drawn: dict[str, Any] = {}
    for key, dist in space.items():
        if isinstance(dist, CategoricalDistribution):
            drawn[key] = trial.suggest_categorical(key, dist.choices)
        elif isinstance(dist, IntDistribution):
            drawn[key] = trial.suggest_int(key, dist.low, dist.high, step=dist.step, log=dist.log)
        elif isinstance(dist, FloatDistribution):
            drawn[key] = trial.suggest_float(key, dist.low, dist.high, step=dist.step, log=dist.log)
    return drawn


def contains(dist: BaseDistribution, value: Any) -> bool:
    """Whether a value lies in the distribution; `enqueue_trial` itself takes any value with a warning."""
    if isinstance(dist, CategoricalDistribution):
        return any(value == choice and type(value) is type(choice) for choice in dist.choices)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return bool(dist._contains(dist.to_internal_repr(value)))


def to_json(space: Space) -> str:
    """The space as text that `from_json` reads back; sorted, so that equal spaces give equal texts."""
    return json.dumps({key: json.loads(distribution_to_json(dist)) for key, dist in sorted(space.items())})


def from_json(text: str) -> Space:
    """Reads what `to_json` wrote."""
    return {key: json_to_distribution(json.dumps(dist)) for key, dist in json.loads(text).items()}


def describe(space: Space) -> str:
    """One line per parameter, for people."""
    return "\n".join(f"    {key}: {describe_one(dist)}" for key, dist in sorted(space.items())) or "    (empty)"


def describe_one(dist: BaseDistribution) -> str:
    """What one parameter may be, for people."""
    if isinstance(dist, CategoricalDistribution):
        return "one of " + ", ".join("null" if choice is None else str(choice) for choice in dist.choices)
    if isinstance(dist, IntDistribution | FloatDistribution):
        step = f" in steps of {dist.step}" if dist.step not in (None, 1) else ""
        kind = "whole numbers " if isinstance(dist, IntDistribution) else ""
        return f"{kind}{dist.low} to {dist.high}{step}{' on a log scale' if dist.log else ''}"
    raise TypeError(f"unknown distribution {dist!r}")
