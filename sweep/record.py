"""What Optuna is told of a trial besides its values, from inside the job: constraints, attributes, the contact sheet.

All of it before the sweeper tells the values, after which Optuna takes nothing more; and once only, since a trial whose
process was killed between two of these is run again.
"""

from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.trial import Trial

from sweep.outcome import Outcome
from sweep.schema import Config
from sweep.study import live_trial, load_study, study_folder

ARTIFACTS = "artifacts"


def artifact_store(folder: Path) -> FileSystemArtifactStore:
    """The study's pictures, where the dashboard looks for them."""
    (folder / ARTIFACTS).mkdir(exist_ok=True)
    return FileSystemArtifactStore(folder / ARTIFACTS)


def record(outcome: Outcome, config: Config, folder: Path) -> None:
    """Sets everything on the trial, if the job belongs to one."""
    if outcome.number is None:
        return
    place = study_folder(config.study)
    study = load_study(place)
    trial = live_trial(study, outcome.number)
    # A base of another scale than FLUX's is the sandbox's, and what comes from it says so.
    study.set_user_attr("sandbox", config.base.scale != 1)
    best = outcome.best
    known = study.get_trials(deepcopy=False)[outcome.number].constraints
    for constraint, value in best.constraints.items():
        if constraint not in known:
            trial.set_constraint(constraint, value)
    attributes = {
        "captions": outcome.captions,
        "mix": outcome.mix,
        "lora": f"{folder.name}/{best.lora}",
        "strength": best.strength,
        "step": best.step,
        "timings": outcome.timings,
        "sheet": f"{folder.name}/{outcome.sheet}",
        "intervals": {k: list(v) for k, v in best.intervals.items()},
    }
    for key, attribute in attributes.items():
        trial.set_user_attr(key, attribute)
    _upload_sheet(study, trial, place, folder / outcome.sheet)


def _upload_sheet(study: optuna.Study, trial: Trial, place: Path, sheet: Path) -> None:
    # The dashboard's gallery takes the n-th artifact of every trial, so a trial has exactly one.
    if not get_all_artifact_meta(trial, storage=study._storage):
        upload_artifact(artifact_store=artifact_store(place), file_path=str(sheet), study_or_trial=trial)
