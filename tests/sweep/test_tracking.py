"""Weights & Biases: everything is in the offline folder, nothing of this machine is, and no trial suffers from it."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweep.errors import Stopped
from sweep.findings import find
from sweep.outcome import Outcome
from sweep.rungs import Rung
from sweep.schema import Config
from sweep.settings import TrackSettings
from sweep.tracking import FOLDER, run_id, track_study, tracked, without_machine
from tests.sweep.conftest import environment
from tests.sweep.made import PROMPTS, add_scored, config, new_study
from tests.sweep.wandb_server import Seen, wandb_server

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


def run_through(made: Outcome, settings: Config, folder: Path, said: list[str]) -> None:
    """A trial as it is told while it runs."""
    with tracked(settings, folder, made.number, made.identity, said.append) as run:
        run.losses(made.losses[:2], 0.9)
        run.rung(Rung(3, 2, [0.3, 0.4], {"leakage": -0.1}))
        run.losses(made.losses[2:], 0.8)
        run.candidate(made.best, [1.0])
        run.outcome(made, folder)


def tracked_study(place: Path) -> tuple[Path, list[str]]:
    """A study of one trial with its runs, the trial's and the summary; where they are and what was said."""
    folder = place / "made"
    study = new_study(folder, on_disk=True)
    made = add_scored(study, folder, 0.7, pictures=f"{HOME}/pictures")
    settings = config(f"{HOME}/pictures")
    settings.study.folder = str(place)
    said: list[str] = []
    run_through(made, settings, folder / "0000", said)
    track_study(find(study, folder), said.append)
    return folder / FOLDER, said


@pytest.fixture
def offline_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder, [line] = tracked_study(tmp_path)
    assert "python -m wandb sync" in line and "offline-run-*" in line, "the command that uploads it is printed"
    return folder


def test_an_offline_study_is_complete_and_says_nothing_of_the_machine(offline_study: Path) -> None:
    runs = {run.name.rsplit("-", 1)[-1]: run for run in offline_study.glob("offline-run-*")}
    assert set(runs) == {run_id("made", 0), run_id("made", "summary")}, "ids are the same whenever they are made"
    read = {name: records(run) for name, run in runs.items()}
    trial, summary = (json.dumps(read[run_id("made", part)]) for part in (0, "summary"))
    for expected in (
        "train/loss",
        "train/validation_loss",
        "rung/style",
        "rung/leakage",
        "proc.memory.rssMB",
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
    assert len(pictures) == 2 * len(PROMPTS) and all(
        file.resolve().is_relative_to(offline_study) for file in pictures.values()
    )
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in pictures.values())
    for expected in ("trials", "front", "best/style", "importance", "made-0000"):
        assert expected in summary, expected
    assert staged(read[run_id("made", "summary")])["made-0000.safetensors"].read_bytes() == b"weights"
    [lora] = [r["artifact"] for r in read[run_id("made", "summary")] if r.get("artifact", {}).get("type") == "lora"]
    assert lora["name"] == "made-0000" and {"front", "best"} <= set(lora["aliases"])
    files = [
        file for file in offline_study.rglob("*") if file.is_file() and not file.read_bytes().startswith(b"\x89PNG")
    ]
    texts = [trial, summary, *(file.read_text(errors="replace") for file in files)]
    for secret in (SECRET, HOME, socket.gethostname(), str(Path.home()), str(offline_study)):
        word = re.compile(rf"(?<!\w){re.escape(secret)}(?!\w)")
        assert not any(word.search(text) for text in texts), secret


def test_with_a_login_all_of_it_reaches_the_server_and_nothing_of_the_machine(tmp_path: Path) -> None:
    script = "import sys, pathlib, tests.sweep.test_tracking as t; print(t.tracked_study(pathlib.Path(sys.argv[1]))[1])"
    with wandb_server() as seen:
        made = {**environment(), "WANDB_BASE_URL": seen.address, "WANDB_API_KEY": SECRET}
        made.pop("WANDB_MODE")
        ran = subprocess.run(
            [sys.executable, "-c", script, tmp_path],
            cwd=tmp_path,
            env=made,
            capture_output=True,
            text=True,
            timeout=250,
        )
    assert ran.stdout == "[]\n", ran.stdout + ran.stderr
    names = {asked["displayName"]: asked for asked in seen.variables("UpsertBucket") if asked["displayName"]}
    assert set(names) == {"trial-0000", "made-summary"}
    assert {(asked["groupName"], asked["jobType"]) for asked in names.values()} == {
        ("made", "trial"),
        ("made", "summary"),
    }
    assert names["trial-0000"]["name"] == run_id("made", 0)
    everything_arrived(seen)
    aliases = [{alias["alias"] for alias in asked["input"]["aliases"]} for asked in seen.variables("CreateArtifact")]
    assert {"latest", "front", "best"} in aliases
    nothing_of_this_machine(seen, tmp_path)


