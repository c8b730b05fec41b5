"""`python -m sweep.status [STUDY]`: how far a study is, from another terminal; the newest by default.

Reads only: a running sweep does not notice. STUDY is a study's name in multirun/ or its folder.
"""

import argparse
import statistics
import sys
from datetime import datetime
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from sweep.checks import not_learned
from sweep.errors import InputError
from sweep.lines import console, duration, shown
from sweep.naming import add_study, find_study
from sweep.study import ASKED, FINISHED, best, is_alive, load_study
from sweep.summary import counts_in_words, label, nearest, print_trials, scores
from sweep.typed import folded, refuse

LISTED = 12  # trials in the table, best first
LOG = "trial.log"


def print_status(folder: Path, out: Console) -> None:
    """Prints what runs, what is done and what is best so far."""
    study = load_study(folder)
    trials = study.get_trials(deepcopy=False)
    names = study.metric_names or [f"value {i}" for i in range(len(study.directions))]
    done = [trial for trial in trials if trial.state in FINISHED]
    alive, asked = is_alive(folder), study.user_attrs.get(ASKED)
    said = [counts_in_words(trials, alive=alive), f"{len(done)} of {asked} done" if asked else ""]
    out.print(f"study {study.study_name}: {'; '.join(filter(None, said)) or 'empty'}")
    out.print(f"  in {shown(folder)}")
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    for trial in running:
        since = f"running {trial.number:04d}{_since(trial)}" if alive else f"interrupted {trial.number:04d}"
        out.print(f"  {since}: {label(trial)}")
        last = _last_line(folder / f"{trial.number:04d}" / LOG)
        if last:
            out.print(folded(last, "    "), soft_wrap=True)
    if running and not alive:
        out.print("  no process on this machine runs it: the sweep's command goes on with it")
    seconds = [trial.user_attrs["seconds"] for trial in done if "seconds" in trial.user_attrs]
    if seconds:
        out.print(f"  a trial takes about {duration(statistics.median(seconds))}")
    if not trials:
        out.print("  no trial has begun yet")
        return
    top = best(trials)
    if top is not None:
        leads = f"best so far: {top.number:04d} ({scores(names, top)}): {label(top)}"
        for line in filter(None, (leads, not_learned(trials, names))):
            out.print(folded(line, "  "), soft_wrap=True)
    elif done:
        out.print(folded(f"none is usable yet. {nearest(done, folder)}", "  "), soft_wrap=True)
    if done:
        print_trials(out, done, names, LISTED)


def _since(trial: FrozenTrial) -> str:
    if trial.datetime_start is None:
        return ""
    return f" since {duration((datetime.now() - trial.datetime_start).total_seconds())}"


def _last_line(log: Path) -> str:
    """What the trial said last, without the time stamp in front."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1].split("] ")[-1].rsplit("[INFO] - ", 1)[-1].strip() if lines else ""


def main(arguments: list[str]) -> None:
    """Prints once."""
    parser = argparse.ArgumentParser(prog="python -m sweep.status", description=__doc__.split("\n\n")[0])
    add_study(parser)
    try:
        print_status(find_study(parser.parse_args(arguments).study), console())
    except InputError as fault:
        refuse(fault)


if __name__ == "__main__":
    main(sys.argv[1:])
