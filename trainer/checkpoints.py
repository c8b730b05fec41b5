"""The folder of a training: what makes a killed one continue to the same end, bit by bit.

    training.json              what is trained, apart from the budget; another training is refused
    step_000150/lora.safetensors, record.json
    step_000300/lora.safetensors, record.json, state.safetensors

A step's folder appears by one rename. Only the newest holds the state (LoRA weights, their average and the optimiser's
memory); order, noise and captions are functions of (seed, step) and need none.
"""

import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors.torch import load_file, save
from torch import Tensor

from trainer.cache import write_atomic

_STATE, _LORA, _RECORD, _TRAINING = "state.safetensors", "lora.safetensors", "record.json", "training.json"


class ResumeError(ValueError):
    """The folder holds another training."""


@dataclass(frozen=True)
class Checkpoint:
    """A LoRA on the way, as it is yielded."""

    step: int  # optimiser steps done
    images_seen: int  # training pictures shown
    loss: float  # mean since the checkpoint before
    lora: Path  # PEFT-layout safetensors for FluxPipeline.load_lora_weights
    losses: list[float]  # of each step since the checkpoint before
    seconds: float  # training since the checkpoint before; what the caller does in between is not counted
    validation: float | None = None  # loss at fixed noise on pictures that are not trained on; None: not asked for
    peak_bytes: int = 0  # most device memory in use at once since this training began or went on; 0 on a CPU


class TrainingFolder:
    """Reads and writes the checkpoints of one training."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Open or make the folder.

        Raises:
            ResumeError: it holds a training with other settings, data or base.
        """
        self.folder = folder
        self._text = json.dumps(identity, indent=1, sort_keys=True).encode()
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".part-*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        if (folder / _TRAINING).exists():
            _compare(json.loads((folder / _TRAINING).read_text(encoding="utf-8")), json.loads(self._text), folder)
        else:
            write_atomic(folder / _TRAINING, self._text)

    def read(self, step: int) -> Checkpoint | None:
        """The checkpoint of a step, if it is there."""
        place = self._place(step)
        if not (place / _RECORD).is_file():
            return None
        return Checkpoint(**json.loads((place / _RECORD).read_text(encoding="utf-8")), lora=place / _LORA)

    def steps(self) -> list[int]:
        """The steps of all checkpoints, sorted."""
        return _steps(self.folder)

    def write(self, checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> None:
        """Move a finished `checkpoint`, whose LoRA lies in `draft()`, to its place and drop older states."""
        draft = checkpoint.lora.parent
        record = {key: value for key, value in asdict(checkpoint).items() if key != "lora"}
        write_atomic(draft / _STATE, save(dict(state)))
        write_atomic(draft / _RECORD, json.dumps(record).encode())
        place = self._place(checkpoint.step)
        if place.exists():  # without its record it is no checkpoint
            shutil.rmtree(place)
        draft.rename(place)
        _sync(self.folder)
        for older in self.folder.glob(f"step_*/{_STATE}"):
            if older.parent != place:
                older.unlink()

    def take_over(self, relatives: Iterable[Path], wanted: Sequence[int]) -> None:
        """Have the checkpoints of an equal training that has got on already, unless this one has begun by itself.

        Args:
            relatives: folders of trainings, equal ones and others.
            wanted: the steps after which this training makes checkpoints, sorted.
        """
        if self.steps():
            return
        reached = {folder: self._reached(folder, wanted) for folder in relatives if folder != self.folder}
        furthest = max(reached, key=lambda folder: reached[folder], default=None)
        if furthest is None or not reached[furthest]:
            return
        came = [step for step in _steps(furthest) if step <= reached[furthest]]
        try:
            for step in reversed(came):  # the newest first, as it holds the state
                draft = self.draft().parent
                shutil.copytree(_place(furthest, step), draft, dirs_exist_ok=True)
                draft.rename(self._place(step))
        except OSError:  # its study tidies up, or the disk is full: this training can do without
            for step in came:
                shutil.rmtree(self._place(step), ignore_errors=True)

    def _reached(self, folder: Path, wanted: Sequence[int]) -> int:
        """The last step up to which another folder's checkpoints can stand for this training's; 0: not at all."""
        end = wanted[-1]
        own, file = self._text, folder / _TRAINING
        try:  # the size first: a study may have thousands of others
            if file.stat().st_size != len(own) or file.read_bytes() != own:
                return 0
        except OSError:
            return 0
        there = _steps(folder)
        # A step that is wanted and not there could only be had by going back.
        first_missing = next((step for step in wanted if step not in there), math.inf)
        steps = (step for step in there if step <= end and step < first_missing)
        return max((s for s in steps if s == end or (_place(folder, s) / _STATE).is_file()), default=0)

    def draft(self) -> Path:
        """Where the LoRA file of the next checkpoint goes."""
        place = self.folder / f".part-{uuid4().hex}"
        place.mkdir()
        return place / _LORA

    def newest_state(self, at_most: int) -> tuple[int, dict[str, Tensor]] | None:
        """The step and state to continue from."""
        steps = sorted(int(state.parent.name.removeprefix("step_")) for state in self.folder.glob(f"step_*/{_STATE}"))
        steps = [step for step in steps if step <= at_most]
        return (steps[-1], load_file(self._place(steps[-1]) / _STATE)) if steps else None

    def _place(self, step: int) -> Path:
        return _place(self.folder, step)


def _place(folder: Path, step: int) -> Path:
    return folder / f"step_{step:06d}"


def _steps(folder: Path) -> list[int]:
    return sorted(int(record.parent.name.removeprefix("step_")) for record in folder.glob(f"step_*/{_RECORD}"))


def _compare(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    differing = [key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]
    if differing:
        lines = [f"  {key}: {_short(found.get(key))} there, {_short(wanted.get(key))} now" for key in differing]
        raise ResumeError(f"{folder} holds another training; use another folder, or remove it:\n" + "\n".join(lines))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + " …"


def _sync(folder: Path) -> None:
    """Have the rename itself on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
