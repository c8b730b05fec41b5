"""The sweeper in real Hydra with a toy objective: what goes wrong in a trial stays there; nothing is lost."""

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from sweep.job import _is_study_wide
from sweep.study import best, load_study
from tests.sweep.conftest import ROOT, TOY, Run, command, environment


def trials(folder: Path) -> list[FrozenTrial]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return load_study(folder / "multirun" / "toy").get_trials()


def params(folder: Path) -> list[dict[str, object]]:
    return [trial.params for trial in trials(folder)]


def test_a_sweep_runs_its_trials_in_folders_named_by_number(toy: Run, tmp_path: Path) -> None:
    ran = toy("search.n_trials=4")
    assert ran.code == 0, ran.text
    assert sorted(f.name for f in (tmp_path / "multirun" / "toy").iterdir() if f.is_dir()) == [
        "0000",
        "0001",
        "0002",
        "0003",
        "experiment",
    ]
    assert all(trial.state == TrialState.COMPLETE for trial in trials(tmp_path))
    assert all("n is small" in trial.constraints for trial in trials(tmp_path))
    assert "trial 4 of 4" in ran.out and "best so far" in ran.out and "Pareto front" in ran.out
    assert max(len(line) for line in ran.out.splitlines()) <= 80


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        ("raise", "RuntimeError: the toy broke"),
        ("nan", "style is nan; composition is -inf"),
        ("exit", "the job called sys.exit(3)"),
        ("memory", "MemoryError: no message"),
    ],
)
def test_a_trial_that_fails_is_recorded_and_the_study_goes_on(
    behave: str, reason: str, toy: Run, tmp_path: Path
) -> None:
    ran = toy(f"behave={behave}", "search.n_trials=4")
    assert ran.code == 0, ran.text
    states = [trial.state for trial in trials(tmp_path)]
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert trials(tmp_path)[2].user_attrs["reason"] == reason
    assert reason in " ".join(ran.out.split())
    if behave == "raise":
        trace = (tmp_path / "multirun" / "toy" / "0002" / "traceback.txt").read_text()
        assert "_misbehave" in trace and "the toy broke" in trace


def test_a_killed_sweep_continues_and_suggests_what_it_would_have_suggested(toy: Run, tmp_path: Path) -> None:
    whole = toy("study.folder=whole/multirun")
    assert whole.code == 0, whole.text
    killed = toy("behave=kill")
    assert killed.code == -signal.SIGKILL
    assert [trial.state for trial in trials(tmp_path)][-1] == TrialState.RUNNING
    again = toy("behave=kill")
    assert again.code == 0, again.text
    assert params(tmp_path) == params(tmp_path / "whole")
    assert [t.values for t in trials(tmp_path)] == [t.values for t in trials(tmp_path / "whole")]
    runs = [(tmp_path / "multirun" / "toy" / f"{n:04d}" / "runs.txt").read_text().count("\n") for n in range(6)]
    assert runs == [1, 1, 2, 1, 1, 1], "only the trial that was interrupted runs twice, in its own folder"


# Kills the process inside trial 2, just before or just after it does this.
KILL = """
import os, runpy, signal, sys
from optuna import Study
from optuna.storages import RDBStorage
owner, name, when = {owner}, "{name}", "{when}"
real = getattr(owner, name)
calls = [0]
def deadly(self, *args, **kwargs):
    calls[0] += 1
    if calls[0] == {call} and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    done = real(self, *args, **kwargs)
    if calls[0] == {call} and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return done
setattr(owner, name, deadly)
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("owner", "name", "when"),
    [
        ("RDBStorage", "_create_new_trial", "before"),
        ("RDBStorage", "_set_trial_param_without_commit", "after"),  # the second trial with one of its two parameters
        ("RDBStorage", "_create_new_trial", "after"),  # a trial that no job has begun
        ("Study", "tell", "before"),  # a trial that has been scored
        ("Study", "tell", "after"),
    ],
)
def test_a_sweep_killed_anywhere_reaches_the_end_of_an_uninterrupted_one(
    owner: str, name: str, when: str, toy: Run, tmp_path: Path, whole: list[dict[str, object]]
) -> None:
    script = KILL.format(owner=owner, name=name, when=when, call=3, argv=[str(TOY), "-m", *FOUR])
    assert command("-c", script, cwd=tmp_path).code == -signal.SIGKILL
    again = toy(*FOUR)
    assert again.code == 0, again.text
    assert params(tmp_path) == whole
    assert [trial.state for trial in trials(tmp_path)] == [TrialState.COMPLETE] * 4


FOUR = ["search.n_trials=4", "search.startup=2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """The parameters of four trials that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    ran = command(str(TOY), "-m", *FOUR, cwd=folder)
    assert ran.code == 0, ran.text
    return params(folder)


