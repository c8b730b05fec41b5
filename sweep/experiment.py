"""`experiment/best.yaml` of a study: its best trial as an experiment that runs, with the whole composed configuration.

    python -m sweep -cd multirun/STUDY experiment=best

Copied into conf/experiment under a name of its own it is a recipe like the others, to start from or to enqueue.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial

from sweep.points import NOT_TRAINED
from sweep.recipes import MACHINE
from sweep.settings import SearchSettings
from sweep.summary import scores
from sweep.typed import python, typed

BEST = Path("experiment") / "best.yaml"
BEST_OF_ALL, NOT_BEST = "its best", "first of its search and not confirmed by its final"


def write_experiment(
    config: DictConfig, choices: Mapping[str, Any], folder: Path, trial: FrozenTrial, search: SearchSettings
) -> Path:
    """Writes the experiment of a trial, whole or not at all.

    Args:
        config: the trial's, composed.
        choices: config group -> option in it.
        folder: of the study.
    """
    values = scores(search.objectives, trial)
    groups = {
        group: name
        for group, name in choices.items()
        if name is not None and "/" not in group and group not in ("experiment", *NOT_TRAINED)
    }
    body = {key: config[key] for key in config if key not in NOT_TRAINED}
    plain: Any = OmegaConf.to_container(OmegaConf.create(body), resolve=True, enum_to_str=True)
    for key in MACHINE:
        node, _, name = key.partition(".")
        if node in plain:
            plain[node].pop(name, None)
    head = [
        "# @package _global_",
        f"# Trial {trial.number:04d} of the study {folder.name}, {BEST_OF_ALL}: {values}. Used by: {again(folder)}",
        "defaults:",
        *(f"  - override /{group}: {name}" for group, name in groups.items()),
        "",
    ]
    file = folder / BEST
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}.draft")  # processes may share the folder
    text = "\n".join([*(head if groups else head[:2]), OmegaConf.to_yaml(OmegaConf.create(plain))])
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)
    return file


def settle(folder: Path, winner: FrozenTrial | None, search: SearchSettings) -> None:
    """Has the experiment say what a final found: its winner's recipe, or that the search's first was not confirmed."""
    file = folder / BEST
    if winner is None:
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace(f", {BEST_OF_ALL}: ", f", {NOT_BEST}: ", 1), encoding="utf-8")
        return
    notes = folder / f"{winner.number:04d}" / ".hydra"  # Hydra's own, of the winner's job
    if (notes / "config.yaml").is_file() and (notes / "hydra.yaml").is_file():
        choices = OmegaConf.select(OmegaConf.load(notes / "hydra.yaml"), "hydra.runtime.choices")
        config = OmegaConf.load(notes / "config.yaml")
        assert isinstance(config, DictConfig)
        write_experiment(config, dict(choices), folder, winner, search)


def again(folder: Path) -> str:
    """The command that runs the best trial again."""
    return f"{python()} -m sweep -cd {typed(folder)} experiment=best"
