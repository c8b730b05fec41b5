"""What can be set about a study: where it lives, what is searched, what is scored, what is tracked. No torch here."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from trainer.settings import Group, Prompt

PARTS = {"/", "\\", "\0"}
PASSWORD = re.compile(r"://[^:/@]*:[^@]*@|[?&]passw(or)?d=")  # where an address may hold one
NO_PASSWORD = (
    "`study.storage` holds a password, which would be written into every trial's files: leave it out and put it where"
    " the database's own tools look, PGPASSWORD or ~/.pgpass (MySQL: ?read_default_file=~/.my.cnf)"
)


class Sampler(StrEnum):
    """Who suggests the next trial; the functions are in `sweep.samplers`."""

    tpe = "tpe"  # tree-structured Parzen estimator, Optuna's default
    gp = "gp"  # Gaussian process: few, expensive trials
    nsga2 = "nsga2"  # evolutionary, for long studies
    nsga3 = "nsga3"  # the same, with reference points
    cmaes = "cmaes"  # evolutionary, numbers alone; it climbs style × composition
    qmc = "qmc"  # a Sobol sequence: even cover without learning
    random = "random"  # every point by itself; the honest baseline
    grid = "grid"  # every point once


class Checkpoints(StrEnum):
    """Which checkpoints of a training are sampled and scored."""

    last = "last"  # the end of the training only
    all = "all"  # every one: costs samples, finds a training that went on too long


class Stopping(StrEnum):
    """Whether a trial may end at a rung, at 1/9 or 1/3 of the longest budget that is searched; see `sweep.rungs`.

    It is scored there on a few prompts, drawn in half of the sampler's steps.
    """

    never = "never"  # and no rung is scored
    measure = "measure"  # rungs are scored, so that the study tells what they foretell, and no trial ends at one
    auto = "auto"  # once the study's own trials show that rungs foretell the end
    always = "always"  # from the first trials on


class Keep(StrEnum):
    """Whose LoRAs stay on the disk beside those of the front and the finalists; see `sweep.disk`."""

    all = "all"  # every checkpoint of every trial
    chosen = "chosen"  # of each trial the LoRA that it stands for
    front = "front"  # no others


@dataclass
class StudySettings:
    name: str = "study"  # folder under `folder`, and the study's name in Optuna
    folder: str = "multirun"  # where studies live
    storage: str = ""  # postgresql://user@host/database or mysql://…, for many processes; empty: SQLite in the folder
    slots: int = 1  # trials in flight at once, each in a process of its own with a graphics card of its own
    heartbeat_seconds: int = 15  # s between the signs of life of a trial; one silent for four is taken over
    keep: Keep = Keep.chosen  # LoRAs of trials that are neither on the front nor finalists
    min_free_gb: float = 0.5  # GB that must be free on the study's disk before anything starts

    def __post_init__(self) -> None:
        if not self.name.strip() or self.name in (".", "..") or PARTS & set(self.name):
            raise ValueError(f"`study.name` must be the name of one folder, got {self.name!r}")
        if PASSWORD.search(self.storage):
            raise ValueError(NO_PASSWORD)
        if self.slots < 1:
            raise ValueError(f"`study.slots` must be at least 1, got {self.slots}")
        if self.heartbeat_seconds < 1:
            raise ValueError(f"`study.heartbeat_seconds` must be at least 1, got {self.heartbeat_seconds}")
        if self.min_free_gb < 0:
            raise ValueError(f"`study.min_free_gb` must be at least 0, got {self.min_free_gb}")


def study_folder(settings: StudySettings) -> Path:
    """`multirun/<study>`, absolute."""
    return Path(settings.folder).absolute() / settings.name


@dataclass
class FinalistSettings:
    count: int = 3  # largest rectangles of the Pareto front that are trained again
    seeds: int = 3  # trainings of each
    first_seed: int = 101  # of the trainings; the others follow it, and no search should have used them

    def __post_init__(self) -> None:
        for name in ("count", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"`search.finalists.{name}` must be at least 1, got {getattr(self, name)}")


@dataclass
class SearchSettings:
    params: dict[str, str] = field(default_factory=dict)  # Hydra key -> what to search, in the grammar of overrides
    n_trials: int = 12  # trials in all, those of earlier runs of the same study counted in
    sampler: Sampler = Sampler.tpe  # who suggests
    startup: int = 5  # finished trials before tpe and gp stop drawing at random; half a generation of nsga
    options: dict[str, Any] = field(default_factory=dict)  # further options of the sampler, by Optuna's names
    when: dict[str, str] = field(default_factory=dict)  # parameter -> where it is drawn, as in captions == edited
    rules: list[str] = field(default_factory=list)  # what every point keeps: mix.repeats.512 >= mix.repeats.768
    trial_seconds: float | None = None  # s a trial may take before it is given up; null: as long as it needs
    study_seconds: float | None = None  # s after which this run of the study begins no further trial; null: no end
    patience: int | None = None  # finished trials without a larger front after which the study ends; null: none
    stopping: Stopping = Stopping.auto  # whether trials end early, at a rung
    seed: int = 0  # same seed, same suggestions; each trial draws from (seed, its number)
    finalists: FinalistSettings = field(default_factory=FinalistSettings)  # who is trained again by sweep.finalists
    enqueue: list[str] = field(default_factory=list)  # experiments run first, where they fit the space
    objectives: list[str] = field(default_factory=lambda: ["style", "composition"])  # names of what a job returns

    def __post_init__(self) -> None:
        if self.n_trials < 1:
            raise ValueError(f"`search.n_trials` must be at least 1, got {self.n_trials}")
        if self.startup < 1:
            raise ValueError(f"`search.startup` must be at least 1, got {self.startup}")
        if self.seed < 0:
            raise ValueError(f"`search.seed` must be at least 0, got {self.seed}")
        for name in ("trial_seconds", "study_seconds", "patience"):
            limit = getattr(self, name)
            if limit is not None and limit <= 0:
                raise ValueError(f"`search.{name}` must be above 0, or null for none, got {limit}")


@dataclass
class EvalSettings:
    prompts: list[Prompt] = field(default_factory=list)  # drawn with and without the LoRA, same seed and sampler
    checkpoints: Checkpoints = Checkpoints.last  # which of them are scored
    strengths: list[float] = field(default_factory=lambda: [1.0])  # each scored checkpoint is drawn at each of these
    others: str = ""  # folder of pictures in other styles, the metrics' null; empty: none
    lora: str = ""  # a LoRA file that is scored as it is, in the place of a training; empty: one is trained

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("`eval.prompts` must hold at least one prompt, it is empty")
        if not any(prompt.group == Group.unrelated for prompt in self.prompts):
            raise ValueError("`eval.prompts` must hold prompts of the group unrelated: objectives are read on them")
        if not self.strengths or not all(0 < strength < float("inf") for strength in self.strengths):
            raise ValueError(f"`eval.strengths` must be finite numbers above 0, got {self.strengths}")


@dataclass
class TrackSettings:
    wandb: bool = True  # a Weights & Biases run per trial, written offline unless logged in
    project: str = "stylesweep"  # project in Weights & Biases
    entity: str | None = None  # user or team there; null: the account's default
