"""What a study found, as every view tells it: the ranking with its ties, what each number rests on, what mattered.

A trial is compared with the best one on the same prompts and seeds, picture by picture (`metrics.statistics.compare`).
Two trials tie when no objective tells them apart after Holm's correction; the rectangle only orders them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from metrics.settings import ScoreSettings
from metrics.statistics import Difference, compare, statistic_of
from sweep.checks import not_learned
from sweep.effects import Effect, effects, importances
from sweep.outcome import FILE, Outcome, outcome_of, unrelated
from sweep.rungs import Agreement, Rung, agreements, rungs_of
from sweep.study import best, front, is_feasible, rectangle, why_not
from sweep.summary import label, other_settings, ranked, settings_in_words

FINALS = Path("finalists") / "finalists.json"
COMPARED = 40  # feasible trials compared with the best: each costs two bootstraps
OBJECTIVES = ("style", "composition")


@dataclass(frozen=True)
class Entry:
    """A trial as the views show it."""

    trial: FrozenTrial
    outcome: Outcome | None  # None where there is none, or one that this version cannot read
    rank: int | None  # among the feasible, 1 for the best; ties share it; None for the others
    # To the best: "best" ("first" where none is called so), "tie", "trade-off", "behind", "not compared"; or ""
    relation: str
    behind: Mapping[str, Difference]  # objective -> best minus this one
    on_front: bool

    @property
    def number(self) -> str:
        """The number as it names the trial's folder."""
        return f"{self.trial.number:04d}"

    @property
    def scored(self) -> bool:
        """Whether there are values."""
        return self.trial.state == TrialState.COMPLETE

    @property
    def feasible(self) -> bool:
        """Whether every constraint is kept."""
        return is_feasible(self.trial)

    @property
    def broken(self) -> dict[str, float]:
        """The constraints it broke, and by how much."""
        return {name: value for name, value in self.trial.constraints.items() if value > 0}

    @property
    def verdict(self) -> str:
        """The word yes, or why the trial does not count."""
        return why_not(self.trial)

    @property
    def given(self) -> bool:
        """Whether its LoRA was trained elsewhere, and was scored as it is."""
        return bool(self.outcome and self.outcome.config.get("eval", {}).get("lora"))

    @property
    def words(self) -> tuple[str, str]:
        """Captions and mix."""
        return settings_in_words(self.trial)

    @property
    def label(self) -> str:
        """What was tried, in a line."""
        return label(self.trial)

    @property
    def other_settings(self) -> list[str]:
        """Parameters that captions and mix do not say: learning rate 0.003."""
        return other_settings(self.trial)

    @property
    def rungs(self) -> list[Rung]:
        """What it was worth on its way, in the order it came."""
        return sorted(rungs_of(self.trial).values(), key=lambda rung: rung.step)

    @property
    def rectangle(self) -> float:
        """style × composition; 0 without values."""
        return rectangle(self.trial.values) if self.scored else 0.0

    def interval(self, objective: str) -> tuple[float, float] | None:
        """The interval of an objective over prompts and seeds."""
        bounds = self.trial.user_attrs.get("intervals", {}).get(objective)
        return (float(bounds[0]), float(bounds[1])) if bounds else None

    @property
    def prompts(self) -> int:
        """On how many prompts the objectives rest; 0 if unknown."""
        return len(unrelated(self.outcome)) if self.outcome else 0


@dataclass(frozen=True)
class Final:
    """One finalist: a recipe trained anew, several times, and scored on prompts that no search has seen."""

    number: int  # of its trial
    values: Mapping[str, float]  # objective -> mean over the trainings
    intervals: Mapping[str, Sequence[float]]
    searched: Mapping[str, float]  # what the search had found
    feasible: Sequence[bool]  # of each training
    relation: str  # to the first: "first", "tie", "behind" or "trade-off"
    broken: Mapping[str, int] = field(default_factory=dict)  # constraint -> in how many trainings


