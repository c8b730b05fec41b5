"""Every command of the README, run as written but small, on the sandbox; and what each leaves behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from PIL import Image

from sweep.outcome import read_outcome
from sweep.rungs import rungs_of
from sweep.study import load_study
from sweep.tracking import run_id
from tests.sweep.conftest import ROOT, Ran, command, environment

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    ((?:python -m|make) .*?)(?:\s+#.*)?$", README, flags=re.MULTILINE)
# The sandbox as it is, with a training of a second instead of ten: enough for every step to happen. What the base can
# draw in three steps is not tested here, so every bound lets everything pass.
LOOSE = ["score.constraints=[leakage]", "score.leak_rate=1", "score.style_range_at_least=1e-9"]
SMALL = ["train.budget.images_seen=24", "train.checkpoints=2", "sample.steps=3", *LOOSE]
SINGLE, SWEEP = "python -m sweep", "python -m sweep -m"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Home:
    """Studies of this module's runs, and what the runs printed."""

    folder: Path
    single: Ran
    sweep: Ran

    @property
    def study(self) -> Path:
        return self.folder / "anatomy_engraving"

    @property
    def trial(self) -> Path:
        return next((self.folder / "single").glob("*/outcome.json")).parent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("home") / "multirun"
    there = [*SMALL, f"study.folder={folder}"]
    single = command("-m", "sweep", *there, cwd=ROOT)
    sweep = command("-m", "sweep", "-m", "search.n_trials=5", *there, cwd=ROOT)
    return Home(folder, single, sweep)


def small(text: str, home: Home) -> Ran:
    """A command of the README, with the sandbox's small budget and studies in a folder of the test's own."""
    words = [word.strip("'") for word in text.split()][2:]
    if words[0] == "sweep.dashboard":
        return command("-m", *words, "--help", cwd=ROOT)
    if words[0] == "sweep.status":
        return command("-m", *words, str(home.study), cwd=ROOT)
    there = {"LORA_FILE": str(next(home.trial.rglob("lora.safetensors"))), "multirun/STUDY": str(home.study)}
    words = [there.get(w, w) for w in words]
    folder = home.folder
    if "LORA_FILES" in words:  # in a folder of its own, as the commands after it mean the newest study
        folder = home.folder / "given"
        folder.mkdir()
        words[1:] = [str(shutil.copy(there["LORA_FILE"], folder / f"v{n}.safetensors")) for n in (1, 2)]
    few = ["search.n_trials=1"] if "-m" in words else []
    few += ["search.finalists.count=1", "search.finalists.seeds=1"] if words[0] == "sweep.finalists" else []
    return command("-m", *words, *few, *SMALL, f"study.folder={folder}", cwd=ROOT)


def test_the_readme_has_commands() -> None:
    assert SINGLE in COMMANDS and SWEEP in COMMANDS and "make sweep" in COMMANDS


@pytest.mark.parametrize("text", [c for c in COMMANDS if c.startswith("python") and "data=folder" not in c])
def test_a_command_of_the_readme_runs(text: str, home: Home) -> None:
    ran = {SINGLE: home.single, SWEEP: home.sweep}.get(text) or small(text, home)
    assert ran.code == 0, ran.text
    if "LORA_FILES" in text:
        folder = home.folder / "given" / "given"  # named as the files' folder is
        study = load_study(folder)
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
        assert study.trials[0].values == study.trials[1].values, "one file under two names"
        assert (folder / "report.html").is_file()
    elif "sweep.score" in text:
        files = list((home.folder / "scored").rglob("outcome.json"))
        outcome = read_outcome(files[0].parent)
        assert len(files) == 1 and outcome and (files[0].parent / outcome.sheet).is_file()
    assert "Traceback" not in ran.text


@pytest.mark.parametrize("text", [c for c in COMMANDS if "data=folder" in c])
def test_ones_own_folder_with_flux_lacks_the_weights_alone(text: str, tmp_path: Path) -> None:
    data = ROOT / "sandbox" / "data"
    words = text.replace("MY_PICTURES", f"{data}/anatomy_chalk").replace(
        "HELD_OUT_PICTURES", f"{data}/references_chalk"
    )
    ran = command(*words.split()[1:], f"study.folder={tmp_path}", cwd=ROOT)
    assert ran.code == 2, ran.text
    assert "hf download black-forest-labs/FLUX.1-dev" in " ".join(ran.err.split())
    assert "data.path" not in ran.err and "data.references" not in ran.err


