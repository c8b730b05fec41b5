"""What Optuna is told of a trial besides its values, from inside the job: constraints, attributes, the contact sheet.

All of it before the sweeper tells the values, after which Optuna takes nothing more; and once only, since a trial whose
process was killed between two of these is run again.
"""

import json
import mimetypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from uuid import UUID

import optuna
from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore

from sweep.examples import SHEET
from sweep.given import recipe_words
from sweep.outcome import Outcome
from sweep.rungs import Rung, longest_budget, reach, rung_steps, rungs_of, shared_rungs
from sweep.schema import Config
from sweep.settings import study_folder
from sweep.study import live_trial, load_study
from trainer.plan import Plan

ARTIFACTS = "artifacts"
PLAN = "plan.txt"
WARNINGS = "warnings.txt"  # of a study, each once
TIMINGS = "timings"  # seconds by part, an attribute of a trial


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
        "lora": str(Path(folder.name) / best.lora),  # absolute for one that lies elsewhere
        "strength": best.strength,
        "step": best.step,
        TIMINGS: _rounded(outcome.timings),
        "sheet": f"{folder.name}/{outcome.sheet}",
        # The dashboard shows them in one line that does not break: only what the views need, outcome.json has all.
        "intervals": {
            name: [round(bound, 4) for bound in best.intervals[name]]
            for name in ("style", "composition")
            if name in best.intervals
        },
    }
    for key, attribute in attributes.items():
        trial.set_user_attr(key, attribute)
    for position, file in enumerate((outcome.sheet, PLAN)):
        if (folder / file).is_file():
            name, meta = _stored(place, folder / file, f"{position}", f"{study.study_name}/{outcome.number}/{file}")
            study._storage.set_trial_system_attr(trial._trial_id, f"artifacts:{name}", meta)


def begin(config: Config, number: int) -> None:
    """Notes on the trial what it trains on, so that one which ends early or badly says so as well."""
    trial = live_trial(load_study(study_folder(config.study)), number)
    captions, mix = recipe_words(config)
    trial.set_user_attr("captions", captions)
    trial.set_user_attr("mix", mix)


def ended_early(config: Config, number: int, seconds: Mapping[str, float]) -> None:
    """Notes on a trial that stopped at a rung where its seconds went: it has no outcome that says so."""
    live_trial(load_study(study_folder(config.study)), number).set_user_attr(TIMINGS, _rounded(seconds))


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {part: round(value, 1) for part, value in seconds.items()}


def warn(warnings: Sequence[str], say: Callable[[str], None], folder: Path, number: int | None) -> None:
    """Says warnings; of a study's trials each of them once, and keeps them in its folder, to be read in one place.

    Args:
        folder: of the trial.
        number: of the trial; None outside of a study, where all are said.
    """
    file = folder.parent / WARNINGS
    said = file.read_text(encoding="utf-8").splitlines() if number is not None and file.is_file() else []
    new = {" ".join(warning.split()): warning for warning in warnings if " ".join(warning.split()) not in said}
    for warning in new.values():
        say(f"warning: {warning}")
    if new and number is not None:
        with file.open("a", encoding="utf-8") as kept:
            kept.writelines(f"{line}\n" for line in new)


def rungs_ahead(config: Config, number: int, plan: Plan, passed: Callable[[Rung], None]) -> dict[int, int]:
    """Step -> part of the budget, where a trial is still to be scored.

    Args:
        passed: is told of those rungs where it need not be, as an equal training has been; they are noted on it here.

    Raises:
        Stopped: if it should end at one of these.
    """
    study = load_study(study_folder(config.study))
    trials = study.get_trials(deepcopy=False)
    own, budget = trials[number], config.train.budget
    rungs = rung_steps(plan, budget, longest_budget(budget, own.distributions))
    known = shared_rungs(own, trials)
    for step in sorted(rungs.keys() & known.keys()):
        rung = replace(known[step], part=rungs.pop(step))
        passed(rung)
        reach(study, number, rung, config.search.stopping)
    return rungs


def at_rung(config: Config, number: int, part: int, score: Callable[[], Rung | None]) -> None:
    """Notes a rung on the trial, scored unless an earlier run has done so.

    Raises:
        Stopped: if it should.
    """
    study = load_study(study_folder(config.study))
    rung = rungs_of(study.get_trials(deepcopy=False)[number]).get(part) or score()
    if rung is not None:
        reach(study, number, rung, config.search.stopping)


def attach_caption_sheet(study: optuna.Study, place: Path) -> None:
    """Makes the study's caption sheet, if it has one, an artifact of the study; a changed sheet is a new one."""
    file = place / SHEET
    if file.is_file():
        name, meta = _stored(place, file, "0", f"{study.study_name}/{file.read_bytes()!r}")
        study._storage.set_study_system_attr(study._study_id, f"artifacts:{name}", meta)


def _stored(place: Path, file: Path, first: str, identity: str) -> tuple[str, str]:
    """Stores a file as an artifact; returns its id and what Optuna keeps about it. A second time changes nothing.

    `optuna.artifacts.upload_artifact` draws the id at random, by which SQLite sorts; the dashboard's gallery shows the
    n-th artifact of every trial side by side, so that it would mix sheets and plans. Here `first` orders them.
    """
    digest = blake2b(identity.encode(), digest_size=16).hexdigest()
    name = str(UUID(f"{first}{digest[1:]}"))
    mimetype = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    meta = ArtifactMeta(artifact_id=name, filename=file.name, mimetype=mimetype, encoding=None)
    with file.open("rb") as content:
        artifact_store(place).write(name, content)
    return name, json.dumps(asdict(meta))