@dataclass(frozen=True)
class Finals:
    """What `sweep.finalists` found, best first."""

    verdict: str
    rows: list[Final]

    @property
    def winner(self) -> int | None:
        """The trial that came first, if it kept every constraint in every training."""
        return self.rows[0].number if self.rows and all(self.rows[0].feasible) else None


@dataclass(frozen=True)
class Findings:
    """What all views say of one study."""

    study: optuna.Study
    folder: Path
    names: list[str]  # of the objectives
    entries: list[Entry]  # best first, then the infeasible, then those without values
    effects: dict[str, list[Effect]]  # outcome -> effect of every level of every factor
    importances: dict[str, dict[str, float]]  # objective -> parameter -> share
    agreements: list[Agreement]  # how well the values on a trial's way foretold those at its end
    unreadable: list[str]  # trials whose outcome.json is of another version
    finals: Finals | None  # None before `sweep.finalists` has run
    unlearned: str  # why no usable LoRA is worth having yet; empty where one has the style, or none is usable

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.study_name

    @property
    def sandbox(self) -> bool:
        """Whether the pictures come from the sandbox."""
        return bool(self.study.user_attrs.get("sandbox"))

    @property
    def best(self) -> Entry | None:
        """The winner of the final; without one, the feasible trial with the largest rectangle; see `doubt`."""
        return next((entry for entry in self.entries if entry.relation in ("best", "first")), None)

    @property
    def doubt(self) -> str:
        """Why the first of the usable is not called best; empty where nothing speaks against it."""
        return self.unlearned or (self.finals.verdict if self.finals and self.finals.winner is None else "")

    @property
    def first(self) -> str:
        """What it is called."""
        return "the first" if self.doubt else "the best"

    @property
    def ties(self) -> list[Entry]:
        """What cannot be told from the best."""
        return [entry for entry in self.entries if entry.relation == "tie"]

    def of(self, kind: str) -> list[Entry]:
        """The entries of one kind: scored, feasible, infeasible, failed, pruned, unfinished or front."""
        return [entry for entry in self.entries if KINDS[kind](entry)]


KINDS = {
    "scored": lambda entry: entry.scored,
    "feasible": lambda entry: entry.feasible,
    "infeasible": lambda entry: entry.scored and not entry.feasible,
    "failed": lambda entry: entry.trial.state == TrialState.FAIL,
    "pruned": lambda entry: entry.trial.state == TrialState.PRUNED,
    "unfinished": lambda entry: not entry.trial.state.is_finished(),
    "front": lambda entry: entry.on_front,
}


def find(study: optuna.Study, folder: Path) -> Findings:
    """Reads a study and its outcomes, however many of them there are."""
    trials = study.get_trials(deepcopy=False)
    names = list(study.metric_names or [f"value {i}" for i in range(len(study.directions))])
    outcomes = {trial.number: outcome_of(trial, folder) for trial in trials}
    scored = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    finals = read_finals(folder)
    unlearned = not_learned(trials, names)
    doubted = unlearned or (finals is not None and finals.winner is None)
    return Findings(
        study=study,
        folder=folder,
        names=names,
        entries=_entries(trials, outcomes, finals.winner if finals else None, "first" if doubted else "best"),
        effects=_effects(scored, names),
        importances={name: importances(study, index) for index, name in enumerate(names)},
        agreements=agreements(trials, names),
        unreadable=[
            f"{t.number:04d}"
            for t in trials
            if outcomes[t.number] is None and (folder / f"{t.number:04d}" / FILE).is_file()
        ],
        finals=finals,
        unlearned=unlearned,
    )


def read_finals(folder: Path) -> Finals | None:
    """What `sweep.finalists` wrote; None if it did not, or another version of it did."""
    known = {known.name for known in fields(Final)}
    try:
        stored = json.loads((folder / FINALS).read_text(encoding="utf-8"))
        rows = [Final(**{key: value for key, value in row.items() if key in known}) for row in stored["finalists"]]
        return Finals(str(stored["verdict"]), rows)
    except (OSError, KeyError, TypeError, json.JSONDecodeError):
        return None


