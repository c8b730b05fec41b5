"""The end of a sweep in a terminal: ranking, Pareto front, and what to type next."""

import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console
from rich.table import Table

from sweep.checks import broken_in_words, flagged, not_learned
from sweep.effects import KEY, REPEATS, level_in_words
from sweep.outcome import outcome_of
from sweep.study import best, front, is_feasible, rectangle, why_not
from sweep.typed import folded, python, typed

CANNOT_SAY = "From the sandbox: what is best here is no promise for FLUX.1-dev."

NONE = "no settings"
REASONS = 6  # different reasons that are listed below the table, and trials named for each
LISTED = 60  # trials in the table, as on the report's page
ONE_LINE = 19  # characters of a mix that fit beside the rest at 80 columns


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Feasible ones by rectangle, then the infeasible by rectangle, then the rest by number."""

    def key(trial: FrozenTrial) -> tuple[bool, bool, float, int]:
        scored = trial.state == TrialState.COMPLETE
        return (not is_feasible(trial), not scored, -rectangle(trial.values) if scored else 0.0, trial.number)

    return sorted((t for t in trials if t.state != TrialState.WAITING), key=key)


def settings_in_words(trial: FrozenTrial) -> tuple[str, str]:
    """Captions and mix as the trial noted them, or as its parameters say."""
    params = {key: str(value) for key, value in trial.params.items()}
    captions = str(trial.user_attrs.get("captions", params.get("captions", "")))
    repeats = {int(k.removeprefix(REPEATS)): v for k, v in trial.params.items() if k.startswith(REPEATS)}
    sides = "+".join(f"{side}x{repeats[side]}" for side in sorted(repeats) if repeats[side])
    return captions, str(trial.user_attrs.get("mix", sides or params.get("mix", "")))


def other_settings(trial: FrozenTrial) -> list[str]:
    """Parameters that captions and mix do not say: learning rate 0.003."""
    captions, mix = settings_in_words(trial)
    said = {"captions", "mix"} if captions or mix else set()
    hidden = REPEATS if mix else "\0"  # the words "512x3+768x2" hold them already
    return [level_in_words(k, v) for k, v in trial.params.items() if k not in said and not k.startswith(hidden)]


def label(trial: FrozenTrial) -> str:
    """What was tried, in a line: edited 512x3+768x2, learning rate 0.003."""
    return ", ".join(filter(None, [" ".join(filter(None, settings_in_words(trial))), *other_settings(trial)])) or NONE


def counts_in_words(trials: Sequence[FrozenTrial], *, alive: bool = True) -> str:
    """What became of them: 3 usable, 9 ruled out, 1 failed.

    Args:
        alive: whether somebody runs the study; if nobody does, what has begun was interrupted.
    """
    states = [trial.state for trial in trials]
    usable = sum(map(is_feasible, trials))
    counts = {
        "usable": usable,
        "ruled out": states.count(TrialState.COMPLETE) - usable,
        "stopped early": states.count(TrialState.PRUNED),
        "failed": states.count(TrialState.FAIL),
        "running" if alive else "interrupted": states.count(TrialState.RUNNING),
        "waiting": states.count(TrialState.WAITING),
    }
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


def scores(names: Sequence[str], trial: FrozenTrial) -> str:
    """The values by name: style 0.610, composition 0.720."""
    return ", ".join(f"{name} {value:.3f}" for name, value in zip(names, trial.values, strict=True))


def verdict(trial: FrozenTrial) -> str:
    """Of a trial with values: usable, or ruled out by some checks."""
    return "usable" if is_feasible(trial) else f"ruled out: {why_not(trial).removeprefix('no: ')}"


def trials_table(trials: Sequence[FrozenTrial], names: Sequence[str], limit: int | None = None) -> Table:
    """One row per trial, best first, at most `limit` of them; fits 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("trial", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    words = any(any(settings_in_words(trial)) for trial in trials)
    others = any(map(other_settings, trials))
    columns = ("captions", "mix and others" if others else "mix") if words else ("parameters",)
    table.add_column("usable", overflow="fold")
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=words)
    for trial in ranked(trials)[:limit]:
        values = [f"{v:.3f}" for v in trial.values] if trial.state == TrialState.COMPLETE else _on_the_way(trial, names)
        captions, mix = settings_in_words(trial)
        told = [mix if len(mix) <= ONE_LINE else mix.replace("+", " + "), *other_settings(trial)]
        wrapped = "\n".join(textwrap.fill(part, ONE_LINE) for part in told if part)
        what = (captions, wrapped) if words else (" ".join(f"{k}={v}" for k, v in trial.params.items()),)
        table.add_row(f"{trial.number:04d}", *values, _shortly(trial), *what)
    return table


def print_trials(console: Console, trials: Sequence[FrozenTrial], names: Sequence[str], limit: int) -> None:
    """The table of the best, how many more there are, and what ruled out or ended the others."""
    console.print(trials_table(trials, names, limit))
    if len(trials) > limit:
        console.print(f"… and {len(trials) - limit} more, in the report")
    for line in reasons(trials):
        console.print(folded(line, "  "), soft_wrap=True)


