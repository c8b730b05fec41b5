"""Configurations composed one after the other, as a sweep does it, with every file of them read once."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.hydra import Hydra as Composer
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode


class _Kept(CachingConfigRepository):
    """What Hydra keeps for one composition, for all of them; each gets copies, as it writes into what it is given."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Kept":
        return self  # Hydra copies its repository for every composition

    def load_config(self, config_path: str) -> Any:
        return deepcopy(super().load_config(config_path))


def keep_files(loader: ConfigLoader) -> None:
    """Has a loader parse each file of the configuration once; a composition then takes two thirds of its time.

    A sweep that is running is not changed by what is saved in its configuration meanwhile.
    """
    repository = getattr(loader, "repository", None)
    if repository is not None and not isinstance(repository, _Kept):
        loader.repository = _Kept(repository)  # type: ignore[attr-defined]


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
