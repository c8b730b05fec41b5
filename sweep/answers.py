"""The six questions a person has after a night's sweep, answered in plain sentences; every view opens with them."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metrics.statistics import Difference
from sweep.effects import Effect
from sweep.findings import OBJECTIVES, Entry, Findings, unrelated
from sweep.typed import python, typed


@dataclass(frozen=True)
class Answer:
    """A question and what the study says to it."""

    question: str
    text: str
    detail: str = ""  # a second sentence: what the answer rests on
    code: str = ""  # a command to type


def answers(found: Findings) -> list[Answer]:
    """All six, also for a study that has no answer yet."""
    return [
        Answer("What is best?", *_best(found)),
        Answer("By how much?", *_by_how_much(found)),
        Answer("How sure is that?", *_how_sure(found)),
        Answer("Which factor mattered?", *_factor(found)),
        Answer("What do the pictures look like?", *_pictures(found)),
        Answer("How do I get this LoRA?", *_get(found)),
    ]


def state(found: Findings) -> str:
    """How far the study is and what became of its trials, in a line."""
    counts = [
        (len(found.of("feasible")), "feasible"),
        (len(found.of("infeasible")), "broke a constraint"),
        (len(found.of("pruned")), "stopped early"),
        (len(found.of("failed")), "failed"),
        (len(found.of("unfinished")), "not finished"),
    ]
    said = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"{plural(len(found.entries), 'trial')}: {said}" if said else "no trial has run yet"


def plural(count: int, what: str) -> str:
    """1 trial, 2 trials."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def nothing_yet(found: Findings) -> str:
    """Why there is no best trial; empty if there is one."""
    if found.best is not None:
        return ""
    if not found.entries:
        return "No trial has run yet."
    if found.of("infeasible"):
        return "No trial is feasible: each one broke a constraint. The table says which, and by how much."
    if found.of("unfinished"):
        return "No trial has finished yet."
    reasons = dict.fromkeys(entry.verdict for entry in found.of("failed") + found.of("pruned"))
    return f"No trial was scored. Reasons: {'; '.join(list(reasons)[:3])}."


def values_in_words(entry: Entry, names: Sequence[str]) -> str:
    """The values with their intervals: style 0.762 (0.66 to 0.93)."""
    said = []
    for name, value in zip(names, entry.trial.values, strict=True):
        bounds = entry.interval(name)
        said.append(f"{name} {value:.3f}" + (f" ({bounds[0]:.2f} to {bounds[1]:.2f})" if bounds else ""))
    return ", ".join(said)


def difference_in_words(difference: Difference) -> str:
    """+0.032 (−0.04 to +0.11)."""
    return f"{signed(difference.value, 3)} ({signed(difference.low)} to {signed(difference.high)})"


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, a real minus among them."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _best(found: Findings) -> tuple[str, str]:
    top = found.best
    if top is None:
        return nothing_yet(found), ""
    strength = top.trial.user_attrs.get("strength")
    applied = f", applied at strength {strength:g}" if strength is not None else ""
    captions, mix = top.words
    what = [f"captions {captions}"] * bool(captions) + [f"mix {mix}"] * bool(mix) + top.other_settings
    text = f"Trial {top.number}{': ' + ', '.join(what) if what else ''}{applied}."
    return text, f"{values_in_words(top, found.names).capitalize()}; every constraint kept."


def _by_how_much(found: Findings) -> tuple[str, str]:
    top = found.best
    others = [entry for entry in found.of("feasible") if entry is not top]
    if top is None:
        return "Nothing to compare yet.", ""
    if not others:
        return "It is the only feasible trial, so there is nothing to compare it with.", ""
    rival = others[0]
    if not rival.behind:
        gaps = [f"{signed(a - b, 3)} in {n}" for n, a, b in _pairs(found, top, rival)]
        return (
            f"Against trial {rival.number}, the next: {' and '.join(gaps)}.",
            "Without per-picture values there is no interval.",
        )
    gaps = [f"{difference_in_words(rival.behind[name])} in {name}" for name in OBJECTIVES]
    return f"Against trial {rival.number}, the next: {' and '.join(gaps)}.", (
        f"Differences on the same {plural(top.prompts, 'prompt')} and seeds; brackets hold 95 % of resamples."
    )


def _pairs(found: Findings, one: Entry, other: Entry) -> list[tuple[str, float, float]]:
    return list(zip(found.names, one.trial.values, other.trial.values, strict=True))


