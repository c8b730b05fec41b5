"""Weights & Biases may be out of reach, broken or switched off: a finished trial does not suffer."""

from pathlib import Path

import pytest

from sweep.outcome import Candidate, Outcome
from sweep.schema import Config
from sweep.settings import StudySettings
from sweep.tracking import track


@pytest.fixture
def outcome() -> Outcome:
    candidate = Candidate(1, 4, 1.0, "lora.safetensors", 0.5, 0.5, {}, {}, {}, {})
    return Outcome(0, [candidate], [1.0], {}, "none", "512x1", "", {}, [], {}, {}, "an identity")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(study=StudySettings(name="one", folder=str(tmp_path)))


def test_a_trial_that_cannot_be_tracked_gets_one_warning(
    outcome: Outcome, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "wandb").write_text("a file where the runs' folder should be")
    said: list[str] = []
    track(outcome, config, tmp_path, said.append)
    assert len(said) == 1
    assert "warning" in said[0] and "track=off" in said[0]


def test_wandb_mode_disabled_stays_disabled(
    outcome: Outcome, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    said: list[str] = []
    track(outcome, config, tmp_path, said.append)
    assert said == [] and list(tmp_path.iterdir()) == []
