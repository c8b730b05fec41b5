"""Several trials in flight, through the launchers themselves: joblib and submitit's local one run here for real."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweep.progress import SweepProgress
from sweep.settings import SearchSettings
from sweep.slots import cards, cores
from sweep.study import load_study
from tests.sweep.conftest import TOY, Run, environment


def trials(folder: Path) -> list[FrozenTrial]:
    return load_study(folder / "multirun" / "toy").get_trials()


def ran_where(folder: Path, count: int) -> list[tuple[str, str]]:
    """Card and process of every trial."""
    files = [folder / "multirun" / "toy" / f"{n:04d}" / "card.txt" for n in range(count)]
    return [(words[0], words[1]) for words in (file.read_text().split() for file in files)]


def runs(folder: Path, count: int) -> list[int]:
    return [(folder / "multirun" / "toy" / f"{n:04d}" / "runs.txt").read_text().count("\n") for n in range(count)]


def test_slots_take_trials_as_they_come_free_each_on_its_card_and_a_killed_one_is_replaced(
    toy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    ran = toy("study.slots=2", "search.n_trials=5", "behave=kill", "seconds=2")
    assert ran.code == 0, ran.text
    assert [t.state for t in trials(tmp_path)] == [TrialState.COMPLETE] * 5
    assert runs(tmp_path, 5) == [1, 1, 2, 1, 1], "only the trial whose slot was killed ran twice"
    assert {card for card, _ in ran_where(tmp_path, 5)} == {"4", "7"}
    assert "killed (signal 9); started again" in ran.out
    a, b = trials(tmp_path)[:2]
    assert a.datetime_start < b.datetime_complete and b.datetime_start < a.datetime_complete, "both at once"  # type: ignore[operator]


def test_slots_share_the_cores(tmp_path: Path) -> None:
    free = {name: value for name, value in environment().items() if name != "OMP_NUM_THREADS"}
    words = [sys.executable, str(TOY), "-m", "study.slots=2", "search.n_trials=2"]
    subprocess.run(words, cwd=tmp_path, env=free, check=True, capture_output=True)
    files = [tmp_path / "multirun" / "toy" / f"{n:04d}" / "card.txt" for n in range(2)]
    assert {file.read_text().split()[2] for file in files} == {str(max(1, cores() // 2))}


def test_a_slot_that_a_library_ends_without_a_word_is_replaced(toy: Run, tmp_path: Path) -> None:
    ran = toy("study.slots=2", "search.n_trials=4", "behave=vanish", "when=1")
    assert ran.code == 0, ran.text
    assert [t.state for t in trials(tmp_path)] == [TrialState.COMPLETE] * 4
    assert "ended in the middle of its work (code 0); started again" in " ".join(ran.out.split())


def test_slots_launch_through_joblib_and_a_job_that_raises_comes_back_with_its_trace(toy: Run, tmp_path: Path) -> None:
    ran = toy("hydra/launcher=joblib", "study.slots=2", "search.n_trials=3", "behave=raise", "when=1")
    assert ran.code == 0, ran.text
    assert [t.state for t in trials(tmp_path)] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert trials(tmp_path)[1].user_attrs["reason"] == "RuntimeError: the toy broke"
    assert "_misbehave" in (tmp_path / "multirun" / "toy" / "0001" / "traceback.txt").read_text()


def test_a_job_of_submitit_that_is_killed_is_launched_again_on_its_slots_card(
    toy: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    ran = toy("hydra/launcher=submitit_local", "study.slots=2", "search.n_trials=2", "behave=kill", "when=1")
    assert ran.code == 0, ran.text
    assert [t.state for t in trials(tmp_path)] == [TrialState.COMPLETE] * 2
    assert runs(tmp_path, 2) == [1, 2] and "trial 0001 goes on: the job's process died" in ran.out
    where = ran_where(tmp_path, 2)
    assert {card for card, _ in where} <= {"4", "7"}
    assert len({process for _, process in where}) == 2, "each job was a process of its own"


def test_slots_end_with_the_command_that_started_them_and_it_goes_on_where_they_stopped(
    toy: Run, tmp_path: Path
) -> None:
    words = ["study.slots=2", "search.n_trials=3", "behave=wait", "when=1"]
    driver = subprocess.Popen(
        [sys.executable, str(TOY), "-m", *words], cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL
    )
    seen = tmp_path / "multirun" / "toy" / "0001" / "seen"
    end = time.monotonic() + 200
    while not seen.exists() and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    again = toy(*words)
    assert again.code == 0, again.text
    assert [t.state for t in trials(tmp_path)] == [TrialState.COMPLETE] * 3


def test_a_fault_of_the_input_ends_all_slots_with_its_message(toy: Run, tmp_path: Path) -> None:
    stopped = toy("study.slots=2", "search.n_trials=4", "behave=input")
    assert stopped.code != 0
    assert "the toy's pictures are gone" in stopped.text and "The same command continues" in stopped.text
    again = toy("study.slots=2", "search.n_trials=4", "behave=input")
    assert again.code == 0, again.text
    assert [t.state for t in trials(tmp_path)] == [TrialState.COMPLETE] * 4


def test_a_launcher_that_cannot_start_jobs_is_a_fault_of_the_input(toy: Run, tmp_path: Path) -> None:
    ran = toy("hydra/launcher=submitit_slurm", "search.n_trials=2")
    assert ran.code != 0 and "`hydra/launcher` could not start the job" in ran.text
    assert [t.state for t in trials(tmp_path)] == [TrialState.RUNNING], "and is continued where there is a cluster"


@pytest.mark.parametrize(("slots", "left"), [(1, "8 min"), (4, "2 min")])
def test_the_time_that_is_left_is_shared_by_what_runs_at_once(
    slots: int, left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = optuna.create_study(directions=["maximize"] * 2)
    study.add_trial(create_trial(values=[0.5, 0.5], user_attrs={"seconds": 60.0}))
    progress = SweepProgress(SearchSettings(n_trials=9), Path("multirun"), slots)
    progress.begin(study.ask(), study.get_trials())
    assert f"trial 2 of 9 (0001), about {left} left" in capsys.readouterr().out


def test_the_cards_of_a_machine_are_those_that_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5")
    assert cards() == ["2", "GPU-5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cards() == []
