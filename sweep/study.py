"""A study: opening it, locking it, and reading from it what is best.

`multirun/<study>/study.db` holds it (SQLite), one driver at a time: a lock file says who, and falls with its process.
Where several processes share a study is in `sweep.sharing`.
"""

import fcntl
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, Trial, TrialState

from sweep.database import DATABASE, address_of, has_study, readable, storage
from sweep.errors import InputError, StudyBusy, StudyMismatch
from sweep.settings import SearchSettings
from sweep.space import Space, describe, from_json, to_json
from sweep.typed import python

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
LOCK = ".lock"
ASKED = "n_trials"  # key of a study: how many trials it was last asked for
FORMAT = 6  # of what a study remembers about itself and of what its scores mean


def load_study(folder: Path, name: str | None = None, heartbeat_seconds: int | None = None) -> optuna.Study:
    """Opens an existing study.

    Args:
        heartbeat_seconds: between the signs of life of its trials, for who runs some of them on a server.

    Raises:
        InputError: if the folder has no study.
    """
    if not has_study(folder):
        others = [f"study.name={other.name}" for other in sorted(folder.parent.glob("*")) if has_study(other)]
        known = f"; there are {', '.join(others)}" if others else ""
        raise InputError(f"{folder} has no study ({DATABASE}): make one with {python()} -m sweep -m{known}")
    place = storage(folder, heartbeat_seconds)
    # A cheap sampler: a reader suggests nothing.
    with readable(folder):
        try:
            return optuna.load_study(
                study_name=name or folder.name, storage=place, sampler=optuna.samplers.RandomSampler()
            )
        except KeyError:  # optuna's, of a folder that was renamed
            there = place.get_all_studies()
    # A person's ratings are a study as well, made later.
    first = min(there, key=lambda study: study._study_id).study_name if there else ""
    holds = f"the study {first}: give the folder that name again" if there else "no study yet"
    raise InputError(f"{folder} holds {holds}")


def live_trial(study: optuna.Study, number: int) -> Trial:
    """The trial a job belongs to, to set attributes, constraints and artifacts on before it is told."""
    frozen = study.get_trials(deepcopy=False)[number]
    # Optuna has no other way to take a trial up in a second process or after a restart.
    return Trial(study, frozen._trial_id)


def open_study(
    folder: Path,
    search: SearchSettings,
    space: Space,
    settings: Mapping[str, Any],
    heartbeat_seconds: int | None = None,
) -> optuna.Study:
    """Creates the study, or opens it if it was made with this space and these settings.

    Args:
        settings: what is fixed for every trial, as flat `key: value`.
        heartbeat_seconds: between the signs of life of its trials, where processes share it.

    Raises:
        StudyMismatch: if the study on disk was made otherwise. It is left as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with readable(folder):
        study = optuna.create_study(
            study_name=folder.name,
            storage=storage(folder, heartbeat_seconds),
            directions=["maximize"] * len(search.objectives),
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(),
        )
    known = study.user_attrs
    if "space" not in known or not study.get_trials(deepcopy=False):  # nothing has been made with it yet
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # set_metric_names, since Optuna 3.2
            study.set_metric_names(list(search.objectives))
        study.set_user_attr("format", FORMAT)
        study.set_user_attr("settings", json.dumps(settings, sort_keys=True))
        study.set_user_attr("space", to_json(space))
        return study
    if known.get("format", 1) != FORMAT:
        raise StudyMismatch(
            f"the study {folder.name} was made by another version of stylesweep (format {known.get('format', 1)}, this"
            f" one's is {FORMAT}), so its trials cannot be continued. Give the new search its own name,"
            f" study.name={folder.name}_2.\n  Nothing in {folder} was changed."
        )
    if known["space"] != to_json(space):
        raise StudyMismatch(
            f"the study {folder.name} was made with another search space, so its trials cannot be continued.\n"
            f"  it was made with\n{describe(from_json(known['space']))}\n"
            f"  and is now asked for\n{describe(space)}\n"
            f"  Give the new search its own name, study.name={folder.name}_2, or repeat the old command.\n"
            f"  Nothing in {folder} was changed."
        )
    _refuse_other_settings(folder, json.loads(known["settings"]), json.loads(json.dumps(settings)))
    return study


def _refuse_other_settings(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if changed:
        lines = "\n".join(f"    {key}: was {before.get(key)}, is now {now.get(key)}" for key in changed[:10])
        more = f"\n    … and {len(changed) - 10} more" if len(changed) > 10 else ""
        raise StudyMismatch(
            f"the study {folder.name} was made with other settings, so new trials could not be compared with its own:\n"
            f"{lines}{more}\n  Give the new search its own name, study.name={folder.name}_2, or repeat the old command."
            f"\n  Nothing in {folder} was changed."
        )


def study_lock(folder: Path) -> AbstractContextManager[None]:
    """Holds the study for this process.

    Raises:
        StudyBusy: if another process holds it.
    """
    return folder_lock(folder, f"the study {folder.name}", "wait for it, end it, or give this one another study.name")


def is_alive(folder: Path) -> bool:
    """Whether somebody may be running the study's trials: on a server anybody, else a process of this machine."""
    return bool(address_of(folder)) or is_held(folder)


