"""The dashboard, as a person starts it."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.trial import create_trial

from tests.sweep.conftest import ROOT, environment
from tests.sweep.made import add_scored, new_study


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return new_study(tmp_path / "multirun" / "made", on_disk=True)


@contextmanager
def dashboard(folder: Path) -> Iterator[str]:
    """Its address, started as a person does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "sweep.dashboard", "--port", str(port)],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert f"http://127.0.0.1:{port}/dashboard/studies/1 " in server.stdout.readline(), "the newest study is found"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.communicate(timeout=30)


def test_the_dashboard_answers_on_this_machine_only(study: optuna.Study, tmp_path: Path) -> None:
    study.add_trial(create_trial(values=[0.6, 0.7]))
    study.add_trial(create_trial(values=[0.8, 0.9], constraints={"leakage": 0.2, "lines": -0.1}))
    with dashboard(tmp_path) as address:
        assert b"made" in _fetched(f"{address}/api/studies")
        detail = json.loads(_fetched(f"{address}/api/studies/1"))
    assert [trial["number"] for trial in detail["best_trials"]] == [0], "1 has better values and was ruled out"
    assert [trial["constraints"] for trial in detail["trials"]] == [[], [0.2, -0.1]], "which the charts grey out"


def test_a_study_on_a_database_server_has_its_notes_and_pictures(server: str, tmp_path: Path) -> None:
    folder = tmp_path / "multirun" / "made"
    study = new_study(folder, address=server)
    add_scored(study, folder, 0.7)
    with dashboard(tmp_path) as address:
        [known] = json.loads(_fetched(f"{address}/api/studies"))["study_summaries"]
        shown = json.loads(_fetched(f"{address}/api/studies/{known['study_id']}"))
        assert "Trial 0000 is the only usable one." in shown["note"]["body"]
        [trial] = shown["trials"]
        [sheet] = trial["artifacts"]
        place = f"{known['study_id']}/{trial['trial_id']}/{sheet['artifact_id']}"
        assert _fetched(f"{address}/artifacts/{place}").startswith(b"\x89PNG")


def _fetched(address: str) -> bytes:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return bytes(answer.read())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_a_port_in_use_is_said(tmp_path: Path, study: optuna.Study) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = subprocess.run(
            [sys.executable, "-m", "sweep.dashboard", "--port", str(taken.getsockname()[1])],
            cwd=tmp_path,
            env={**environment(), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ran.returncode == 2 and "Choose another: --port" in ran.stderr
