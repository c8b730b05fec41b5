"""What the scores hold against a LoRA, in words: every check with what was found and allowed, and pictures by name."""

from collections.abc import Mapping, Sequence
from math import floor

from optuna.trial import FrozenTrial, TrialState

from metrics.settings import THRESHOLDS, Constraint
from sweep.numbers import number
from sweep.outcome import Outcome, unrelated
from sweep.study import is_feasible

CHECKS = {  # constraint -> what it rules out
    "leakage": "training subjects turn up where nobody asked for them",
    "memorisation": "pictures are copies of training pictures",
    "failures": "pictures are blank, clipped, noisy, torn or have parts exchanged",
    "adherence": "prompts are followed less than without the LoRA",
    "diversity": "pictures of different prompts look alike",
    "lines": "lines and contrast are neither the style's nor the base's",
}
FLAGS = {  # value per picture, 0 or 1 -> the mark of a picture that has it, and what several of them do
    "failed": ("failed", "failed"),
    "leak": ("leak", "show a training subject"),
    "copy": ("copy", "copy a training picture"),
}
MARKS = {
    "failed": "failed (blank, clipped, noisy, torn or with parts exchanged)",
    "leak": "leak (shows a training subject)",
    "copy": "copy (of a training picture)",
}
LEARNED = 0.05  # of the way from the base to the references; below, one looks for the style in vain
NAMED = 4  # prompts in one line
MORE = "train longer (train.budget)"


def marks(per_image: Mapping[str, Sequence[float]], count: int) -> list[str]:
    """A word for each of `count` pictures: what the scores hold against it, empty for nothing."""
    return [", ".join(word for name, (word, _) in FLAGS.items() if _flag(per_image, name, i)) for i in range(count)]


def _flag(per_image: Mapping[str, Sequence[float]], name: str, index: int) -> bool:
    return index < len(per_image.get(name, ())) and bool(per_image[name][index])


def flagged(outcome: Outcome) -> list[str]:
    """Each flag of the chosen candidate's pictures with their prompts: failed: “a red cup”, “a star”."""
    texts = [str(prompt["text"]) for prompt in outcome.config.get("eval", {}).get("prompts", [])]
    said = []
    for name, (word, _) in FLAGS.items():
        found = [f"“{text}”" for i, text in enumerate(texts) if _flag(outcome.best.per_image, name, i)]
        if found:
            said.append(f"{word}: {', '.join(found[:NAMED])}{', …' if len(found) > NAMED else ''}")
    return said


def measured(check: str, value: float, outcome: Outcome) -> tuple[str, str]:
    """What the chosen candidate showed and what is allowed: 3 of 20 pictures failed, 1 allowed; empty if unknown.

    Args:
        check: a constraint's name.
        value: the constraint's, <= 0 when fine, from which the limit that held then is told.
    """
    if check not in list(Constraint):
        return "", ""
    threshold = THRESHOLDS[Constraint(check)]
    per_image = outcome.best.per_image.get(threshold.mean_of, [])
    counted = range(len(per_image)) if check == Constraint.memorisation else unrelated(outcome)
    values = [per_image[i] for i in counted if i < len(per_image)]
    if threshold.mean_of in FLAGS and values:
        count, does = len(values), FLAGS[threshold.mean_of][1]
        allowed = floor(sum(values) - value * count + 1e-6)
        return (f"{sum(values):.0f} of {count} pictures {does}", f"{allowed} allowed") if allowed >= 0 else ("", "")
    limit = outcome.config.get("score", {}).get(threshold.setting)
    if limit is None:
        return "", ""
    if check == Constraint.adherence:
        return f"prompts are followed {number(value + limit)} nats less", f"{number(limit)} allowed"
    found = {Constraint.diversity: "{} of the base's variety", Constraint.lines: "line quality {}"}[Constraint(check)]
    return found.format(number(limit - value)), f"at least {number(limit)}"


def broken_in_words(trial: FrozenTrial, outcome: Outcome | None) -> str:
    """The checks a trial did not pass, each with what was found: failures (3 of 20 pictures failed, 1 allowed)."""
    return ", ".join(
        f"{name} ({', '.join(filter(None, found))})"
        if outcome is not None and (found := measured(name, value, outcome))[0]
        else f"{name} (+{number(value)} over its limit)"
        for name, value in trial.constraints.items()
        if value > 0
    )


def not_learned(trials: Sequence[FrozenTrial], names: Sequence[str]) -> str:
    """Why no usable LoRA is worth having yet: none has the style; empty where one has, or none is usable."""
    usable = [trial for trial in trials if trial.state == TrialState.COMPLETE and is_feasible(trial)]
    if not usable or "style" not in names:
        return ""
    place = list(names).index("style")
    if any(has_style(t.values[place], t.user_attrs.get("intervals", {}).get("style")) for t in usable):
        return ""
    most = max(usable, key=lambda trial: trial.values[place])
    reached = style_reached(most.values[place], most.user_attrs.get("intervals", {}).get("style"))
    what = f"the highest is {reached}, of trial {most.number:04d}"
    return f"No usable LoRA has learned the style yet: {what}. {MORE.capitalize()}."


def has_style(style: float, bounds: Sequence[float] | None) -> bool:
    """Whether a style gain can be told from none, and be seen."""
    return style >= LEARNED and (bounds is None or bounds[0] > 0)


def style_reached(style: float, bounds: Sequence[float] | None) -> str:
    """style 0.004, and whether that may as well be nothing."""
    unsure = " (its interval holds 0)" if bounds is not None and bounds[0] <= 0 else ""
    return f"style {number(style, 3)}{unsure}"


def asked_in_words(asked: Mapping[str, Sequence[str]]) -> list[str]:
    """A warning that some prompts cannot show whether a training subject leaks, as they ask for it; or none.

    Args:
        asked: prompt -> training subjects it asks for.
    """
    listed = [f"“{text}” ({', '.join(nouns)})" for text, nouns in asked.items()]
    if not listed:
        return []
    more = f"; and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    prompts = "a prompt asks" if len(listed) == 1 else f"{len(listed)} prompts ask"
    return [
        f"{prompts} for what the training pictures show, where it cannot count as a leak: {'; '.join(listed[:NAMED])}"
        f"{more}. Leaks are looked for in the others; put prompts about something else into eval.prompts to use all"
    ]
