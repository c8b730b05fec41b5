"""`python -m sweep.rate [STUDY]`: which finalist's pictures do you prefer, and do the scores agree with you?

Opens optuna-dashboard's own page for preferences with the contact sheets of the best trials: click the one you like
least, until one is left. Ctrl-C ends it and says how often the scores prefer what you prefer; so does --agreement.
Your choices are kept beside the study's trials, as a study of their own named STUDY-rating.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import optuna
from optuna.artifacts import upload_artifact

from sweep.contact_sheet import plain_sheet
from sweep.dashboard import add_address, serve
from sweep.database import storage
from sweep.errors import InputError
from sweep.findings import Entry, Findings, find
from sweep.naming import add_study, find_study
from sweep.numbers import plural
from sweep.record import artifact_store
from sweep.study import load_study, rectangle
from sweep.typed import refuse

SHOWN = 6  # sheets a person can keep in mind
KEY = "sheet"  # attribute that names the artifact to show
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Agreement:
    """How often scores and person prefer the same of two trials."""

    agreed: int
    pairs: int
    low: float  # of the share, 95 %
    high: float

    def __str__(self) -> str:
        if self.pairs == 0:
            return "No pair has been judged yet."
        share = self.agreed / self.pairs
        return (
            f"The scores agree with you on {self.agreed} of {self.pairs} pairs ({share:.0%}, 95 % interval"
            f" {self.low:.0%} to {self.high:.0%}); a coin would agree on half. Pairs of one click hang together, so the"
            " interval is the narrowest it can be."
        )


def rating_study(found: Findings) -> optuna.Study:
    """The study that keeps a person's choices, with the sheets of the best trials; opened again if it is there.

    Raises:
        InputError: if fewer than two trials have a sheet.
    """
    from optuna_dashboard import register_preference_feedback_component
    from optuna_dashboard.preferential import create_study

    rated = [entry for entry in found.of("scored") if _sheet(found, entry.trial).is_file()][:SHOWN]
    if len(rated) < 2:
        raise InputError(
            f"the study {found.name} has {plural(len(rated), 'contact sheet')}: two are needed for a preference"
        )
    Random(found.name).shuffle(rated)  # the best must not always stand first
    place = storage(found.folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # preferential studies are experimental in optuna-dashboard
        made = create_study(
            n_generate=len(rated),
            storage=place,
            sampler=optuna.samplers.RandomSampler(),
            study_name=name_of(found.name),
            load_if_exists=True,
        )
        known = {trial.user_attrs.get("trial") for trial in made.get_trials(deepcopy=False)}
        for entry in rated:
            if entry.trial.number in known:
                continue
            trial = made.ask()
            trial.set_user_attr("trial", entry.trial.number)
            trial.set_user_attr("rectangle", rectangle(entry.trial.values))
            trial.set_user_attr(KEY, _upload(found, entry, trial))
        register_preference_feedback_component(made, "artifact", KEY)
    return optuna.load_study(study_name=made.study_name, storage=place, sampler=optuna.samplers.RandomSampler())


def _upload(found: Findings, entry: Entry, trial: optuna.Trial) -> str:
    """The sheet without its title and marks, which have the scores in them; returns the artifact's id."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "sheet.png"
        plain_sheet(_sheet(found, entry.trial)).save(file)
        store = artifact_store(found.folder)
        return str(upload_artifact(artifact_store=store, file_path=str(file), study_or_trial=trial))


def name_of(study: str) -> str:
    """The name of a study's ratings."""
    return f"{study}-rating"


def _sheet(found: Findings, trial: optuna.trial.FrozenTrial) -> Path:
    return found.folder / str(trial.user_attrs.get("sheet", "none"))


def agreement(rating: optuna.Study) -> Agreement:
    """Compares every pair a person has judged with the rectangles style × composition of the two trials."""
    from optuna_dashboard.preferential._system_attrs import get_preferences

    pairs = get_preferences(rating._storage.get_study_system_attrs(rating._study_id))
    areas = [float(trial.user_attrs.get("rectangle", 0.0)) for trial in rating.get_trials(deepcopy=False)]
    return count(pairs, areas)


def count(pairs: Sequence[Sequence[int]], areas: Sequence[float]) -> Agreement:
    """Counts the pairs (better, worse) in which the better one's area is larger."""
    agreed = sum(areas[better] > areas[worse] for better, worse in pairs)
    if not pairs:
        return Agreement(0, 0, 0.0, 1.0)
    from scipy import stats  # half of a command's start, for what is asked at its end

    bounds = stats.binomtest(agreed, len(pairs)).proportion_ci(CONFIDENCE, method="wilson")
    return Agreement(agreed, len(pairs), float(bounds.low), float(bounds.high))


def main(arguments: list[str]) -> None:
    """Serves the page of preferences until Ctrl-C, then says how the scores did."""
    parser = argparse.ArgumentParser(prog="python -m sweep.rate", description=__doc__.split("\n\n")[0])
    add_study(parser)
    parser.add_argument("--agreement", action="store_true", help="say how the scores did so far, and open nothing")
    add_address(parser)
    given = parser.parse_args(arguments)
    try:
        folder = find_study(given.study)
        rating = rating_study(find(load_study(folder), folder))
        if not given.agreement:
            page = f"http://{given.host}:{given.port}/dashboard/studies/{rating._study_id}"
            print(f"click what you like least at {page}   (Ctrl-C ends it)", flush=True)
            serve(folder, given.host, given.port)
        print(agreement(rating))
    except InputError as fault:
        refuse(fault)


if __name__ == "__main__":
    main(sys.argv[1:])
