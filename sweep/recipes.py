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

from sweep.space import Space, as_choice, as_override, contains, describe_one

# Where a study lives and how it searches does not make a trial another trial.
NOT_TRAINED = ("hydra", "search", "study", "track")
# Where it is computed does not either.
MACHINE = ("base.device", "base.threads", "base.offload", "score.device", "score.batch_size", "sample.batch_size")


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


def _under(key: str, nodes: set[str]) -> bool:
    return any(key == node or key.startswith(f"{node}.") for node in nodes)


def _walk(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        places = {f"{prefix}.{key}" if prefix else str(key): below for key, below in value.items()}
        return [pair for place, below in places.items() for pair in _walk(place, below)]
    return [(prefix, value)]


def read_recipe(name: str, *, config: DictConfig, loader: ConfigLoader, fixed: Sequence[str], space: Space) -> Recipe:
    """Composes the experiment `name` and looks for it in the space."""
    plain = [override for override in fixed if not override.lstrip("+").startswith("experiment=")]
    wanted = loader.load_sweep_config(config, [*plain, f"experiment={name}"])
    params = {key: _value(wanted, key) for key in space}
    outside = [
        f"{key}={params[key]} is not {describe_one(dist)}"
        for key, dist in space.items()
        if not contains(dist, params[key])
    ]
    if outside:
        return Recipe(name, misfit="; ".join(outside))
    reached = loader.load_sweep_config(config, [*fixed, *(as_override(key, value) for key, value in params.items())])
    a, b = flat(wanted), flat(reached)
    other = [f"{key}={a.get(key)}" for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
    if other:
        return Recipe(name, misfit=f"also has {', '.join(other)}, which is not searched")
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