def test_a_trial_that_takes_too_long_is_given_up_and_the_study_goes_on(toy: Run, tmp_path: Path) -> None:
    ran = toy("behave=wait", "search.n_trials=4", "search.trial_seconds=5")
    assert ran.code == 0, ran.text
    assert trials(tmp_path)[2].state == TrialState.FAIL
    assert trials(tmp_path)[2].user_attrs["reason"] == "took longer than search.trial_seconds=5"
    assert [t.state for t in trials(tmp_path)].count(TrialState.COMPLETE) == 3


# The call in hand gets less than a minute to return.
SOON = """
import runpy, sys
from sweep import job
job.LAST_CALL_S = 1.0
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_trial_in_a_call_that_never_returns_ends_with_its_process_and_the_others_run(tmp_path: Path) -> None:
    words = ["behave=hang", "search.n_trials=4", "search.trial_seconds=4"]
    ran = command("-c", SOON.format(argv=[str(TOY), "-m", *words]), cwd=tmp_path)
    assert ran.code == 0, ran.text
    states = [trial.state for trial in trials(tmp_path)]
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert "in a call that never returned" in trials(tmp_path)[2].user_attrs["reason"]
    assert "_misbehave" in (tmp_path / "multirun" / "toy" / "0002" / "traceback.txt").read_text()
    assert (tmp_path / "multirun" / "toy" / "0002" / "runs.txt").read_text().count("\n") == 1, "and it is not run again"


def test_a_plain_hydra_sweep_runs_every_combination_once_in_its_order(toy: Run, tmp_path: Path) -> None:
    ran = toy("colour=red,blue", "n=1,2,3", "rungs=true", "search.stopping=always")
    assert ran.code == 0, ran.text
    assert all(trial.state == TrialState.COMPLETE for trial in trials(tmp_path)), "none of what was listed is stopped"
    assert "1/9 of the budget: style +1.00, composition +1.00 (6 trials), off" in ran.out
    assert params(tmp_path) == [{"colour": c, "n": n} for c in ("red", "blue") for n in (1, 2, 3)]
    assert "6 trials" in ran.out and "Pareto front" in ran.out
    again = toy("colour=red,blue", "n=1,2,3", "rungs=true", "search.stopping=always")
    assert "6 done, 0 to run" in again.out, again.text


def test_no_point_is_tried_twice_and_an_exhausted_space_ends_the_study(toy: Run, tmp_path: Path) -> None:
    ran = toy("x=0.5", "n=range(0,6)", "search.n_trials=9", "search.startup=2", "search.params={}")
    assert ran.code == 0, ran.text
    assert sorted(p["n"] for p in params(tmp_path)) == [0, 1, 2, 3, 4, 5]
    assert "drawn instead of trial" in ran.out
    assert "every combination has been tried: 6 of search.n_trials=9" in ran.out
    assert toy("x=0.5", "n=range(0,6)", "search.n_trials=9", "search.startup=2", "search.params={}").code == 0
    assert len(trials(tmp_path)) == 6


def test_a_study_ends_when_its_front_stands_still_and_when_its_time_is_up(toy: Run, tmp_path: Path) -> None:
    words = ["x=0.5", "n=choice(4,3,2,1)", "search.params={}", "search.sampler=grid", "search.n_trials=4"]
    still = toy(*words, "search.seed=1", "search.patience=1")  # the best comes first
    assert still.code == 0, still.text
    assert [p["n"] for p in params(tmp_path)] == [4, 3]
    assert "the front has not grown in search.patience=1 trials" in " ".join(still.out.split())
    late = toy(*words, "search.seed=1", "search.study_seconds=0.001")
    assert late.code == 0, late.text
    assert "time is up (search.study_seconds=0.001)" in late.out and len(trials(tmp_path)) == 2


def test_a_conditional_parameter_is_drawn_where_it_means_something_and_rules_are_kept(toy: Run, tmp_path: Path) -> None:
    words = ["colour=choice(red,blue)", "n=range(0,6)", "x=interval(0,1)", "search.n_trials=12", "search.startup=4"]
    ran = toy(*words, '+search.when={x: "colour == blue"}', 'search.rules=["n != 3 or colour == blue"]')
    assert ran.code == 0, ran.text
    found = params(tmp_path)
    assert {("x" in p) == (p["colour"] == "blue") for p in found} == {True}
    assert {p["colour"] for p in found} == {"red", "blue"}
    assert not any(p["n"] == 3 and p["colour"] == "red" for p in found)
    changed = toy(*words, '+search.when={x: "colour == red"}')
    assert "search.when.x: was colour == blue, is now colour == red" in changed.err


# Counts how often the whole study is read.
COUNT = """
import runpy, sys
from optuna.storages._cached_storage import _CachedStorage
real, reads = _CachedStorage.get_all_trials, [0]
def counting(self, *args, **kwargs):
    reads[0] += 1
    return real(self, *args, **kwargs)
