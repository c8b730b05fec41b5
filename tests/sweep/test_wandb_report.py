"""The report in Weights & Biases, against a server on this machine that speaks as much of its protocol as is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweep.conftest import ROOT, environment
from tests.sweep.made import add_scored, new_study
from tests.sweep.wandb_server import wandb_server

pytest.importorskip("wandb_workspaces", reason="an extra: make test-browser installs it")
pytestmark = pytest.mark.browser


def publish(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    made = {name: value for name, value in environment().items() if name != "WANDB_MODE"}
    return subprocess.run(
        [sys.executable, "-m", "sweep.report", "wandb", f"study.name={folder.name}", f"study.folder={folder.parent}"],
        cwd=ROOT,
        env={**made, "WANDB_SILENT": "true", **variables},
        capture_output=True,
        text=True,
        timeout=250,
    )


def test_a_report_reaches_the_server_with_text_and_panels(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    study = new_study(folder, on_disk=True)
    add_scored(study, folder, 0.7)
    with wandb_server() as seen:
        done = publish(folder, WANDB_BASE_URL=seen.address, WANDB_API_KEY="k" * 40)
    assert done.returncode == 0, done.stderr
    assert "report: http" in done.stdout
    [saved] = [request["variables"] for request in seen.queries if "upsertView" in request["query"]]
    spec = saved["spec"]
    for expected in ("What is best?", "Scatter Plot", "Parallel Coordinates Plot", "Media Browser", "Run Comparer"):
        assert expected in spec, expected
    assert "contact_sheet" in spec and '"made"' in spec
    assert str(tmp_path) not in spec


def test_without_a_login_it_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    add_scored(new_study(folder, on_disk=True), folder, 0.7)
    done = publish(folder, WANDB_MODE="offline")
    assert done.returncode == 2
    assert "wandb login" in done.stderr and "Traceback" not in done.stderr