def _how_sure(found: Findings) -> tuple[str, str]:
    top = found.best
    compared = [entry for entry in found.of("feasible") if entry.behind]
    if top is None:
        return "There is nothing to be sure of yet.", ""
    if found.finals is not None:
        trainings = len(found.finals.rows[0].feasible) if found.finals.rows else 0
        return found.finals.verdict, (
            f"From a final: {plural(len(found.finals.rows), 'recipe')}, {plural(trainings, 'new training')} of each,"
            " scored on prompts that the search had not seen."
        )
    once = (
        "Every trial was trained with one seed only: training it again would move the values by an unknown amount;"
        " python -m sweep.finalists finds out by how much."
    )
    if not compared:
        return "Not at all: one feasible trial says nothing about the next one.", once
    ties = [entry.number for entry in compared if entry.relation == "tie"]
    if not ties:
        ahead = f"it is clearly ahead of {'all' if len(compared) > 1 else 'the'} {plural(len(compared), 'other')}"
        return f"On these prompts {ahead} in at least one objective.", once
    named = ", ".join(ties[:6]) + (", …" if len(ties) > 6 else "")
    return (
        f"Not sure: {len(ties)} of the {plural(len(compared), 'other feasible trial')} cannot be told from it"
        f" ({named}). Take them as ties.",
        once,
    )


def _factor(found: Findings) -> tuple[str, str]:
    if not found.effects:
        return "Too few scored trials to tell: factors are compared from four on.", ""
    clear = sorted(
        ((outcome, effect) for outcome, list_ in found.effects.items() for effect in list_ if effect.clear),
        key=lambda pair: -abs(pair[1].value),
    )
    scored = plural(len(found.of("scored")), "scored trial")
    if not clear:
        return f"None for certain: with {scored} every effect's interval still holds 0.", _leading(found)
    said = "; ".join(effect_in_words(outcome, effect) for outcome, effect in clear[:3])
    return f"{said[0].upper()}{said[1:]}.", f"Against the average of {scored}, all factors estimated together."


def _leading(found: Findings) -> str:
    first = [f"{next(iter(shares))} for {name}" for name, shares in found.importances.items() if shares]
    return f"Optuna's importance puts first: {', '.join(first)}. That is a lead, not a finding." if first else ""


def effect_in_words(outcome: str, effect: Effect) -> str:
    """captions=original lowers style by 0.32 (0.21 to 0.43; 1 trial)."""
    verb = "raises" if effect.value > 0 else "lowers"
    low, high = sorted((abs(effect.low), abs(effect.high)))
    return (
        f"{effect.factor}={effect.level} {verb} {outcome} by {abs(effect.value):.2f}"
        f" ({low:.2f} to {high:.2f}; {plural(effect.trials, 'trial')})"
    )


def _pictures(found: Findings) -> tuple[str, str]:
    top = found.best
    if top is None or top.outcome is None or "style" not in top.outcome.best.per_image:
        return "There are no scored pictures to describe.", ""
    values = top.outcome.best.per_image
    chosen = unrelated(top.outcome)
    texts = [prompt["text"] for prompt in top.outcome.config["eval"]["prompts"]]
    weakest = min(chosen, key=lambda i: values["style"][i])
    furthest = min(chosen, key=lambda i: values["composition"][i])
    text = (
        f"The style is weakest on “{texts[weakest]}” ({_number(values['style'][weakest])}),"
        f" and the layout moved most on “{texts[furthest]}” ({_number(values['composition'][furthest])})."
    )
    flaws = [
        f"{int(sum(values[name][i] for i in chosen))} of {len(chosen)} {what}"
        for name, what in (
            ("failed", "failed"),
            ("leak", "show a training subject"),
            ("copy", "copy a training picture"),
        )
        if name in values
    ]
    return text, f"Of the unrelated prompts' pictures, {', '.join(flaws)}." if flaws else ""


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _get(found: Findings) -> tuple[str, str, str]:
    top = found.best
    if top is None or not top.trial.user_attrs.get("lora"):
        return "There is no LoRA to take yet.", "", ""
    file = found.folder / str(top.trial.user_attrs["lora"])
    if not file.is_file():
        return "Its file is gone. To train it again:", "", command(top)
    place = typed(file) if file.is_relative_to(Path.cwd()) else f"{found.name}/{top.trial.user_attrs['lora']}"
    return f"It is {place}, for diffusers and ComfyUI.", "To train it again:", command(top)


def command(entry: Entry) -> str:
    """What to type to train an entry's configuration again."""
    asked = entry.outcome.overrides if entry.outcome else []
    kept = [
        word for word in asked if not word.lstrip("+").startswith(("hydra.", "hydra/", "study.", "search", "track"))
    ]
    words = kept or [f"{key}={value}" for key, value in entry.trial.params.items()]
    return f"{python()} -m sweep {shlex.join(words)}".rstrip()


def against(entry: Entry) -> str:
    """How a trial stands to the best, in words; for one that broke a constraint, by how much."""
    if not entry.scored:
        return entry.verdict
    if not entry.feasible:
        broken = [f"{name} ({signed(value)})" for name, value in entry.trial.constraints.items() if value > 0]
        return f"broke {', '.join(broken)}"
    said = {
        "best": "the best",
        "tie": "tie with the best",
        "trade-off": "ahead in one objective, behind in the other",
        "behind": "behind the best",
        "not compared": "not compared",
    }[entry.relation]
    clear = [f"{difference_in_words(d)} in {name}" for name, d in entry.behind.items() if not d.tie]
    return f"{said}: {', '.join(clear)}" if clear else said
