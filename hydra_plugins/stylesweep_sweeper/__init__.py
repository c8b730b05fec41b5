"""The few lines that let Hydra 1.3 find our sweeper: it takes sweepers only from the `hydra_plugins` namespace.

Imported at every start of Hydra, `--help` included, so nothing heavy is imported here; the work is in `sweep.sweeper`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class StyleSweeperNode:
    """`hydra/sweeper=stylesweep`; its settings stand in the application's own `search` and `study`."""

    _target_: str = "hydra_plugins.stylesweep_sweeper.StyleSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="stylesweep", node=StyleSweeperNode, provider="stylesweep")


class StyleSweeper(Sweeper):
    """Asks Optuna for a trial, launches it as a Hydra job, tells Optuna what came back; until the study is done."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from sweep.door import plain
        from sweep.slots import own_number

        # A setting may name ${hydra:runtime.cwd}, which Hydra sets in jobs only; what is set may not be changed.
        HydraConfig.instance().set_config(deepcopy(config))
        stands = {}
        with _told_without_traceback(ValueError):
            if own_number() is None and (look := getattr(task_function, "look_first", None)) is not None:
                stands = look(config, hydra_context.config_loader)
            search, study = plain(config.search), plain(config.study)
        from sweep.sweeper import Driver

        self.driver = Driver(
            search=search, study=study, config=config, context=hydra_context, task=task_function, stands=stands
        )

    def sweep(self, arguments: list[str]) -> Any:
        from sweep.errors import InputError

        with _told_without_traceback(InputError):
            return self.driver.sweep(arguments)


@contextmanager
def _told_without_traceback(wrong: type[Exception]) -> Iterator[None]:
    """In any application what is wrong with a setting or a study is said as Hydra says what is wrong with a key."""
    try:
        yield
    except wrong as fault:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        raise CompactHydraException(str(fault)) from fault