def _entries(
    trials: Sequence[FrozenTrial], outcomes: Mapping[int, Outcome | None], winner: int | None, called: str
) -> list[Entry]:
    top = next((trial for trial in trials if trial.number == winner), None) or best(trials)
    kept = {trial.number for trial in front(trials)}
    order = sorted(ranked(trials), key=lambda trial: trial is not top)
    feasible = [trial for trial in order if is_feasible(trial)]
    behind = _behind(top, feasible[:COMPARED], outcomes)
    entries = []
    for place, trial in enumerate(order, start=1):
        differences = behind.get(trial.number, {})
        relation = called if trial is top else _relation(trial, top, differences)
        rank = (1 if relation in (called, "tie") else place) if is_feasible(trial) else None
        entries.append(Entry(trial, outcomes[trial.number], rank, relation, differences, on_front=trial.number in kept))
    return entries


def _relation(trial: FrozenTrial, top: FrozenTrial | None, behind: Mapping[str, Difference]) -> str:
    if top is None or not is_feasible(trial):
        return ""
    if not behind:
        return "tie" if trial.values == top.values else "not compared"
    clear = [difference.value > 0 for difference in behind.values() if not difference.tie]
    if not clear:
        return "tie"
    return "behind" if all(clear) else "trade-off"


def _behind(
    top: FrozenTrial | None, others: Sequence[FrozenTrial], outcomes: Mapping[int, Outcome | None]
) -> dict[int, dict[str, Difference]]:
    """Best minus every other trial that was scored on the same pictures, by trial and objective."""
    reference = outcomes[top.number] if top is not None else None
    if top is None or reference is None:
        return {}
    shown = [_pictures(reference), list(reference.best.per_image)]
    compared = {
        trial.number: outcome
        for trial in others
        if (outcome := outcomes[trial.number]) is not None
        and [_pictures(outcome), list(outcome.best.per_image)] == shown
    }
    if len(compared) < 2 or not set(OBJECTIVES) <= set(reference.best.per_image):
        return {}
    chosen = unrelated(reference)
    texts = [reference.config["eval"]["prompts"][i]["text"] for i in chosen]
    settings = score_settings(reference)
    found: dict[int, dict[str, Difference]] = {number: {} for number in compared if number != top.number}
    for name in OBJECTIVES:
        values = {str(n): [o.best.per_image[name][i] for i in chosen] for n, o in compared.items()}
        differences = compare(
            values,
            texts,
            against=str(top.number),
            statistic=statistic_of(name, settings),
            samples=settings.bootstrap_samples,
            confidence=settings.confidence,
            seed=settings.seed,
        )
        for number, difference in differences.items():
            found[int(number)][name] = difference
    return found


def _pictures(outcome: Outcome) -> list[tuple[object, ...]]:
    prompts = outcome.config.get("eval", {}).get("prompts", [])
    return [(prompts[i].get("text"), prompts[i].get("seed"), prompts[i].get("width")) for i in unrelated(outcome)]


def score_settings(outcome: Outcome) -> ScoreSettings:
    """How the outcome's objectives and intervals were computed."""
    stored = outcome.config.get("score", {})
    names = ("tail_weight", "tail_share", "gain_cap", "confidence", "bootstrap_samples", "seed")
    return ScoreSettings(**{name: stored[name] for name in names if name in stored})


def _effects(scored: Sequence[FrozenTrial], names: Sequence[str]) -> dict[str, list[Effect]]:
    found = {name: effects(scored, [t.values[i] for t in scored]) for i, name in enumerate(names)}
    if list(names[:2]) == list(OBJECTIVES):
        styles = [trial.values[0] for trial in scored]
        found["composition at equal style"] = effects(scored, [t.values[1] for t in scored], matched=styles)
    return {name: list_ for name, list_ in found.items() if list_}