def everything_arrived(seen: Seen) -> None:
    """Fails if a curve, a picture or the LoRA did not reach the server."""
    for expected in ("train/validation_loss", "rung/style", "checkpoint/composition", "system.proc.memory.rssMB"):
        assert expected in seen.streamed, expected
    [sheet] = [content for name, content in seen.uploads.items() if "contact_sheet" in name]
    assert sheet.startswith(b"\x89PNG")
    assert sum(name.startswith("media/images/") for name in seen.uploads) == 1 + 2 * len(PROMPTS)
    assert seen.uploads["made-0000.safetensors"] == b"weights"


def nothing_of_this_machine(seen: Seen, place: Path) -> None:
    """Fails if the server was told of it."""
    told = [json.dumps(seen.queries), seen.streamed, *(text.decode(errors="replace") for text in seen.uploads.values())]
    for secret in (SECRET, HOME, socket.gethostname(), str(Path.home()), str(place), sys.prefix):
        word = re.compile(rf"(?<!\w){re.escape(secret)}(?!\w)")
        assert not any(word.search(text) for text in told), secret


def test_the_printed_command_uploads_an_offline_study_with_all_its_media(
    offline_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = sorted(offline_study.glob("offline-run-*"))
    with wandb_server() as seen:
        made = {**environment(), "WANDB_BASE_URL": seen.address, "WANDB_API_KEY": SECRET}
        made.pop("WANDB_MODE")
        # As printed: the shell has put the runs in place of the asterisk, relative to the folder the sweep began in.
        here = [run.relative_to(Path.cwd()) for run in runs]
        ran = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", *here], env=made, capture_output=True, text=True, timeout=250
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    nothing_of_this_machine(seen, offline_study)
    for table in ("samples", "trials", "front"):
        assert any(name.startswith(f"media/table/{table}") for name in seen.uploads), table
    names = {asked["displayName"] for asked in seen.variables("UpsertBucket") if asked["displayName"]}
    assert names == {"trial-0000", "made-summary"}
    everything_arrived(seen)


def test_a_trial_that_ends_early_or_breaks_leaves_its_run_with_the_reason(tmp_path: Path) -> None:
    settings = config()
    settings.study.folder = str(tmp_path)
    said: list[str] = []
    for number, fault in ((0, Stopped(f"behind 5 of 6 in {HOME}/x")), (1, RuntimeError("out of memory"))):
        with (
            pytest.raises(type(fault)),
            tracked(settings, tmp_path / "made" / f"{number:04d}", number, "", said.append),
        ):
            raise fault
    runs = (tmp_path / "made" / FOLDER).glob("offline-run-*")
    texts = [json.dumps(records(run), ensure_ascii=False) for run in runs]
    stopped, broken = sorted(texts, key=lambda text: "out of memory" in text)
    assert "stopped early" in stopped and "behind 5 of 6 in …/x" in stopped
    assert "failed" in broken and "RuntimeError: out of memory" in broken
    assert said == []


def test_a_trial_run_again_replaces_the_run_that_was_cut_off(tmp_path: Path) -> None:
    settings = config()
    settings.study.folder = str(tmp_path)
    for fault in (KeyboardInterrupt(), None):
        with contextlib.suppress(KeyboardInterrupt), tracked(settings, tmp_path / "made" / "0000", 0, "", print):
            if fault is not None:
                raise fault
    [run] = (tmp_path / "made" / FOLDER).glob("offline-run-*")
    assert '"complete' in json.dumps(records(run)).replace("\\", "")


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
    run_through(made, settings, folder / "0000", said)
    track_study(find(study, folder), said.append)
    assert said == [] and not (folder / FOLDER).exists()


def test_wandb_mode_disabled_stays_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = tmp_path / "made"
    made = add_scored(new_study(folder), folder, 0.7)
    settings = config()
    settings.study.folder = str(tmp_path)
    said: list[str] = []
    run_through(made, settings, folder / "0000", said)
    assert said == [] and not (folder / FOLDER).exists()


def test_a_trial_that_cannot_be_tracked_gets_one_warning(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    made = add_scored(new_study(folder), folder, 0.7)
    settings = config()
    settings.study.folder = str(tmp_path)
    (folder / FOLDER).write_text("a file where the runs' folder should be", encoding="utf-8")
    said: list[str] = []
    run_through(made, settings, folder / "0000", said)
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