@pytest.mark.parametrize("text", [c for c in COMMANDS if c.startswith("make")])
def test_make_runs_what_the_tests_run(text: str) -> None:
    shown = subprocess.run([*text.split(), "-n"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    wanted = {"make sweep": "-m sweep -m", "make test": "-m pytest", "make dashboard": "-m sweep.dashboard"}
    assert shown.returncode == 0, shown.stderr
    assert wanted[text] in shown.stdout


def test_one_configuration_leaves_everything_it_found(home: Home) -> None:
    outcome = read_outcome(home.trial)
    assert outcome is not None, home.single.text
    assert set(outcome.timings) == {"start_up", "encode", "train", "sample", "score"}
    assert outcome.timings["train"] > 0 and outcome.timings["score"] > 0
    assert outcome.config["train"]["budget"]["images_seen"] == 24
    assert outcome.versions["torch"] and outcome.seeds["prompts"]
    assert len(outcome.best.per_image["style"]) == len(outcome.config["eval"]["prompts"])
    assert (home.trial / outcome.best.lora).is_file()
    assert len(outcome.losses) >= 2
    with Image.open(home.trial / outcome.sheet) as sheet:
        assert sheet.width > 800


def test_a_sweep_shows_progress_and_ends_with_ranking_front_and_next_steps(home: Home) -> None:
    text = home.sweep.out
    assert home.sweep.code == 0, home.sweep.text
    assert "learned the style yet" in " ".join(text.split()), text  # from 24 pictures seen
    for part in ("trial 5 of 5", "so far", "left", "train ", "sweep.dashboard", "sweep.report"):
        assert part in text, text
    assert "base=flux1_dev" in text and "no promise" in " ".join(text.split())
    assert max(len(line) for line in text.splitlines() if "/" not in line) <= 80


def test_the_articles_recipes_come_first_and_misfits_are_named(home: Home) -> None:
    trials = load_study(home.study).trials
    recipes = [trial.user_attrs.get("recipe") for trial in trials]
    assert recipes == ["anatomica_v3", "anatomica_v6", "anatomica_v8", "anatomica_v9", None]
    assert "left out anatomica_v1: not this study's data.limit" in home.sweep.out
    assert "left out chalk_v1, chalk_v2: not this study's data.path, data.references" in home.sweep.out


def test_optuna_has_constraints_attributes_and_one_picture_of_every_trial(home: Home) -> None:
    study = load_study(home.study)
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE
        assert "leakage" in trial.constraints
        assert {"captions", "mix", "lora", "strength", "timings", "seconds"} <= set(trial.user_attrs)
        kept = {a.filename: a for a in optuna.artifacts.get_all_artifact_meta(trial, storage=study._storage)}
        assert sum(name.endswith(".png") for name in kept) == 1 and len(kept) == 2, "one picture, and the plan"
        assert all((home.study / "artifacts" / a.artifact_id).is_file() for a in kept.values())
        outcome = read_outcome(home.study / f"{trial.number:04d}")
        assert outcome is not None and list(outcome.values) == trial.values
    assert study.metric_names == ["style", "composition"]


def test_weights_and_biases_has_a_run_per_trial_and_nothing_of_this_machine(home: Home) -> None:
    runs = list((home.study / "wandb").glob("offline-run-*/*.wandb"))
    trials = [run for run in runs if run.stem in {f"run-{run_id(home.study.name, number)}" for number in range(5)}]
    assert len(trials) == 5, "one run per trial"
    assert sum(run.stem == f"run-{run_id(home.study.name, 'summary')}" for run in runs) == 1
    for run in runs:
        # where an artifact waits for its upload; a study below the working folder has no path in it at all
        waiting = str(home.study / "wandb" / "artifacts" / "staging")
        stored = run.read_bytes().replace(waiting.encode(), b"")
        assert b"anatomy_engraving" in stored
        for private in (str(Path.home()), str(ROOT), str(home.folder), f"host: {os.uname().nodename}"):
            assert private.encode() not in stored, private
    assert all(any(run.parent.rglob("contact_sheet*.png")) for run in trials), "a sheet with every trial"


def test_tracking_switched_off_leaves_no_trace(tmp_path: Path) -> None:
    ran = command("-m", "sweep", "track=off", "captions=none", *SMALL, f"study.folder={tmp_path}", cwd=ROOT)
    assert ran.code == 0, ran.text
    assert not list(tmp_path.rglob("*wandb*"))


def test_the_same_configuration_is_not_computed_twice(home: Home) -> None:
    began = (home.trial / "outcome.json").stat().st_mtime_ns
    again = command("-m", "sweep", *SMALL, f"study.folder={home.folder}", cwd=ROOT)
    assert "already scored" in again.out, again.text
    assert (home.trial / "outcome.json").stat().st_mtime_ns == began


@pytest.mark.parametrize(("when", "least"), [("training", 3), ("sampling", 20)])
def test_a_trial_that_is_killed_continues_from_its_checkpoint(when: str, least: int, tmp_path: Path) -> None:
    words = ["-m", "sweep", "-m", "search.n_trials=1", "search.enqueue=[]", "track=off", "captions=choice(edited)"]
    words += [
        "sample.steps=12",  # long enough to be killed in
        "train.budget.images_seen=400",
        "train.checkpoints=20",
        "search.stopping=never",  # rungs have checkpoints of their own
        f"study.folder={tmp_path}",
        *LOOSE,
    ]
    driver = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 600
    while len(list(tmp_path.glob("**/step_*/record.json"))) < least and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    made = {file: file.stat().st_mtime_ns for file in tmp_path.glob("**/step_*/record.json")}
    assert len(made) == 20 if when == "sampling" else 3 <= len(made) < 20
    assert not list(tmp_path.glob("*/0000/outcome.json"))
    again = command(*words, cwd=ROOT)
    assert again.code == 0, again.text
    study = load_study(tmp_path / "anatomy_engraving")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]
    assert {file: file.stat().st_mtime_ns for file in made} == made, "checkpoints that were there are used"
    assert len(list(tmp_path.glob("**/step_*/record.json"))) == 20
    stored = json.loads((tmp_path / "anatomy_engraving" / "0000" / "outcome.json").read_text())
    assert len(stored["losses"]) == stored["candidates"][0]["step"]


def test_trials_that_differ_in_their_budgets_alone_are_trained_and_judged_once(tmp_path: Path) -> None:
    rates, lengths = "train.optimizer.learning_rate", "train.budget.images_seen"
    words = [f"{rates}=choice(1e-6,1e-3)", f"{lengths}=choice(30,60)", "sample.steps=3", "train.checkpoints=1", *LOOSE]
    words += [
        "search=given",
        "search.sampler=grid",
        "search.n_trials=4",
        "search.stopping=always",
        "track=off",
        "study.keep=all",
    ]
    ran = command("-m", "sweep", "-m", *words, f"study.folder={tmp_path}", cwd=ROOT)
    assert ran.code == 0, ran.text
    folder = tmp_path / "anatomy_engraving"
    trials = load_study(folder).trials
    assert len(trials) == 4 and " ".join(ran.out.split()).count("as in a trial of another budget") >= 2
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    parts = {"start_up", "encode", "train", "sample", "score"}
    assert all(set(trial.user_attrs["timings"]) == parts for trial in trials), "one that stopped as well"
    for rate in (1e-6, 1e-3):
        short, long = sorted((t for t in trials if t.params[rates] == rate), key=lambda trial: trial.params[lengths])
        assert short.number < long.number and all(
            rungs_of(long)[part] == rungs_of(short)[part] for part in rungs_of(long)
        )
        ours, theirs = (
            {file.parent.name: file.stat().st_mtime_ns for file in (folder / f"{t.number:04d}").rglob("record.json")}
            for t in (long, short)
        )
        if long.state == TrialState.COMPLETE:
            assert len(ours) == len(theirs) + 1 and theirs.items() <= ours.items(), "gone on with"
        else:
            assert not ours, "nothing was trained"
