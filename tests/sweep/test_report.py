"""The page and the dashboard, on studies of every shape."""

import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState, create_trial
from PIL import Image

from sweep.report import write_report
from sweep.study import storage
from tests.sweep.conftest import ROOT, environment


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = tmp_path / "multirun" / "made"
    folder.mkdir(parents=True)
    made = optuna.create_study(storage=storage(folder), study_name="made", directions=["maximize"] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        made.set_metric_names(["style", "composition"])
    return made


def scored(style: float, composition: float, leakage: float, **attributes: object) -> optuna.trial.FrozenTrial:
    return create_trial(values=[style, composition], constraints={"leakage": leakage}, user_attrs=dict(attributes))


def page(study: optuna.Study, tmp_path: Path) -> str:
    return write_report(study, tmp_path / "multirun" / "made").read_text(encoding="utf-8")


def test_a_study_without_a_trial_gives_a_page_that_says_so(study: optuna.Study, tmp_path: Path) -> None:
    assert "No trial has run yet" in page(study, tmp_path)


def test_all_failed_and_all_infeasible_say_so(study: optuna.Study, tmp_path: Path) -> None:
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"reason": "<it> broke"}))
    study.add_trial(scored(0.5, 0.5, 0.1))
    text = page(study, tmp_path)
    assert "No trial is feasible" in text
    assert "failed: &lt;it&gt; broke" in text
    assert "no: leakage" in text


def test_the_page_names_the_best_and_holds_pictures_and_banner(study: optuna.Study, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "multirun" / "made" / "sheet.png")
    study.set_user_attr("sandbox", True)
    intervals = {"style": [0.55, 0.65], "composition": [0.6, 0.8]}
    study.add_trial(scored(0.6, 0.7, -0.1, captions="edited", mix="512x5", sheet="sheet.png", intervals=intervals))
    study.add_trial(scored(0.9, 0.9, 0.2, captions="none", mix="512x5", sheet="gone.png"))
    text = page(study, tmp_path)
    assert "Trial 0000" in text and "0.600 (0.55 … 0.65)" in text
    assert "no promise for FLUX.1-dev" in text
    assert text.count("data:image/jpeg;base64,") == 1, "a picture that was deleted is left out"


def test_the_page_needs_no_network(study: optuna.Study, tmp_path: Path) -> None:
    study.add_trial(scored(0.6, 0.7, -0.1))
    text = page(study, tmp_path)
    assert "<script src=" not in text and "<link" not in text
    assert len(text) < 15e6


def test_the_dashboard_answers_on_this_machine_only(study: optuna.Study, tmp_path: Path) -> None:
    study.add_trial(scored(0.6, 0.7, -0.1))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "sweep.dashboard", "--port", str(port)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        assert f"http://127.0.0.1:{port}/dashboard" in server.stdout.readline(), "the newest study is found"
        assert b"made" in _fetched(f"http://127.0.0.1:{port}/api/studies")
    finally:
        server.terminate()
        server.communicate(timeout=30)


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
