"""Points of a search: what is chosen, as Hydra's overrides, and the configurations it gives. No Optuna here."""

import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweep.errors import Faults
from sweep.refusal import message

Point = dict[str, Any]
Configs = dict[str, DictConfig]  # what was chosen, as it is typed -> the configuration it gives; "" without any choice
# Where a study lives and how it searches does not make a trial another trial.
NOT_TRAINED = ("hydra", "search", "study", "track")


def key_of(override: Override) -> str:
    """The key that an override is about, without the signs that add or remove it."""
    return override.get_key_element().lstrip("+~")


def refuse_untrained(sweeps: Iterable[Override]) -> None:
    """Refuses to search what is no part of a training.

    Raises:
        Faults: naming each key.
    """
    wrong = [key for key in map(key_of, sweeps) if re.split(r"[./]", key)[0] in NOT_TRAINED]
    if wrong:
        told = "cannot be searched: it says how a study is run, not what is trained. Give it one value"
        raise Faults(f"`{key}` {told}" for key in wrong)


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


def compose(
    points: Iterable[Point],
    *,
    config: DictConfig,
    loader: ConfigLoader,
    fixed: Sequence[str],
    known: Configs | None = None,
) -> tuple[Configs, list[str]]:
    """The configurations at these points, but those that are known, and what is wrong with any that cannot be composed.

    Args:
        config: the sweep's own.
        fixed: overrides that all have.
    """
    configs, faults = {}, []
    for point in points:
        words = [as_override(key, value) for key, value in point.items()]
        chosen = " ".join(words)
        try:
            if chosen not in (known or {}):
                configs[chosen] = _composed(point, config, loader, [*fixed, *words])
        except (HydraException, OmegaConfBaseException) as fault:
            faults.append(message(fault))
    return configs, faults


def _composed(point: Point, config: DictConfig, loader: ConfigLoader, words: list[str]) -> DictConfig:
    """The configuration of a trial; numbers are set in a copy of the sweep's own, without composing all anew."""
    if not point:
        return config
    if not any(isinstance(value, str) for value in point.values()):  # a text stands as Hydra reads it, in quotes
        changed = deepcopy(config)
        try:
            for key, value in point.items():
                OmegaConf.update(changed, key, value)
            return changed
        except OmegaConfBaseException:
            pass  # Hydra knows better what to say
    return loader.load_sweep_config(config, words)
