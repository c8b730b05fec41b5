"""Known recipes (`conf/experiment/`) as first trials: what each is in the search space, and which do not fit it.

A recipe fits when the space's parameters alone turn this study's configuration into the recipe's. One that also
changes something the space does not hold, the number of pictures for one, would teach the sampler a wrong lesson.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf

from sweep.points import NOT_TRAINED, as_choice, as_override
from sweep.rules import Conditions
from sweep.space import Space, contains, describe_one

# Where a trial is computed does not make it another trial.
MACHINE = (
    *("base.device", "base.threads", "base.offload", "base.compile"),
    *("score.device", "score.batch_size", "sample.batch_size"),
)


@dataclass(frozen=True)
class Recipe:
    """A recipe seen from a search space: its parameters, or why it does not fit."""

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    misfit: str = ""


def flat(config: DictConfig, without: Sequence[str] = ()) -> dict[str, Any]:
    """The composed configuration as `key: plain value`, leaving out what does not change a training.

    Args:
        without: further keys, or nodes with all below them, to leave out.
    """
    left_out = {*NOT_TRAINED, *MACHINE, *without}
    tree = {key: config[key] for key in config if key not in left_out}
    plain = OmegaConf.to_container(OmegaConf.create(tree), resolve=True, enum_to_str=True)
    return {key: value for key, value in _walk("", plain) if not _under(key, left_out)}


def fixed_settings(configs: Mapping[str, DictConfig], searched: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    """What all trials of a study have in common, as `key: value`.

    Where a group is searched, what its choices bring along is noted for each: `mix.batch_size with mix=512x5`.

    Args:
        configs: what was chosen -> the configuration it gives; "" is the one without any choice.
        searched: parameters, left out.
        groups: those of them that are config groups.
    """
    keys = [key for key in searched if key not in groups]
    fixed = flat(configs[""], keys)
    varied: set[str] = set()
    for group in groups:
        views = {words: flat(config, keys) for words, config in configs.items() if words.startswith(f"{group}=")}
        for key in {*fixed, *(key for view in views.values() for key in view)}:
            values = [view.get(key) for view in views.values()]
            if any(value != values[0] for value in values):
                varied.add(key)
                fixed |= {f"{key} with {words}": view[key] for words, view in views.items() if key in view}
            elif " with " not in key:
                fixed[key] = values[0]  # the choice that the configuration has by itself may not be one of the search's
    return {key: value for key, value in fixed.items() if key not in varied and value is not None}


def _under(key: str, nodes: set[str]) -> bool:
    return any(key == node or key.startswith(f"{node}.") for node in nodes)


def _walk(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        places = {f"{prefix}.{key}" if prefix else str(key): below for key, below in value.items()}
        return [pair for place, below in places.items() for pair in _walk(place, below)]
    return [(prefix, value)]


def read_recipe(
    name: str, *, config: DictConfig, loader: ConfigLoader, fixed: Sequence[str], space: Space, conditions: Conditions
) -> Recipe:
    """Composes the experiment `name` and looks for it in the space."""
    plain = [override for override in fixed if not override.lstrip("+").startswith("experiment=")]
    wanted = loader.load_sweep_config(config, [*plain, f"experiment={name}"])
    params: dict[str, Any] = {}
    for key in space:
        if conditions.active(key, params):
            params[key] = _value(wanted, key)
    outside = [
        f"{key}={value} is not {describe_one(space[key])}"
        for key, value in params.items()
        if not contains(space[key], value)
    ]
    outside += [f"breaks the rule {rule.text}" for rule in conditions.rules if rule.holds(params) is False]
    if outside:
        return Recipe(name, misfit="; ".join(outside))
    reached = loader.load_sweep_config(config, [*fixed, *(as_override(key, value) for key, value in params.items())])
    a, b = flat(wanted), flat(reached)
    other = [key for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
    if other:
        return Recipe(name, misfit=f"not this study's {', '.join(other)}")
    return Recipe(name, params)


def _value(config: DictConfig, key: str) -> Any:
    """What the composed configuration has for a parameter: the option chosen of a group, or a value."""
    choices = config.hydra.runtime.choices
    if key in choices:
        return choices[key]
    value = OmegaConf.select(config, key.lstrip("+"))
    if isinstance(value, Enum):
        return value.name
    return as_choice(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