_CachedStorage.get_all_trials = counting
sys.argv = {argv!r}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("reads", reads[0])
"""


def test_a_trial_reads_the_study_a_few_times_and_no_more(tmp_path: Path) -> None:
    ran = command("-c", COUNT.format(argv=[str(TOY), "-m", "search.n_trials=6"]), cwd=tmp_path)
    assert ran.code == 0, ran.text
    # Of a trial: ours before and after it, ask's, the sampler's and its own job's; of the study: a dozen at its ends.
    assert int(ran.out.splitlines()[-1].split()[1]) <= 6 * 5 + 12, ran.out


# While trial 1 runs here, another process tells what came of it: it took the trial for left.
TOLD = """
import runpy, sys
from sweep import sweeper
real = sweeper.Driver._launched
def slowly(self, trial, *args, **kwargs):
    ended = real(self, trial, *args, **kwargs)
    if trial.number == 1:
        sweeper.load_study(self.folder).tell(1, [9.0, 9.0])
    return ended
sweeper.Driver._launched = slowly
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_trial_that_another_process_has_finished_is_not_told_twice(tmp_path: Path) -> None:
    ran = command("-c", TOLD.format(argv=[str(TOY), "-m", "search.n_trials=3"]), cwd=tmp_path)
    assert ran.code == 0, ran.text
    assert [trial.state for trial in trials(tmp_path)] == [TrialState.COMPLETE] * 3
    assert trials(tmp_path)[1].values == [9.0, 9.0] and "finished by another process" in ran.out


def test_the_best_trial_is_an_experiment_that_runs(toy: Run, tmp_path: Path) -> None:
    assert toy("search.n_trials=4").code == 0
    study = tmp_path / "multirun" / "toy"
    made = OmegaConf.load(study / "experiment" / "best.yaml")
    top = best(trials(tmp_path))
    assert top is not None
    assert {key: made[key] for key in top.params} == top.params
    assert f"Trial {top.number:04d}" in (study / "experiment" / "best.yaml").read_text()


def test_a_study_of_another_version_is_refused(toy: Run, tmp_path: Path) -> None:
    assert toy("search.n_trials=1").code == 0
    load_study(tmp_path / "multirun" / "toy").set_user_attr("format", 1)
    refused = toy("search.n_trials=2")
    assert refused.code != 0
    assert "another version of stylesweep" in refused.err and "study.name=toy_2" in refused.err


@pytest.mark.parametrize(("behave", "said"), [("input", "the toy's pictures are gone"), ("disk", "No space left")])
def test_a_fault_that_every_trial_would_meet_stops_the_sweep_and_the_trial_is_run_again(
    behave: str, said: str, toy: Run, tmp_path: Path
) -> None:
    stopped = toy(f"behave={behave}", "search.n_trials=4")
    assert stopped.code != 0
    assert said in stopped.err and "Trial 0002" in stopped.err
    assert [t.state for t in trials(tmp_path)] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.RUNNING]
    again = toy(f"behave={behave}", "search.n_trials=4")
    assert again.code == 0, again.text
    assert [t.state for t in trials(tmp_path)] == [TrialState.COMPLETE] * 4


def test_a_database_that_cannot_be_written_ends_the_sweep_with_one_message_and_loses_nothing(
    toy: Run, tmp_path: Path
) -> None:
    stopped = toy("behave=full", "search.n_trials=4")
    assert stopped.code != 0
    assert "study.db failed" in stopped.err and "the same command continues" in " ".join(stopped.err.split())
    assert [t.state for t in trials(tmp_path)] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.RUNNING]
    again = toy("behave=full", "search.n_trials=4")
    assert [t.state for t in trials(tmp_path)] == [TrialState.COMPLETE] * 4, again.text


def test_a_training_that_tells_of_a_full_disk_in_its_own_words_is_no_fault_of_the_trial() -> None:
    told = RuntimeError("the checkpoint at step 3 could not be written")
    told.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert _is_study_wide(told) and not _is_study_wide(RuntimeError("the loss is nan"))


def test_a_sweep_in_which_no_trial_completes_does_not_end_well(toy: Run) -> None:
    ran = toy("behave=all_raise", "search.n_trials=2")
    assert ran.code != 0
    assert "no trial completed: RuntimeError: every toy broke" in ran.err


def test_a_trial_that_kills_its_process_again_and_again_is_given_up(toy: Run, tmp_path: Path) -> None:
    for _ in range(3):
        assert toy("behave=always_kill", "search.n_trials=4").code == -signal.SIGKILL
    last = toy("behave=always_kill", "search.n_trials=4")
    assert last.code == 0, last.text
    assert trials(tmp_path)[2].state == TrialState.FAIL
    assert "killed in it 3 times" in trials(tmp_path)[2].user_attrs["reason"]
    assert len(trials(tmp_path)) == 4


