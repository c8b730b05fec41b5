"""What a person watching a sweep reads: one line per event, at 80 columns, the same in a terminal and in a log file."""

import statistics
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from sweep.checks import MORE, flagged, has_style, measured, not_learned, style_reached
from sweep.lines import StepProgress, console, duration, shown
from sweep.numbers import plural
from sweep.outcome import Outcome
from sweep.recipes import Recipe
from sweep.settings import SearchSettings
from sweep.space import Arguments, ranges
from sweep.study import FINISHED, best, hypervolume, rectangle, why_not
from sweep.summary import print_summary, scores, verdict
from sweep.typed import folded


class SweepProgress:
    """The lines of a whole sweep."""

    def __init__(self, search: SearchSettings, folder: Path, slots: int = 1) -> None:
        self.search = search
        self.folder = folder
        self.slots = slots  # trials that this command runs at once
        self.console = console()

    def start(self, study: optuna.Study, given: Arguments, misfits: Sequence[Recipe]) -> None:
        """What is about to happen, and which choices and recipes cannot be part of it."""
        trials = study.get_trials(deepcopy=False)
        done = sum(trial.state in FINISHED for trial in trials)
        left = max(0, self.search.n_trials - done)
        self.console.print(
            f"study {study.study_name}: {plural(self.search.n_trials, 'trial')}, {done} done, {left} to run"
        )
        self.console.print(f"  in {shown(self.folder)}", soft_wrap=True)
        self.console.print(f"  searching {ranges(given.space)}")
        for choice in given.left_out:
            self.console.print(f"  without {choice}")
        queued = [t.user_attrs["recipe"] for t in trials if t.state == TrialState.WAITING and "recipe" in t.user_attrs]
        if queued:
            self.console.print(f"  known recipes first: {', '.join(queued)}")
        for reason in dict.fromkeys(recipe.misfit for recipe in misfits):
            names = ", ".join(recipe.name for recipe in misfits if recipe.misfit == reason)
            self.console.print(f"  left out {names}: {reason}", style="dim")

    def begin(self, trial: Trial, trials: Sequence[FrozenTrial]) -> None:
        """Trial i of n, what it tries, and how long the rest will take.

        Args:
            trials: of the study, this one among them or not.
        """
        done = [other for other in trials if other.state in FINISHED]
        complete = [trial for trial in done if trial.state == TrialState.COMPLETE]
        seconds = [trial.user_attrs["seconds"] for trial in complete if "seconds" in trial.user_attrs]
        running = {other.number for other in trials if other.state == TrialState.RUNNING} | {trial.number}
        begun = len(done) + len(running)
        rounds = ceil(max(1, self.search.n_trials - len(done)) / max(self.slots, len(running)))
        eta = f", about {duration(statistics.median(seconds) * rounds)} left" if seconds else ""
        recipe = trial.user_attrs.get("recipe")
        self.console.print(
            f"\ntrial {begun} of {max(self.search.n_trials, begun)} ({trial.number:04d}){eta}"
            + (f"  recipe {recipe}" if recipe else "")
        )
        self._print(" ".join(f"{key}={value}" for key, value in trial.params.items()))
        if "drawn_instead_of" in trial.user_attrs:
            old = trial.user_attrs["drawn_instead_of"]
            self.console.print(f"  drawn instead of trial {old:04d} again, which the sampler proposed")

    def end(self, trial: FrozenTrial, on_front: Sequence[FrozenTrial]) -> None:
        """What came of it, and what is best so far."""
        took = duration(trial.user_attrs.get("seconds", 0))
        if trial.state == TrialState.COMPLETE:
            self._print(f"{scores(self.search.objectives, trial)}, {verdict(trial)}, in {took}")
        else:
            self._print(f"{why_not(trial)} (after {took}; the study goes on)")
        self._print(best_line(self.search, on_front))

    def say(self, text: str) -> None:
        """A line of its own, between trials."""
        self.console.print(f"\n{folded(text)}", soft_wrap=True)

    def finish(self, study: optuna.Study) -> None:
        """The ranking and where to look; where there are pictures also the report and the other views."""
        print_summary(self.console, study, self.folder)
        if any("sheet" in trial.user_attrs for trial in study.get_trials(deepcopy=False)):
            from sweep.views import write_views  # its libraries take a second to load

            write_views(study, self.folder, self.say_below)

    def say_plainly(self, text: str) -> None:
        """A line as it is: a slot's."""
        self.console.print(text, soft_wrap=True)

    def say_below(self, text: str) -> None:
        """A line under the summary."""
        self._print(text)

    def _print(self, text: str) -> None:
        self.console.print(folded(text, "  "), soft_wrap=True)


def best_line(search: SearchSettings, on_front: Sequence[FrozenTrial]) -> str:
    """Best so far: the feasible trial with the largest rectangle, and the area under the whole front."""
    top = best(on_front)
    if top is None:
        return "best so far: none is usable yet"
    line = f"best so far: {top.number:04d} ({scores(search.objectives, top)})"
    if not_learned(on_front, search.objectives):
        return f"{line}, and the style is not learned yet"
    if len(search.objectives) != 2:
        return line
    whole = hypervolume([trial.values for trial in on_front])
    return line + f", area {rectangle(top.values):.3f} of front {whole:.3f}"


def print_outcome(outcome: Outcome, folder: Path, steps: StepProgress) -> None:
    """Says what one configuration was worth, and where it lies."""
    best = outcome.best
    for name, value in (("style", best.style), ("composition", best.composition)):
        low, high = best.intervals.get(name, (value, value))
        steps.say(f"{name:<12} {value:.3f}  (95 % of resamples: {low:.3f} to {high:.3f})")
    for name, value in best.constraints.items():
        beside = (
            f"{abs(value):.3f} {'over' if value > 0 else 'below'} its limit" if abs(value) > 5e-4 else "at its limit"
        )
        found = ", ".join(filter(None, measured(name, value, outcome))) or beside
        steps.say(f"{name:<12} {'broken' if value > 0 else 'kept'}: {found}")
    for line in flagged(outcome):
        steps.say(f"{'marked':<12} {line}")
    if not has_style(best.style, best.intervals.get("style")):
        reached = style_reached(best.style, best.intervals.get("style"))
        steps.say(f"{'':<12} The style is not learned yet, {reached}: {MORE}.")
    steps.say("seconds      " + ", ".join(f"{part} {seconds:.1f}" for part, seconds in outcome.timings.items()))
    steps.say(f"LoRA         {folder / best.lora}\npictures     {folder / outcome.sheet}")
