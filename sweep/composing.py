"""Configurations composed one after the other, as a sweep does it, with every file of them read once."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra._internal.hydra import Hydra as Composer
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

MOST_KEPT = 16  # compositions, 50 kB each: a sweep over groups comes to many


class _Kept(CachingConfigRepository):
    """What Hydra keeps for one composition, for all of them; each gets copies, as it writes into what it is given."""

    def __init__(self, delegate: IConfigRepository) -> None:
        super().__init__(delegate)
        self.copies: dict[str, Callable[[], Any]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Kept":
        return self  # Hydra copies its repository for every composition

    def load_config(self, config_path: str) -> Any:
        if config_path not in self.copies:
            self.copies[config_path] = _copies(self.delegate.load_config(config_path=config_path))
        return self.copies[config_path]()


class _Loader(ConfigLoaderImpl):
    """Puts the same files together once; what was typed is set in a copy."""

    made: dict[str, Callable[[], DictConfig]]

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        key = repr(defaults)
        if key not in self.made:
            if len(self.made) == MOST_KEPT:
                del self.made[next(iter(self.made))]
            self.made[key] = _copies(super()._compose_config_from_defaults_list(defaults, repo))
        return self.made[key]()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "made": {}}  # not for a launcher's process


def _copies(made: Any) -> Callable[[], Any]:
    """Makes copies of a configuration; from a pickle it takes a third to an eighth of the time of `deepcopy`."""
    try:
        return partial(pickle.loads, pickle.dumps(made))
    except (pickle.PicklingError, AttributeError, TypeError):  # of a class that another's application has in a function
        return partial(deepcopy, made)


def keep_files(loader: ConfigLoader) -> None:
    """Has a loader parse each file of the configuration once, and put the same files together once.

    The first composition takes Hydra's own time, and one that differs from it in values alone a quarter of that. A
    sweep that is running is not changed by what is saved in its configuration meanwhile.
    """
    if type(loader) is ConfigLoaderImpl:
        loader.repository = _Kept(loader.repository)  # type: ignore[assignment]
        loader.__class__ = _Loader
        loader.made = {}  # type: ignore[attr-defined]


@contextmanager
def composer(folder: str | None = None) -> Iterator[Composer]:
    """Hydra on this project's configuration; where `hydra.main` composes twice before a job begins, this does once.

    Args:
        folder: with more configurations, as --config-dir names one.
    """
    with hydra.initialize_config_module("conf", version_base="1.3"):
        found = GlobalHydra.instance().hydra
        assert found is not None
        if folder is not None:
            places = found.config_loader.get_search_path()
            path = f"file://{Path(folder).absolute()}"
            places.prepend(provider="command-line", path=path, anchor=SearchPathQuery(provider="schema"))
            found.config_loader.repository = ConfigRepository(places)  # type: ignore[attr-defined]
        keep_files(found.config_loader)
        yield found


def refuse_lists(words: list[str]) -> None:
    """What Hydra asks of a run's overrides, for one that was composed as a sweep's.

    Raises:
        HydraException: for `key=a,b`, which needs -m.
    """
    ConfigLoaderImpl.validate_sweep_overrides_legal(
        OverridesParser.create().parse_overrides(words), RunMode.RUN, from_shell=True
    )
