"""Studies for the views' tests, made through the project's own classes without a training."""

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState, create_trial
from PIL import Image

from sweep.database import ADDRESS
from sweep.outcome import Candidate, Outcome, plain_config
from sweep.record import ARTIFACTS
from sweep.schema import Config
from sweep.settings import EvalSettings, StudySettings
from sweep.study import storage
from trainer.settings import BaseSettings, DataSettings, Prompt

PROMPTS = ["a girl", "a red house", "a boat", "a tree", "a cat", "a dog", "a cup", "a star"]
CAPTIONS = optuna.distributions.CategoricalDistribution(["none", "edited", "subject_only"])
REPEATS = optuna.distributions.IntDistribution(0, 3)


def new_study(folder: Path, *, on_disk: bool = False, address: str = "") -> optuna.Study:
    """An empty study named as its folder is; in memory unless another process, or a server, has to have it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True)
    if address:
        (folder / ADDRESS).write_text(address, encoding="utf-8")
    place = storage(folder) if on_disk or address else None
    made = optuna.create_study(storage=place, study_name=folder.name, directions=["maximize"] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        made.set_metric_names(["style", "composition"])
    return made


def config(pictures: str = "pictures") -> Config:
    """Settings as a trial has them."""
    made = Config(study=StudySettings(name="made"), base=BaseSettings(path="a base", scale=0.125))
    made.data = DataSettings(path=pictures, references="references")  # type: ignore[assignment]
    made.mix = _mix()
    made.eval = EvalSettings(prompts=[Prompt(text=text, seed=i) for i, text in enumerate(PROMPTS)])
    made.train.optimizer.learning_rate = 1e-4
    return made


def _mix() -> Any:
    from sweep.schema import MixNode

    return MixNode(repeats={512: 3, 768: 2, 1024: 0})  # type: ignore[dict-item]


def outcome(number: int, level: float, *, leakage: float = -0.05, pictures: str = "pictures") -> Outcome:
    """A trial that does about as well as `level` on every prompt."""
    rng = Random(number)
    style = [level + rng.uniform(-0.02, 0.02) for _ in PROMPTS]
    composition = [level - 0.1 + rng.uniform(-0.02, 0.02) for _ in PROMPTS]
    flags = {name: [0.0] * len(PROMPTS) for name in ("failed", "leak", "copy")}
    candidate = Candidate(
        step=96,
        images_seen=600,
        strength=1.0,
        lora="training/lora.safetensors",
        style=sum(style) / len(style),
        composition=sum(composition) / len(composition),
        constraints={"leakage": leakage},
        intervals={"style": (level - 0.05, level + 0.05), "composition": (level - 0.15, level - 0.05)},
        per_image={"style": style, "composition": composition, **flags},
        diagnostics={"style_mean": level},
    )
    return Outcome(
        chosen=0,
        candidates=[candidate],
        losses=[1.0, 0.5, 0.25],
        timings={"train": 20.0},
        captions="subject_only",
        mix="512x3+768x2",
        plan="30 pictures, 150 shown per epoch",
        config=plain_config(config(pictures)),
        overrides=["captions=subject_only", "mix=512x3_768x2", "study.name=made"],
        versions={},
        seeds={},
        identity="an identity",
        number=number,
        samples=[f"samples/{i:02d}.png" for i in range(len(PROMPTS))],
        base_images=[f"../base_images/{i:02d}.png" for i in range(len(PROMPTS))],
    )


def add_scored(study: optuna.Study, folder: Path, level: float, **options: Any) -> Outcome:
    """A finished trial with its folder: outcome.json, pictures, sheet and a file for the LoRA."""
    number = len(study.get_trials(deepcopy=False))
    made = replace(outcome(number, level, **options), number=number)
    place = folder / f"{number:04d}"
    (place / "samples").mkdir(parents=True)
    (place / "training").mkdir()
    (place / "training" / "lora.safetensors").write_bytes(b"weights")
    (place / "plan.txt").write_text(made.plan, encoding="utf-8")
    (folder / "base_images").mkdir(exist_ok=True)
    for index in range(len(PROMPTS)):
        Image.new("RGB", (64, 64), (20 * index, 90, 200)).save(folder / "base_images" / f"{index:02d}.png")
        Image.new("RGB", (64, 64), (20 * index, 20 * number % 255, 60)).save(place / "samples" / f"{index:02d}.png")
    Image.new("RGB", (600, 300), (0, 20 * number % 255, 0)).save(place / made.sheet)
    made.write(place)
    artifact = f"0000{number:04d}-0000-4000-8000-000000000000"
    (folder / ARTIFACTS).mkdir(exist_ok=True)
    shutil.copy(place / made.sheet, folder / ARTIFACTS / artifact)
    meta = {"artifact_id": artifact, "filename": made.sheet, "mimetype": "image/png", "encoding": None}
    study.add_trial(
        create_trial(
            values=list(made.values),
            params={"captions": ("none", "edited", "subject_only")[number % 3], "mix.repeats.512": number % 4},
            distributions={"captions": CAPTIONS, "mix.repeats.512": REPEATS},
            constraints=dict(made.best.constraints),
            system_attrs={f"artifacts:{artifact}": json.dumps(meta)},
            user_attrs={
                "captions": made.captions,
                "mix": made.mix,
                "lora": f"{number:04d}/{made.best.lora}",
                "strength": 1.0,
                "step": 96,
                "sheet": f"{number:04d}/{made.sheet}",
                "intervals": {k: list(v) for k, v in made.best.intervals.items()},
                "seconds": 20.0,
            },
        )
    )
    return made


def add_failed(study: optuna.Study, reason: str) -> None:
    """A trial that broke off."""
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"reason": reason}))


def age(folder: Path) -> None:
    """Makes every outcome one of another version."""
    for file in folder.glob("*/outcome.json"):
        stored = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**stored, "format": 0}), encoding="utf-8")
