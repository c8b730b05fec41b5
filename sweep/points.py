"""Points of a search: what is chosen, as Hydra's overrides, and the configurations it gives. No Optuna here."""

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweep.errors import Faults
from sweep.refusal import message

Point = dict[str, Any]
Configs = dict[str, DictConfig]  # what was chosen, as it is typed -> the configuration it gives; "" without any choice
# Where a study lives and how it searches does not make a trial another trial.
NOT_TRAINED = ("hydra", "search", "study", "track")
NOWHERE = object()


def key_of(override: Override) -> str:
    """The key that an override is about, without the signs that add or remove it."""
    return override.get_key_element().lstrip("+~")


def searched(typed: Sequence[Override], params: Mapping[str, str], parser: OverridesParser) -> list[Override]:
    """What a search varies: the sweeps that were typed, and what these and other words leave of `search.params`.

    Raises:
        Faults: naming the keys that are no part of a training.
    """
    sweeps = [override for override in typed if override.is_sweep_override()]
    listed = parser.parse_overrides([f"{key}={text}" for key, text in params.items()])
    if wrong := [key for key in map(key_of, (*sweeps, *listed)) if _part(key) in NOT_TRAINED]:
        told = "cannot be searched: it says how a study is run, not what is trained. Give it one value"
        raise Faults(f"`{key}` {told}" for key in wrong)
    taken = set(map(key_of, typed))
    return sweeps if is_plain(sweeps) else [*(o for o in listed if key_of(o) not in taken), *sweeps]


def is_plain(sweeps: Sequence[Override]) -> bool:
    """Whether they are lists alone, as in any Hydra application: every combination of them is run."""
    return bool(sweeps) and all(_is_list(override.value()) for override in sweeps)


def _is_list(sweep: Any) -> bool:
    return isinstance(sweep, ChoiceSweep) and sweep.simple_form and not sweep.shuffle


def _part(key: str) -> str:
    """The node of the configuration that a key lies in."""
    return re.split(r"[./]", key.lstrip("+~"))[0]


def choices(override: Override) -> list[bool | int | float | str | None]:
    """What an override lists, as Optuna can hold it, each once."""
    return list(dict.fromkeys(as_choice(value) for value in override.sweep_iterator()))


def as_choice(value: Any) -> bool | int | float | str | None:
    """A value as Optuna can hold it: numbers, truth values and null as they are, anything else as Hydra's text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    # The text as Hydra would have to read it again: quotes and escapes kept.
    return str(Override._get_value_element_as_str(value))


def as_override(key: str, value: Any) -> str:
    """`key=value` as Hydra reads it."""
    text = value if isinstance(value, str) else str(Override._get_value_element_as_str(value))
    return f"{key}={text}"


def value_in(config: DictConfig, key: str) -> Any:
    """What a key has in a configuration; of a group its choice.

    Raises:
        LookupError: if there is no such key.
    """
    chosen = config.hydra.runtime.choices
    value = chosen[key] if key in chosen else OmegaConf.select(config, key, default=NOWHERE)
    if value is NOWHERE or OmegaConf.is_config(value):
        raise LookupError(key)
    return value.value if isinstance(value, Enum) else value


def _values(override: Override, config: DictConfig) -> list[Any]:
    """What a search may give a key, of an interval its ends; first what the configuration has, if it may be that."""
    sweep = override.value()
    try:
        own = value_in(config, key_of(override))
    except LookupError:
        own = NOWHERE
    if isinstance(sweep, IntervalSweep):
        low, high = sweep.start, sweep.end
        inside = isinstance(own, int | float) and low is not None and high is not None and low <= own <= high
        return [own] if inside else [low, high]
    if isinstance(sweep, RangeSweep):
        return sorted(sweep.range(), key=lambda value: value != own)
    return sorted(choices(override), key=lambda value: value != own)


@dataclass(frozen=True)
class Compositions:
    """The configurations of a sweep's points, to be looked at before any trial."""

    config: DictConfig  # the sweep's own
    loader: ConfigLoader
    fixed: Sequence[str]  # overrides that all have
    varied: Sequence[Override]  # what is searched without a condition
    keeps_rules: Callable[[DictConfig], bool]
    allow: Callable[[Point], bool] = lambda point: True  # whether the search may come to a point

    def compose(self, points: Iterable[Point], known: Container[str] = ()) -> tuple[Configs, list[str]]:
        """The configurations at these points, and what is wrong with those that cannot be composed.

        A choice that breaks a rule by itself may keep it wherever the search comes to it: no repeats at 512 px are none
        at all where only 512 px are shown, but a good mix where 768 px are searched from 1 on. So it is looked at with
        what the search may give the keys beside it.

        Args:
            known: those that are not asked for.
        """
        configs, faults = {}, []
        for point in points:
            chosen = " ".join(as_override(key, value) for key, value in point.items())
            try:
                if chosen not in known:
                    configs[chosen] = self._looked_at(point)
            except (HydraException, OmegaConfBaseException) as fault:
                faults.append(message(fault))
        return configs, faults

    def _looked_at(self, point: Point) -> DictConfig:
        alone, parts = self._composed(point), set(map(_part, point))
        keys = {override.get_key_element(): override for override in self.varied}
        others = [keys[key] for key in keys if key not in point and _part(key) in parts]
        if not others or self.keeps_rules(alone):
            return alone
        for values in product(*(_values(override, self.config) for override in others)):
            joined = point | {o.get_key_element(): value for o, value in zip(others, values, strict=True)}
            if self.allow(joined):
                together = self._composed(joined)
                return together if self.keeps_rules(together) else alone
        return alone

    def _composed(self, point: Point) -> DictConfig:
        """The configuration of a trial; numbers are set in a copy of the sweep's own, without composing all anew."""
        if not point:
            return self.config
        if not any(isinstance(value, str) for value in point.values()):  # a text stands as Hydra reads it, in quotes
            config = deepcopy(self.config)
            try:
                for key, value in point.items():
                    OmegaConf.update(config, key, value)
                return config
            except OmegaConfBaseException:
                pass  # Hydra knows better what to say
        words = (as_override(key, value) for key, value in point.items())
        return self.loader.load_sweep_config(self.config, [*self.fixed, *words])
