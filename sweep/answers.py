"""The six questions a person has after a night's sweep, answered in plain sentences; every view opens with them."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metrics.statistics import Difference
from sweep.checks import CHECKS, FLAGS, broken_in_words, flagged
from sweep.effects import Effect, factor_in_words
from sweep.findings import OBJECTIVES, Entry, Findings
from sweep.numbers import interval_in_words, number, plural, signed
from sweep.outcome import unrelated
from sweep.study import is_alive
from sweep.summary import counts_in_words, nearest, study_in_words
from sweep.typed import python, typed

CAPTIONS = {  # strategy -> what the pictures were trained with
    "none": "no text",
    "trigger": "the trigger word alone",
    "original": "the text found beside the picture",
    "tags": "booru tags without those of style",
    "vlm": "a vision-language model's description",
    "tags_vlm": "a vision-language model's description, with the tags at hand",
    "edited": "the text beside the picture without its words of style, medium, technique and emotion",
    "subject_only": "the subject and nothing else",
}
MEASURES = {  # objective -> what 0 and what 1 mean
    "style": ("no change", "like the references"),
    "composition": ("another layout", "the base's layout"),
}

Copied = tuple[tuple[str, str], ...]  # what to copy, each with a word on what it does


@dataclass(frozen=True)
class Answer:
    """A question and what the study says to it."""

    question: str
    text: str
    detail: str = ""  # a second sentence: what the answer rests on
    copied: Copied = ()


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


def in_markdown(answer: Answer) -> str:
    """An answer as one paragraph."""
    copied = [f"{word.capitalize()}: `{code}`." for word, code in answer.copied]
    return " ".join(filter(None, (f"**{answer.question}**", answer.text, answer.detail, *copied)))


def headline(found: Findings) -> str:
    """What a person reads first, in one line."""
    top = found.best
    if top is None:
        return nothing_yet(found).partition(". ")[0].rstrip(".") + "."
    if found.doubt or found.finals is not None:
        return (found.doubt or found.finals.verdict).partition(":")[0].rstrip(".") + "."  # type: ignore[union-attr]
    rivals = [entry for entry in found.of("feasible") if entry is not top]
    if not rivals:
        return f"Trial {top.number} is the only usable one."
    ties = [entry.number for entry in found.ties]
    if ties:
        others = f"trial {ties[0]}" if len(ties) == 1 else f"{len(ties)} others"
        return f"Trial {top.number} leads, but {others} may be as good."
    if any(entry.relation == "not compared" for entry in rivals):
        return f"Trial {top.number} has the best values."
    return f"Trial {top.number} leads."  # only finalists, trained anew, make one the best


def state(found: Findings) -> str:
    """How far the study is and what became of its trials, in a line."""
    counts = counts_in_words(found.study.get_trials(deepcopy=False), alive=is_alive(found.folder))
    return f"{plural(len(found.entries), 'trial')}: {counts}" if found.entries else "no trial has run yet"


def nothing_yet(found: Findings) -> str:
    """Why there is no best trial; empty if there is one."""
    if found.best is not None:
        return ""
    if not found.entries:
        return "No trial has run yet."
    if found.of("infeasible"):
        trials = [entry.trial for entry in found.of("infeasible")]
        return (
            f"No trial is usable. Ruled out by {'; by '.join(checks_in_words(found))}. {nearest(trials, found.folder)}"
        )
    if found.of("unfinished"):
        return "No trial has finished yet."
    reasons = dict.fromkeys(entry.verdict for entry in found.of("failed") + found.of("pruned"))
    return f"No trial was scored. Reasons: {'; '.join(list(reasons)[:3])}."


def of_another_version(found: Findings) -> str:
    """What is missing of trials whose outcome.json this version cannot read; empty without any."""
    if not found.unreadable:
        return ""
    named = ", ".join(found.unreadable[:6]) + (", …" if len(found.unreadable) > 6 else "")
    return (
        f"{plural(len(found.unreadable), 'trial')} written by another version of stylesweep ({named}): values are"
        " shown; pictures side by side, intervals of differences and exports are not."
    )


def values_in_words(entry: Entry, names: Sequence[str]) -> str:
    """The values with their intervals: style 0.762 (0.66 to 0.93)."""
    said = []
    for name, value in zip(names, entry.trial.values, strict=True):
        bounds = entry.interval(name)
        said.append(f"{name} {number(value, 3)}" + (f" ({interval_in_words(bounds)})" if bounds else ""))
    return ", ".join(said)


def difference_in_words(difference: Difference) -> str:
    """+0.032 (−0.04 to +0.11)."""
    return f"{signed(difference.value, 3)} ({signed(difference.low)} to {signed(difference.high)})"


def recipe_in_words(entry: Entry) -> str:
    """What was tried: captions tags, mix 256x1 + 512x4."""
    captions, mix = entry.words
    what = [f"captions {captions}"] * bool(captions) + [f"mix {mix_in_words(mix)}"] * bool(mix)
    return ", ".join(what + entry.other_settings)


def mix_in_words(mix: str) -> str:
    """A mix with room to break a line: 256x1 + 512x4."""
    return mix.replace("+", " + ")


def _best(found: Findings) -> tuple[str, str]:
    top = found.best
    if top is None:
        return nothing_yet(found), ""
    strength = top.trial.user_attrs.get("strength")
    applied = f", at strength {strength:g}" if strength is not None else ""
    what = recipe_in_words(top)
    text = f"Trial {top.number}{': ' + what if what else ''}{applied}."
    values = values_in_words(top, found.names).capitalize()
    if found.doubt:
        return found.doubt, " ".join(
            filter(None, (f"First of the search is t{text[1:]} {values}.", ruled_out_above(found)))
        )
    return text, " ".join(filter(None, (f"{values}; it passes every check.", ruled_out_above(found))))


def ruled_out_above(found: Findings) -> str:
    """Which trials would come before the best one if they had passed the checks; empty without any."""
    top = found.best
    above = [entry for entry in found.of("infeasible") if top is not None and entry.rectangle > top.rectangle]
    if not above:
        return ""
    why, more = broken_in_words(above[0].trial, above[0].outcome), len(above) - 1
    rest = f" So {'was one more that scores' if more == 1 else f'were {more} more that score'} higher." if more else ""
    return f"Trial {above[0].number} scores higher but was ruled out by {why}.{rest}"


def _by_how_much(found: Findings) -> tuple[str, str]:
    top = found.best
    others = [entry for entry in found.of("feasible") if entry is not top]
    if top is None:
        return "Nothing to compare yet.", ""
    if not others:
        return "It is the only usable trial, so there is nothing to compare it with.", ""
    rival = others[0]
    if not rival.behind:
        gaps = [f"{signed(a - b, 3)} in {n}" for n, a, b in _pairs(found, top, rival)]
        return (
            f"Against trial {rival.number}, the next: {' and '.join(gaps)}.",
            _without_interval(top, rival),
        )
    gaps = [f"{difference_in_words(rival.behind[name])} in {name}" for name in OBJECTIVES]
    return f"Against trial {rival.number}, the next: {' and '.join(gaps)}.", (
        f"Differences on the same {plural(top.prompts, 'prompt')} and seeds, with 95 % intervals."
    )


def _without_interval(top: Entry, rival: Entry) -> str:
    """Why two trials cannot be compared picture by picture."""
    gone = [entry.number for entry in (top, rival) if entry.outcome is None]
    if gone:
        return f"No interval: {' and '.join(f'{number}/outcome.json' for number in gone)} cannot be read."
    return "No interval: their pictures are not of the same prompts and seeds."


def _pairs(found: Findings, one: Entry, other: Entry) -> list[tuple[str, float, float]]:
    return list(zip(found.names, one.trial.values, other.trial.values, strict=True))


def _how_sure(found: Findings) -> tuple[str, str, Copied]:
    top = found.best
    compared = [entry for entry in found.of("feasible") if entry.behind]
    if top is None:
        return "There is nothing to be sure of yet.", "", ()
    if found.unlearned:
        return "Without the style in any of them, no comparison says which recipe is better.", "", ()
    if found.finals is not None:
        trainings = len(found.finals.rows[0].feasible) if found.finals.rows else 0
        said = _broken_in_final(found) if found.doubt else found.finals.verdict
        scored = "scored on prompts that the search had not seen."
        recipes = plural(len(found.finals.rows), "recipe")
        return (
            said,
            f"From a final: {recipes}, {plural(trainings, 'new training')} of each, {scored}",
            (),
        )
    again = f"{python()} -m sweep.finalists {study_in_words(found.name, found.folder)}"
    once: tuple[str, Copied] = ("", (("each was trained once; to see what chance does, train the best anew", again),))
    if top.given:
        once = "Each file was scored as it is; how far another training of it would differ is not known.", ()
    if not compared and len(found.of("feasible")) > 1:
        return f"That cannot be said. {_without_interval(top, found.of('feasible')[1])}", *once
    if not compared:
        return "Not sure at all: one training of one recipe, with nothing to compare it with.", *once
    ties = [entry.number for entry in compared if entry.relation == "tie"]
    if not ties:
        others = {1: "the other one", 2: "both others"}.get(len(compared), f"all {len(compared)} others")
        return f"On these prompts it is clearly ahead of {others} in at least one objective.", *once
    named = f"trial{'s' if len(ties) > 1 else ''} {', '.join(ties[:6])}{', …' if len(ties) > 6 else ''}"
    return (
        f"Not sure: {named} cannot be told from it ({len(ties)} of {len(compared)} compared). Take them as ties.",
        *once,
    )


def _broken_in_final(found: Findings) -> str:
    """What kept each finalist from being called best."""
    assert found.finals is not None
    told = [
        f"trial {row.number:04d} ({', '.join(f'{name} in {count} of {len(row.feasible)}' for name, count in broken)})"
        for row in found.finals.rows
        if (broken := row.broken.items())
    ]
    return f"Constraints were broken in new trainings of {', '.join(told)}." if told else found.finals.verdict


def _factor(found: Findings) -> tuple[str, str]:
    if found.best is not None and found.best.given and not found.effects:
        return "That cannot be said: these LoRAs were not trained here.", ""
    if not found.effects:
        return "Too few trials have values to tell what each setting did.", ""
    clear = sorted(
        ((outcome, effect) for outcome, list_ in found.effects.items() for effect in list_ if effect.clear),
        key=lambda pair: -abs(pair[1].value),
    )
    scored = plural(len(found.of("scored")), "scored trial")
    if not clear:
        return f"None for certain: in {scored} no effect stands out from chance.", _leading(found)
    said = "; ".join(effect_in_words(outcome, effect) for outcome, effect in clear[:3])
    return f"{said[0].upper()}{said[1:]}.", f"Against the average of {scored}, all settings estimated together."


def _leading(found: Findings) -> str:
    first = [
        f"{factor_in_words(next(iter(shares)))} for {name}" for name, shares in found.importances.items() if shares
    ]
    return f"First by Optuna's importance: {', '.join(first)}. That is a lead, not a finding." if first else ""


def effect_in_words(outcome: str, effect: Effect) -> str:
    """captions original lowers style by 0.32 (0.21 to 0.43; 1 trial)."""
    verb = "raises" if effect.value > 0 else "lowers"
    bounds = sorted((abs(effect.low), abs(effect.high)))
    return (
        f"{effect.words} {verb} {outcome} by {abs(effect.value):.2f}"
        f" ({interval_in_words(bounds)}; {plural(effect.trials, 'trial')})"
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
        f"The style is weakest on “{texts[weakest]}” ({number(values['style'][weakest])}),"
        f" and the layout moved most on “{texts[furthest]}” ({number(values['composition'][furthest])})."
    )
    flaws = [
        f"{int(sum(values[name][i] for i in chosen))} of {len(chosen)} {what}"
        for name, (_, what) in FLAGS.items()
        if name in values
    ]
    marked = "; ".join(flagged(top.outcome))
    which = f" Marked in red: {marked}." if marked else ""
    return text, f"Of the unrelated prompts' pictures, {', '.join(flaws)}.{which}" if flaws else ""


def _get(found: Findings) -> tuple[str, str, Copied]:
    top = found.best
    if top is None or not top.trial.user_attrs.get("lora"):
        return "There is no LoRA to take yet.", "", ()
    again = (("score it again" if top.given else "train it again", command(top)),)
    if found.doubt:
        return _get_anyway(found, top)
    file = found.folder / str(top.trial.user_attrs["lora"])
    if not file.is_file():
        return "Its file is gone.", "", again
    here = top.given or file.is_relative_to(Path.cwd())
    place = typed(file) if here else f"{found.name}/{top.trial.user_attrs['lora']}"
    text = "Load its file in diffusers, ComfyUI or Forge"
    if found.sandbox:
        text = "Its file fits the sandbox's base only; a LoRA of FLUX.1-dev loads in diffusers, ComfyUI and Forge"
    return f"{text}. {_apply(top)}", "", (("the file", place), *again)


def _get_anyway(found: Findings, top: Entry) -> tuple[str, str, Copied]:
    """Of what is not called best: where the first of the search lies, or nothing where it has no style."""
    if found.unlearned:
        return "There is none worth taking yet.", "", (("the same recipe", command(top)),)
    file = found.folder / str(top.trial.user_attrs["lora"])
    looked = (("the file", typed(file)),) if file.is_file() else ()
    text = f"None is recommended. That of trial {top.number}, the first of the search, is there to look at."
    return text, _apply(top), (*looked, ("the same recipe", command(top)))


def _apply(entry: Entry) -> str:
    """What it was scored with: at what strength, and without the trigger word that it may know."""
    config = entry.outcome.config if entry.outcome else {}
    trigger = config.get("captions", {}).get("trigger", "")
    word = f" It was trained with the trigger word “{trigger}” and scored without it." if trigger else ""
    return f"Apply it at strength {entry.trial.user_attrs.get('strength', 1):g}.{word}"


def command(entry: Entry) -> str:
    """What to type to train an entry's configuration again."""
    asked = entry.outcome.overrides if entry.outcome else []
    kept = [
        word for word in asked if not word.lstrip("+").startswith(("hydra.", "hydra/", "study.", "search", "track"))
    ]
    words = kept or [f"{key}={value}" for key, value in entry.trial.params.items()]
    return f"{python()} -m sweep {shlex.join(words)}".rstrip()