def is_held(folder: Path) -> bool:
    """Whether a process of this machine that held the study last is still there."""
    try:
        os.kill(int((folder / LOCK).read_text()), 0)
    except PermissionError:  # another person's
        return True
    except (OSError, ValueError):  # no such process, or no lock yet
        return False
    return True


@contextmanager
def folder_lock(folder: Path, what: str, way_out: str) -> Iterator[None]:
    """Holds a folder for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        StudyBusy: if another process holds it; the message names `what` it is and the `way_out`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / LOCK) as holder:
        if holder is not None:
            raise StudyBusy(f"{what} is being run by another process (id {holder or 'unknown'}): {way_out}")
        yield


@contextmanager
def file_lock(file: Path, *, wait: bool = False) -> Iterator[str | None]:
    """Holds a lock file; gives None, or who holds it already where that is not waited for."""
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            lock.seek(0)
            yield lock.read().strip()
            return
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield None


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether a trial finished with every constraint kept."""
    return trial.state == TrialState.COMPLETE and all(value <= 0 for value in trial.constraints.values())


def front(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The feasible trials that no other feasible trial beats in every objective, best first objective first."""
    feasible = [trial for trial in trials if is_feasible(trial)]
    feasible.sort(key=lambda trial: ([-value for value in trial.values], trial.number))
    kept: list[FrozenTrial] = []
    for trial in feasible:  # in this order, whatever dominates a trial stands before it
        if not any(dominates(other.values, trial.values) for other in kept):
            kept.append(trial)
    return sorted(kept, key=lambda trial: (-trial.values[0], trial.number))


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether a is as good as b in every objective and better in one."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


def rectangle(values: Sequence[float]) -> float:
    """What one LoRA is worth: style × composition, either taken as 0 when negative."""
    area = 1.0
    for value in values:
        area *= max(0.0, value)
    return area


def best(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The feasible trial with the largest rectangle; the earlier of equals."""
    return max(front(trials), key=lambda trial: (rectangle(trial.values), -trial.number), default=None)


def hypervolume(points: Sequence[Sequence[float]]) -> float:
    """The area under a front of two maximised objectives, seen from (0, 0)."""
    area, height = 0.0, 0.0
    for x, y in sorted(((max(0.0, x), max(0.0, y)) for x, y in points), reverse=True):
        area += x * max(0.0, y - height)
        height = max(height, y)
    return area


def stands_still(trials: Sequence[FrozenTrial], patience: int) -> bool:
    """Whether the area under the front is not larger than it was so many finished trials ago, and larger than 0."""
    before = hypervolume([trial.values for trial in front(trials[:-patience])])
    return 0 < hypervolume([trial.values for trial in front(trials)]) <= before


def why_not(trial: FrozenTrial) -> str:
    """The word yes, or why a trial does not count: the constraints it broke, or how it failed."""
    if trial.state == TrialState.COMPLETE:
        broken = [name for name, value in trial.constraints.items() if value > 0]
        return "no: " + ", ".join(broken) if broken else "yes"
    if trial.state == TrialState.FAIL:
        return "failed: " + str(trial.user_attrs.get("reason", "no reason recorded"))
    if trial.state == TrialState.PRUNED:
        return f"stopped {trial.user_attrs.get('stopped', 'early')}"
    return trial.state.name.lower()
