"""What optuna-dashboard says of a study in words: notes of the trials and the study, charts that know feasibility.

optuna-dashboard 0.21 takes no notice of constraints unless `sweep.dashboard` serves it: its best trials and its own
Pareto front count infeasible ones. The study's note says so and names the feasible front; a chart added here draws it.
"""

import warnings

import optuna

from sweep.answers import (
    against,
    answers,
    command,
    headline,
    in_markdown,
    legend,
    nothing_yet,
    of_another_version,
    recipe_in_words,
    rungs_in_words,
    state,
    values_in_words,
)
from sweep.charts import effects_figure, effects_range, front_figure
from sweep.checks import CHECKS, flagged, has_style, measured
from sweep.findings import Entry, Findings
from sweep.numbers import number
from sweep.record import ARTIFACTS, attach_caption_sheet
from sweep.study import live_trial
from sweep.summary import CANNOT_SAY

LISTED = 10  # trials in the study's note
AT_ONCE = 50  # trials' notes, best first: each costs a reading of all; the others follow the next time


def write_notes(found: Findings) -> None:
    """Writes every note that has changed, the charts, and the caption sheet as an artifact."""
    from optuna_dashboard import save_note, save_plotly_graph_object
    from optuna_dashboard._note import get_note_from_system_attrs  # get_note reads all notes again for each trial

    study = found.study
    known = study._storage.get_study_system_attrs(study._study_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        changed = []
        for entry in found.entries:
            body = trial_note(entry, found.names) + _what_is_gone(entry, found)
            before = get_note_from_system_attrs(known, entry.trial._trial_id)["body"]
            if entry.trial.state.is_finished() and before != body:
                changed.append((entry.trial.number, body))
        for number, body in changed[:AT_ONCE]:
            save_note(live_trial(study, number), body)
        body = study_note(found)
        if get_note_from_system_attrs(known, None)["body"] != body:
            save_note(study, body)
        attach_caption_sheet(study, found.folder)
        if found.of("scored"):
            # The dashboard shows them in no order of ours: each says by its title what it is.
            figure = front_figure(found).update_layout(title={"text": "Usable trials", "font": {"size": 14}})
            save_plotly_graph_object(study, figure.update_layout(margin={"t": 70}), graph_object_id="feasible-front")
        for name, list_ in found.effects.items():
            figure = effects_figure(list_, f"Effect on {name}", effects_range(found))
            save_plotly_graph_object(study, figure, graph_object_id=f"effect-{name.replace(' ', '-')}")


def study_note(found: Findings) -> str:
    """The legend, the six answers and the head of the ranking, in Markdown."""
    lines = [f"# {headline(found)}", "", f"{found.name}, {state(found)}."]
    if found.sandbox:
        lines += ["", f"> {CANNOT_SAY}"]
    if found.unreadable:
        lines += ["", of_another_version(found)]
    if nothing_yet(found) not in ("", headline(found)):
        lines += ["", nothing_yet(found).removeprefix(headline(found)).strip()]
    if found.best is not None:
        for answer in answers(found):
            lines += ["", in_markdown(answer)]
    feasible = found.of("feasible")[:LISTED]
    if feasible:
        lines += ["", f"| rank | trial | {' | '.join(found.names)} | what | against {found.first} |"]
        lines += ["|---" * (4 + len(found.names)) + "|"]
        lines += [_row(entry, found.first) for entry in feasible]
    return "\n".join([*lines, "", *LEGEND, *[f"- {line}" for line in legend(found)]])


LEGEND = [
    "## How to read these pages",
    "",
    "- **style**: how much closer to the held-out references than the base's picture; 0 is no change, 1 as close as"
    " they are to each other. **composition**: how much of the base's layout is kept, 1 is all. Both on prompts that"
    " have nothing to do with the training pictures.",
    "- **A trial that was ruled out does not count**, however good its values; its note says by which check. Opened"
    " with `python -m sweep.dashboard`, these pages mark it so; optuna-dashboard by itself takes it for a good one.",
    *[f"- Ruled out by **{name}**: {meaning}." for name, meaning in CHECKS.items()],
    "- Every trial's artifacts are its contact sheet (first row without a LoRA) and its plan; the study's is its"
    " caption sheet, if one was made. A red frame in a contact sheet marks a picture that counts against the LoRA:"
    " failed, showing a training subject nobody asked for (leak), or the copy of a training picture.",
    "- Brackets are 95 % intervals over the prompts, of one training each.",
]


def _row(entry: Entry, first: str) -> str:
    values = " | ".join(number(value, 3) for value in entry.trial.values)
    return f"| {entry.rank} | {entry.number} | {values} | {entry.label} | {against(entry, first)} |"


def trial_note(entry: Entry, names: list[str]) -> str:
    """What was tried, what came of it, and why it counts or does not, in Markdown."""
    lines = [f"**{recipe_in_words(entry) or entry.label}**"]
    if not entry.scored:
        reached = rungs_in_words(entry, names)
        return "\n".join([*lines, "", _why(entry), *([f"\nReached {reached}."] if reached else [])])
    standing = "Usable: it passes every check." if entry.feasible else f"Ruled out by {', '.join(entry.broken)}."
    if "style" in names and not has_style(entry.trial.values[names.index("style")], entry.interval("style")):
        standing += " It has not learned the style."
    lines += ["", f"{values_in_words(entry, names).capitalize()}. {standing}"]
    constraints = entry.trial.constraints
    if constraints:
        lines += ["", "Checks:", "", "| check | found | verdict |", "|---|---|---|"]
        lines += [
            f"| {name} | {_found(name, value, entry)} | {_verdict(name, value)} |"
            for name, value in constraints.items()
        ]
    if entry.outcome is not None:
        lines += [f"\nMarked pictures: {'; '.join(flagged(entry.outcome))}."] * bool(flagged(entry.outcome))
        lines += ["", *_candidates(entry), "", f"Again: `{command(entry)}`"]
    return "\n".join(lines)


def _what_is_gone(entry: Entry, found: Findings) -> str:
    """What the pages of this trial cannot show any more."""
    kept = [key.partition(":")[2] for key in entry.trial.system_attrs if key.startswith("artifacts:")]
    gone = [name for name in kept if not (found.folder / ARTIFACTS / name).is_file()]
    said = [f"Its pictures are no longer in {ARTIFACTS}/."] * bool(gone)
    said += ["It was written by another version of stylesweep: only its values are shown."] * (
        entry.number in found.unreadable
    )
    return "".join(f"\n\n{line}" for line in said)


def _found(check: str, value: float, entry: Entry) -> str:
    found = measured(check, value, entry.outcome) if entry.outcome is not None else ()
    beside = f"{number(abs(value), 3)} {'over' if value > 0 else 'below'} its limit"
    return ", ".join(filter(None, found)) or beside


def _verdict(check: str, value: float) -> str:
    return f"ruled out: {CHECKS.get(check, 'a limit of your own')}" if value > 0 else "fine"


def _why(entry: Entry) -> str:
    reason = entry.verdict
    return f"No values: {reason}." if not reason.endswith(".") else f"No values: {reason}"


def _candidates(entry: Entry) -> list[str]:
    """Every checkpoint at every strength; the trial stands for the one in bold."""
    assert entry.outcome is not None
    lines = ["What was scored of it; the trial stands for the line in bold:", ""]
    lines += ["| step | pictures seen | strength | style | composition | usable |", "|---|---|---|---|---|---|"]
    for index, candidate in enumerate(entry.outcome.candidates):
        mark = "**" if index == entry.outcome.chosen else ""
        values = " | ".join(f"{mark}{number(value, 3)}{mark}" for value in candidate.values)
        lines.append(
            f"| {candidate.step} | {candidate.images_seen} | {candidate.strength:g} | {values}"
            f" | {'yes' if candidate.feasible else 'no'} |"
        )
    return lines
