"""What a trial leaves behind: `outcome.json`, everything that was found and everything it was made from."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

from optuna.trial import FrozenTrial

import metrics
from sweep.schema import Config
from sweep.study import rectangle
from trainer.settings import MixSettings

FILE = "outcome.json"
SHEET = "contact_sheet.png"
BASE_IMAGES = "base_images"  # beside the trials' folders
FORMAT = 1
PACKAGES = (
    "stylesweep",
    "torch",
    "diffusers",
    "peft",
    "accelerate",
    "transformers",
    "open-clip-torch",
    "lpips",
    "optuna",
    "hydra-core",
)


@dataclass(frozen=True)
class Candidate:
    """One checkpoint at one strength, and its scores."""

    step: int  # optimiser steps trained
    images_seen: int  # training pictures shown until then
    strength: float  # the LoRA was applied with
    lora: str  # file, relative to the trial's folder
    style: float
    composition: float
    constraints: dict[str, float]  # <= 0 when fine
    intervals: dict[str, tuple[float, float]]
    per_image: dict[str, list[float]]  # in the order of the prompts
    diagnostics: dict[str, float]

    @property
    def feasible(self) -> bool:
        """Whether every constraint is kept."""
        return all(value <= 0 for value in self.constraints.values())

    @property
    def values(self) -> tuple[float, float]:
        """The two objectives."""
        return self.style, self.composition


@dataclass(frozen=True)
class Outcome:
    """One trial: the candidate it stands for, all others, and how they came about."""

    chosen: int  # position in `candidates`
    candidates: list[Candidate]
    losses: list[float]  # of every optimiser step
    timings: dict[str, float]  # seconds: start_up, encode, train, sample, score
    captions: str  # strategy
    mix: str  # such as 512x3+768x2
    plan: str  # the plan as printed
    config: dict[str, Any]
    overrides: list[str]  # what the command line asked for
    versions: dict[str, str]
    seeds: dict[str, Any]
    identity: str  # of everything the values depend on; equal identities need no second run
    sheet: str = SHEET  # prompts × {base, LoRA}, relative to the trial's folder
    format: int = FORMAT
    number: int | None = None  # in the study; null outside of one
    samples: list[str] = field(default_factory=list)  # files of the chosen candidate, in the order of the prompts
    base_images: list[str] = field(default_factory=list)  # the same without the LoRA; one folder for all trials

    @property
    def best(self) -> Candidate:
        """The candidate the trial stands for."""
        return self.candidates[self.chosen]

    @property
    def values(self) -> tuple[float, float]:
        """style and composition of the chosen candidate: what Optuna is told."""
        return self.best.values

    def write(self, folder: Path) -> None:
        """Writes outcome.json whole or not at all."""
        draft = folder / f".{FILE}"
        draft.write_text(json.dumps(asdict(self), indent=1, default=_plain), encoding="utf-8")
        draft.replace(folder / FILE)


def read_outcome(folder: Path) -> Outcome | None:
    """The outcome in a trial's folder, if a trial ended there that this version can read."""
    if not (folder / FILE).is_file():
        return None
    stored = json.loads((folder / FILE).read_text(encoding="utf-8"))
    if stored.get("format") != FORMAT:
        return None
    stored["candidates"] = [
        Candidate(**{**c, "intervals": {k: tuple(v) for k, v in c["intervals"].items()}}) for c in stored["candidates"]
    ]
    return Outcome(**stored)


def outcome_of(trial: FrozenTrial, folder: Path) -> Outcome | None:
    """The outcome in a trial's folder; None for one that is not there, damaged or of another version."""
    try:
        return read_outcome(folder / f"{trial.number:04d}")
    except (OSError, TypeError, KeyError, AttributeError, json.JSONDecodeError):
        return None


def unrelated(outcome: Outcome) -> list[int]:
    """Positions of the prompts that the objectives are read on."""
    prompts = outcome.config.get("eval", {}).get("prompts", [])
    return [i for i, prompt in enumerate(prompts) if prompt.get("group", "unrelated") == "unrelated"]


def choose(candidates: Sequence[Candidate]) -> int:
    """The feasible candidate with the largest rectangle style × composition; without one, the largest of all."""
    return max(range(len(candidates)), key=lambda i: (candidates[i].feasible, rectangle(candidates[i].values), -i))


def mix_text(mix: MixSettings) -> str:
    """The sides in use and their repeats, such as 512x3+768x2."""
    return "+".join(f"{side}x{repeats}" for side, repeats in sorted(mix.repeats.items()) if repeats)


def plain_config(config: Config) -> dict[str, Any]:
    """The settings as JSON holds them."""
    return json.loads(json.dumps(asdict(config), default=_plain))


def versions() -> dict[str, str]:
    """Of Python, of the scores and of the packages that numbers depend on."""
    return {
        "python": python_version(),
        "metrics": str(metrics.VERSION),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def seeds(config: Config) -> dict[str, Any]:
    """Every seed there is."""
    return {
        "train": config.train.seed,
        "subset": config.data.subset_seed,
        "search": config.search.seed,
        "score": config.score.seed,
        "prompts": [prompt.seed for prompt in config.eval.prompts],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in {FILE}")