def test_more_trials_are_added_to_a_finished_study_and_none_is_run_again(toy: Run, tmp_path: Path) -> None:
    assert toy("search.n_trials=2").code == 0
    again = toy("search.n_trials=2")
    assert "2 done, 0 to run" in again.out
    more = toy("search.n_trials=3")
    assert "2 done, 1 to run" in more.out
    assert len(trials(tmp_path)) == 3


@pytest.mark.parametrize("sampler", ["random", "nsga2", "tpe"])
def test_the_same_seed_gives_the_same_suggestions(sampler: str, toy: Run, tmp_path: Path) -> None:
    for place in ("one", "two"):
        assert toy(f"search.sampler={sampler}", "search.startup=2", f"study.folder={place}/multirun").code == 0
    assert params(tmp_path / "one") == params(tmp_path / "two")
    assert len({str(p) for p in params(tmp_path / "one")}) > 1


def test_a_changed_space_is_refused_and_the_study_is_left_as_it_was(toy: Run, tmp_path: Path) -> None:
    assert toy("search.n_trials=2").code == 0
    before = params(tmp_path)
    changed = toy("search.n_trials=4", "x=interval(0,2)")
    assert changed.code != 0
    assert "x: 0.0 to 1.0" in changed.err and "x: 0.0 to 2.0" in changed.err and "study.name=toy_2" in changed.err
    assert params(tmp_path) == before


def test_changed_settings_outside_the_space_are_refused_by_name(toy: Run, tmp_path: Path) -> None:
    assert toy("search.n_trials=2").code == 0
    changed = toy("search.n_trials=4", "colour=blue")
    assert changed.code != 0
    assert "colour: was red, is now blue" in changed.err
    assert len(trials(tmp_path)) == 2


@pytest.mark.parametrize("word", ["search.n_trials=0", "n=range(3,3)"])
def test_what_is_wrong_with_a_setting_is_said_in_any_application_without_a_traceback(word: str, toy: Run) -> None:
    ran = toy(word)
    assert ran.code != 0 and word.partition("=")[0] in ran.err and "Traceback" not in ran.err


def test_an_unknown_choice_is_refused_before_the_first_trial(toy: Run, tmp_path: Path) -> None:
    ran = toy("n=choice(1,many)")
    assert ran.code != 0
    assert "many" in ran.err
    assert not (tmp_path / "multirun" / "toy" / "0000").exists()


def test_ctrl_c_leaves_the_trial_to_the_next_run_and_two_drivers_never_meet(toy: Run, tmp_path: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, str(TOY), "-m", "behave=wait"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs ignore SIGINT and hand that on; a terminal's do not
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    waiting = tmp_path / "multirun" / "toy" / "0002" / "seen"
    deadline = time.monotonic() + 150
    while not waiting.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    second = toy("behave=wait")
    assert second.code != 0 and f"being run by another process (id {driver.pid})" in second.err
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=150)
    assert driver.returncode != 0
    last = toy("behave=wait")
    assert last.code == 0, last.text
    assert [trial.state for trial in trials(tmp_path)] == [TrialState.COMPLETE] * 6


def test_ctrl_c_in_the_middle_of_a_statement_frees_the_database_and_does_not_count(toy: Run, tmp_path: Path) -> None:
    words = ("search.n_trials=1", "behave=interrupted", "when=0")
    began = time.monotonic()
    assert toy(*words).code != 0
    assert time.monotonic() - began < 45, "it waited for its own statement to end"
    (left,) = trials(tmp_path)
    assert left.state == TrialState.RUNNING and left.user_attrs["attempts"] == 0
    assert toy(*words).code == 0
    assert trials(tmp_path)[0].user_attrs["attempts"] == 1


def test_of_two_drivers_that_start_at_once_one_runs_the_study(tmp_path: Path) -> None:
    words = [sys.executable, str(TOY), "-m", "search.n_trials=3", "seconds=1"]
    drivers = [
        subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = {driver.communicate(timeout=150)[1].decode(): driver.returncode for driver in drivers}
    assert sorted(said.values()) == [0, 1], said
    assert any("being run by another process" in text for text in said)
    assert [trial.state for trial in trials(tmp_path)] == [TrialState.COMPLETE] * 3
    assert all(len(file.read_text().splitlines()) == 1 for file in tmp_path.glob("multirun/toy/*/runs.txt"))


def test_the_plugin_is_found_from_the_checkout() -> None:
    assert (ROOT / "hydra_plugins" / "stylesweep_sweeper" / "__init__.py").is_file()
    assert not (ROOT / "hydra_plugins" / "__init__.py").exists(), "it would hide other plugins of the namespace"