def against(entry: Entry, first: str = "the best") -> str:
    """How a trial stands to the best, or what else `first` is called; for one that was ruled out, what was found."""
    if not entry.scored:
        return entry.verdict
    if not entry.feasible:
        return f"ruled out by {broken_in_words(entry.trial, entry.outcome)}"
    said = {
        "best": first,
        "first": "comes first",
        "tie": f"tie with {first}",
        "trade-off": "better in one, worse in the other",
        "behind": "behind",
        "not compared": "not compared",
    }[entry.relation]
    clear = [f"{_less(difference)} {name}" for name, difference in entry.behind.items() if not difference.tie]
    return f"{said}: {', '.join(clear)}" if clear else said


def _less(difference: Difference) -> str:
    """An entry holds the best minus itself; a reader of its line asks the other way round."""
    return f"{signed(-difference.value)} ({signed(-difference.high)} to {signed(-difference.low)})"


def rungs_in_words(entry: Entry, names: Sequence[str]) -> str:
    """What an unfinished trial was worth on its way: at 1/9 of the budget style 0.41, composition 0.66."""
    said = []
    for rung in entry.rungs:
        values = ", ".join(f"{name} {number(value)}" for name, value in zip(names, rung.values, strict=False))
        said.append(f"at 1/{rung.part} of the budget {values}")
    return "; ".join(said)


def checks_in_words(found: Findings) -> list[str]:
    """What each check that ruled out a trial means, and how many it ruled out."""
    broken = [name for entry in found.of("infeasible") for name in entry.broken]
    counted = {name: broken.count(name) for name in dict.fromkeys(broken)}
    return [
        f"{name} ({plural(count, 'trial')}): {CHECKS.get(name, 'a limit of your own')}"
        for name, count in counted.items()
    ]


def legend(found: Findings) -> list[str]:
    """What the study's captions and mixes are called, in sentences."""
    words = [entry.words for entry in found.entries]
    used = [f"{name}: {meaning}" for name, meaning in CAPTIONS.items() if name in {captions for captions, _ in words}]
    mixes = "Mix 256x2 + 512x3: in an epoch every picture is shown twice at 256 px and three times at 512 px."
    return [*[f"Captions {'; '.join(used)}."] * bool(used), *[mixes] * any(mix for _, mix in words)]