def _shortly(trial: FrozenTrial) -> str:
    """Whether it counts; why it has no values has no room in a column."""
    return {TrialState.FAIL: "failed", TrialState.PRUNED: "stopped early"}.get(trial.state) or why_not(trial)


def reasons(trials: Sequence[FrozenTrial]) -> list[str]:
    """Why trials have no values, a line for each reason."""
    told: dict[str, list[str]] = {}
    for trial in trials:
        if trial.state in (TrialState.FAIL, TrialState.PRUNED):
            told.setdefault(why_not(trial), []).append(f"{trial.number:04d}")
    lines = [
        f"{', '.join(numbers[:REASONS])}{', …' if len(numbers) > REASONS else ''} {reason}"
        for reason, numbers in list(told.items())[:REASONS]
    ]
    left = sum(map(len, list(told.values())[REASONS:]))
    return lines + [f"… and {left} more without values"] * (left > 0)


def _on_the_way(trial: FrozenTrial, names: Sequence[str]) -> list[str]:
    """What a trial that was stopped early had, in brackets as it is of few prompts; dashes for one without values."""
    reached = trial.user_attrs.get("rungs", []) if trial.state == TrialState.PRUNED else []
    return [f"({v:.3f})" for v in reached[-1]["values"]] if reached else ["–"] * len(names)


def print_summary(console: Console, study: optuna.Study, folder: Path) -> None:
    """Table, front and the next commands."""
    trials = study.get_trials(deepcopy=False)
    names = study.metric_names or [f"value {i}" for i in range(len(study.directions))]
    console.print()
    if trials:
        print_trials(console, trials, names, LISTED)
    kept = front(trials)
    if kept:
        console.print("Pareto front (usable, no other is better in everything):")
        for trial in kept:
            line = f"{trial.number:04d}  {scores(names, trial)}  {label(trial)}".rstrip()
            console.print(folded(line, "  "), soft_wrap=True)
    else:
        console.print(folded(_none_usable(trials, folder)), soft_wrap=True)
    top, doubt = best(trials), not_learned(trials, names)
    if doubt:
        console.print(folded(doubt), soft_wrap=True)
    elif top is not None and "lora" in top.user_attrs:
        console.print(f"Best LoRA: {typed(folder / str(top.user_attrs['lora']))}", soft_wrap=True)
        if "strength" in top.user_attrs:
            console.print(f"  to be applied at strength {top.user_attrs['strength']:g}")
    if study.user_attrs.get("sandbox"):
        console.print(CANNOT_SAY)
    if any("lora" in trial.user_attrs for trial in trials):
        given = any(KEY in trial.params for trial in trials)
        _print_next(console, study, folder, finalists=bool(kept) and not doubt and not given)


def _none_usable(trials: Sequence[FrozenTrial], folder: Path) -> str:
    if any(trial.state == TrialState.COMPLETE for trial in trials):
        return (
            f"No trial is usable: the column `usable` says which check ruled each one out.\n{nearest(trials, folder)}"
        )
    return "No trial was scored." if trials else "No trial has run yet."


def nearest(trials: Sequence[FrozenTrial], folder: Path) -> str:
    """Which ruled-out trial broke its limits by the least, and by which pictures; empty where none has values."""
    scored = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not scored:
        return ""
    trial = min(scored, key=lambda trial: (round(_over(trial), 6), -rectangle(trial.values), trial.number))
    outcome = outcome_of(trial, folder)
    which = f" Its marked pictures: {'; '.join(marked)}." if outcome and (marked := flagged(outcome)) else ""
    return f"The nearest is trial {trial.number:04d}, ruled out by {broken_in_words(trial, outcome)}.{which}"


def _over(trial: FrozenTrial) -> float:
    return sum(max(0.0, value) for value in trial.constraints.values())


def study_in_words(name: str, folder: Path) -> str:
    """What says which study on a command line: study.name=night, and where it lies unless that is multirun/."""
    where = f" study.folder={typed(folder.parent)}" if folder.parent != Path.cwd() / "multirun" else ""
    return f"study.name={shlex.quote(name)}{where}"


def _print_next(console: Console, study: optuna.Study, folder: Path, *, finalists: bool) -> None:
    which = study_in_words(study.study_name, folder)
    lines = [
        f"{python()} -m sweep.dashboard {typed(folder)}",
        f"{python()} -m sweep.report {which}",
        *[f"{python()} -m sweep.finalists {which}"] * finalists,
        f"{python()} -m sweep -m data=folder data.path=MY_PICTURES \\",
        "    data.references=HELD_OUT_PICTURES base=flux1_dev",
    ]
    console.print("\nNext:")
    for line in lines:
        console.print(f"  {line}", soft_wrap=True)  # a command broken at 80 columns could not be copied
