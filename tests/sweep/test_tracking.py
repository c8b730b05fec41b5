"""Weights & Biases: everything is in the offline folder, nothing of this machine is, and no trial suffers from it."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweep.findings import find
from sweep.settings import TrackSettings
from sweep.tracking import FOLDER, run_id, track, track_study, without_machine
from tests.sweep.made import PROMPTS, add_scored, config, new_study

SECRET = "k" * 40
HOME = "/home/somebody"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)


def staged(found: list[dict[str, Any]]) -> dict[str, Path]:
    """The files of a run's artifacts: name -> where they lie until they are uploaded."""
    contents = [
        c for record in found if record["type"] == "artifact" for c in record["artifact"]["manifest"]["contents"]
    ]
    return {c["path"]: Path(c["local_path"]) for c in contents}


def records(run: Path) -> list[dict[str, Any]]:
    """A run's log as wandb itself reads it."""
    program = Path(sys.executable).parent / "wandb"
    read = subprocess.run(
        [program, "leet", "inspect", "--json", run], capture_output=True, text=True, timeout=120, check=True
    )
    return [json.loads(line) for line in read.stdout.splitlines()]


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of one trial with its offline runs: the trial's and the summary."""
    folder = tmp_path / "made"
    study = new_study(folder)
    made = add_scored(study, folder, 0.7, pictures=f"{HOME}/pictures")
    settings = config(f"{HOME}/pictures")
    settings.study.folder = str(tmp_path)
    said: list[str] = []
    track(made, settings, folder / "0000", said.append)
    track_study(find(study, folder), said.append)
    [line] = said
    assert "wandb sync" in line and "offline-run-*" in line, "the command that uploads it is printed"
    return folder / FOLDER


def test_an_offline_study_is_complete_and_says_nothing_of_the_machine(tracked: Path) -> None:
    runs = {run.name.rsplit("-", 1)[-1]: run for run in tracked.glob("offline-run-*")}
    assert set(runs) == {run_id("made", 0), run_id("made", "summary")}, "ids are the same whenever they are made"
    read = {name: records(run) for name, run in runs.items()}
    trial, summary = (json.dumps(read[run_id("made", part)]) for part in (0, "summary"))
    for expected in (
        "train/loss",
        "checkpoint/style",
        "contact_sheet",
        "samples",
        "constraint/leakage",
        "no promise for FLUX.1-dev",
        "seconds/train",
    ):
        assert expected in trial, expected
    [table] = runs[run_id("made", 0)].rglob("samples*.table.json")
    stored = json.loads(table.read_text(encoding="utf-8"))
    assert stored["columns"][:5] == ["prompt", "seed", "group", "base", "LoRA"]
    assert [row[0] for row in stored["data"]] == PROMPTS
    pictures = {name: file for name, file in staged(read[run_id("made", 0)]).items() if name.endswith(".png")}
    assert len(pictures) == 2 * len(PROMPTS) and all(file.is_relative_to(tracked) for file in pictures.values())
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in pictures.values())
    for expected in ("trials", "front", "best/style", "importance", "made-0000"):
        assert expected in summary, expected
    assert staged(read[run_id("made", "summary")])["made-0000.safetensors"].read_bytes() == b"weights"
    [lora] = [r["artifact"] for r in read[run_id("made", "summary")] if r.get("artifact", {}).get("type") == "lora"]
    assert lora["name"] == "made-0000" and {"front", "best"} <= set(lora["aliases"])
    files = [file for file in tracked.rglob("*") if file.is_file() and not file.read_bytes().startswith(b"\x89PNG")]
    texts = [trial, summary, *(file.read_text(errors="replace") for file in files)]
    for secret in (SECRET, HOME, socket.gethostname(), str(Path.home())):
        word = re.compile(rf"(?<!\w){re.escape(secret)}(?!\w)")
        assert not any(word.search(text) for text in texts), secret


def test_without_tracking_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    study = new_study(folder)
    made = add_scored(study, folder, 0.7)
    made.config["track"]["wandb"] = False
    made.write(folder / "0000")
    settings = config()
    settings.study.folder = str(tmp_path)
    settings.track = TrackSettings(wandb=False)
    said: list[str] = []
    track(made, settings, folder / "0000", said.append)
    track_study(find(study, folder), said.append)
    assert said == [] and not (folder / FOLDER).exists()


def test_wandb_mode_disabled_stays_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = tmp_path / "made"
    made = add_scored(new_study(folder), folder, 0.7)
    settings = config()
    settings.study.folder = str(tmp_path)
    said: list[str] = []
    track(made, settings, folder / "0000", said.append)
    assert said == [] and not (folder / FOLDER).exists()


def test_a_trial_that_cannot_be_tracked_gets_one_warning(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    made = add_scored(new_study(folder), folder, 0.7)
    settings = config()
    settings.study.folder = str(tmp_path)
    (folder / FOLDER).write_text("a file where the runs' folder should be", encoding="utf-8")
    said: list[str] = []
    track(made, settings, folder / "0000", said.append)
    assert len(said) == 1
    assert "warning" in said[0] and "track=off" in said[0]


def test_the_environment_is_left_as_it_was(tmp_path: Path) -> None:
    before = dict(os.environ)
    test_a_trial_that_cannot_be_tracked_gets_one_warning(tmp_path)
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/me/pictures", "…/pictures"),
        ("data.path=/home/me/pictures train.seed=1", "data.path=…/pictures train.seed=1"),
        ("~/pictures", "…/pictures"),
        ("sandbox/data/engraving", "sandbox/data/engraving"),
        ("hub/model and/or 3/4", "hub/model and/or 3/4"),
    ],
)
def test_absolute_paths_keep_their_last_part(text: str, kept: str) -> None:
    assert without_machine({"a": [text]}) == {"a": [kept]}
