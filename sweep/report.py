"""`python -m sweep.report`: the study as a page that opens anywhere, as text, as a table, and as other trainers' files.

Writes report.html, report.md, trials.csv (with the extra `report` also trials.parquet) and export/ into the study's
folder; same overrides as `python -m sweep`, of which `study.name` and `study.folder` say which study.
`python -m sweep.report wandb` publishes it in W&B.
"""

import csv
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from sweep.answers import (
    MEASURES,
    against,
    answers,
    checks_in_words,
    command,
    headline,
    in_markdown,
    legend,
    nothing_yet,
    of_another_version,
    recipe_in_words,
    ruled_out_above,
    rungs_in_words,
    state,
)
from sweep.charts import effects_range, front_figure
from sweep.checks import MARKS, flagged
from sweep.door import Place, start
from sweep.effects import Effect, factor_in_words
from sweep.export_recipe import FOUND_BEST
from sweep.exports import FOLDER, Export, write_exports
from sweep.findings import Entry, Findings, find
from sweep.lines import StepProgress, duration, shown
from sweep.numbers import final_interval, interval_in_words, number, plural, signed
from sweep.report_pictures import Album, compared, highlights, references, sheets, side_by_side
from sweep.rungs import MEASURED
from sweep.schema import Config
from sweep.settings import study_folder
from sweep.study import load_study
from sweep.summary import CANNOT_SAY

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go

PAGE, TEXT, TABLE, TYPED_TABLE = "report.html", "report.md", "trials.csv", "trials.parquet"
TEMPLATES = Path(__file__).parent
LISTED = 60  # trials in the page's table; trials.csv has all
NO_PART = ("search", "study", "track")  # of the settings a LoRA is made with


@dataclass(frozen=True)
class Row:
    """A line of the ranking."""

    entry: Entry
    rank: str
    values: list["Bar"]
    against: str  # how it stands to the best, or why it does not count
    settings: str
    rests_on: str
    took: str


@dataclass(frozen=True)
class Bar:
    """A value with its interval, as text and as places on a scale of 0 to 100."""

    name: str
    text: str
    interval: str  # empty without one
    at: float
    low: float
    high: float
    ends: tuple[str, str] | None = None  # what 0 and 1 mean
    clear: bool = True  # whether an effect is told from none


@dataclass(frozen=True)
class Level:
    """A line of the effects: one value of a setting."""

    name: str
    trials: int
    bars: list[Bar]  # one per outcome


@dataclass(frozen=True)
class Factor:
    """A setting and what it did."""

    name: str
    importance: str  # by objective, in words
    levels: list[Level]


def write_report(study: "optuna.Study", folder: Path) -> Path:
    """Writes page, text, table and exports; returns where the page is."""
    return write_found(find(study, folder))


def write_found(found: Findings) -> Path:
    """As `write_report`, of findings that are there already."""
    top, folder = found.best, found.folder
    made: tuple[list[Export], str] = ([], "")
    if top is not None and top.outcome is not None and not top.given and not found.unlearned:
        standing = "first of the search, which its final did not confirm" if found.doubt else FOUND_BEST
        made = write_exports(top.outcome, found.name, folder / FOLDER, standing)
    write_table(found, folder / TABLE)
    told = _told(found, *made)
    (folder / TEXT).write_text(_render("report.md.j2", told, escape=False), encoding="utf-8")
    draft = folder / f".{PAGE}"
    draft.write_text(_render("report.html.j2", told | _drawn(found), escape=True), encoding="utf-8")
    return draft.replace(folder / PAGE)


def _render(template: str, told: Mapping[str, Any], *, escape: bool) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template(template).render(told)


def _told(found: Findings, exports: Sequence[Export], export_fault: str) -> dict[str, Any]:
    """What page and text have in common."""
    top = found.best
    without = [e for kind in ("pruned", "failed", "unfinished") for e in found.of(kind)]
    return {
        "found": found,
        "headline": headline(found),
        "state": state(found),
        "nothing": nothing_yet(found),
        "answers": answers(found),
        "best": top,
        "rows": _rows(found)[:LISTED],
        "hidden": max(0, len(found.of("scored")) - LISTED),
        "checks": checks_in_words(found),
        "legend": legend(found),
        "known_agreements": [each for each in found.agreements if each.correlation is not None],
        "enough": MEASURED,
        "without_values": [(entry, rungs_in_words(entry, found.names)) for entry in without[:LISTED]],
        "without_values_hidden": max(0, len(without) - LISTED),
        "banner": CANNOT_SAY if found.sandbox else "",
        "settings": settings_yaml(top) if top is not None else "",
        "command": command(top) if top is not None else "",
        "exports": exports,
        "export_fault": export_fault,
        "unreadable": of_another_version(found),
        "doubt_in_full": _sentence(found.doubt.partition(":")[2]),
        "marked_pictures": [(e.number, "; ".join(said)) for e in found.of("scored") if (said := _flagged(e))][:LISTED],
        "signed": signed,
        "in_markdown": in_markdown,
        "number": number,
        "plural": plural,
        "interval_of": lambda row, name: final_interval(name, row.intervals[name], len(row.feasible)),
    }


def _drawn(found: Findings) -> dict[str, Any]:
    """What only the page has: charts and pictures."""
    from plotly.offline import get_plotlyjs

    top = found.best
    album = Album()
    pairs = highlights(found, album)  # first, as what is packed last may find no room
    entries = compared(found)
    pictures = side_by_side(found, entries, album)
    chart = _div(front_figure(found)) if found.of("scored") else ""
    return {
        "recipe": recipe_in_words(top) if top is not None else "",
        "above": ruled_out_above(found),
        "measures": _bars(top, found, digits=2) if top is not None else [],
        "pairs": pairs,
        "compared": entries,
        "references": references(found, album) if entries else [],
        "pictures": pictures,
        "marked": _meaning_of({word for row in pictures for each in row.pictures for word in each.mark.split(", ")}),
        "sheets": sheets(found, entries, album),
        "gone": len(album.missing),
        "refused": album.refused,
        "factors": _factors(found),
        "chart": chart,
        "plotly": get_plotlyjs() if chart else "",
    }


def _sentence(text: str) -> str:
    return text.strip()[:1].upper() + text.strip()[1:]


def _flagged(entry: Entry) -> list[str]:
    return flagged(entry.outcome) if entry.outcome is not None else []


def _meaning_of(words: Set[str]) -> list[str]:
    """The marks in use, each with what it means where the word alone does not tell."""
    return [MARKS[word] for word in MARKS if word in words]


def _div(figure: "go.Figure") -> str:
    return str(
        figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True})
    )


def _rows(found: Findings) -> list[Row]:
    scored = found.of("scored")
    ranks = [entry.rank for entry in scored]
    return [
        Row(
            entry=entry,
            rank=f"{entry.rank}{' =' if ranks.count(entry.rank) > 1 else ''}" if entry.rank else "–",
            values=_bars(entry, found),
            against=against(entry, found.first),
            settings=", ".join(entry.other_settings),
            rests_on=f"{entry.prompts} × 1" if entry.prompts else "?",
            took=duration(entry.trial.user_attrs["seconds"]) if "seconds" in entry.trial.user_attrs else "",
        )
        for entry in scored
    ]


def _bars(entry: Entry, found: Findings, digits: int = 3) -> list[Bar]:
    """The entry's values, on the scales that all trials of the study share."""
    made = []
    for index, name in enumerate(found.names):
        values = [other.trial.values[index] for other in found.of("scored")]
        scale = min([0.0, *values]), max([1.0, *values])
        value, bounds = entry.trial.values[index], entry.interval(name)
        at, low, high = _places([value, *(bounds or (value, value))], scale)
        interval = interval_in_words(bounds) if bounds else ""
        made.append(Bar(name, number(value, digits), interval, at, low, high, ends=MEASURES.get(name)))
    return made


def _places(values: Sequence[float], scale: tuple[float, float]) -> list[float]:
    return [min(100.0, max(0.0, 100 * (value - scale[0]) / (scale[1] - scale[0]))) for value in values]


def _factors(found: Findings) -> list[Factor]:
    """Every setting with its levels, each with its effect on every outcome."""
    outcomes = list(found.effects.values())
    names = list(dict.fromkeys(effect.factor for effect in outcomes[0])) if outcomes else []
    return [
        Factor(
            factor_in_words(name),
            _importance(found, name),
            [
                Level(
                    effects[0].words.removeprefix(f"{factor_in_words(name)} "),
                    effects[0].trials,
                    [_effect_bar(found, *pair) for pair in zip(found.effects, effects, strict=True)],
                )
                for effects in zip(*outcomes, strict=True)
                if effects[0].factor == name
            ],
        )
        for name in names
    ]


def _importance(found: Findings, factor: str) -> str:
    shares = [f"{shares[factor]:.0%} for {name}" for name, shares in found.importances.items() if factor in shares]
    return f"importance {', '.join(shares)}" if shares else ""


def _effect_bar(found: Findings, outcome: str, effect: Effect) -> Bar:
    at, low, high = _places([effect.value, effect.low, effect.high], effects_range(found))
    interval = f"{signed(effect.low)} to {signed(effect.high)}"
    return Bar(outcome, signed(effect.value), interval, at, low, high, clear=effect.clear)


def settings_yaml(entry: Entry) -> str:
    """All settings the entry's LoRA was made with, as YAML."""
    config = entry.outcome.config if entry.outcome else dict(entry.trial.params)
    return OmegaConf.to_yaml(OmegaConf.create({key: value for key, value in config.items() if key not in NO_PART}))


def write_table(found: Findings, file: Path) -> None:
    """One line per trial with everything that is known of it, for spreadsheets and pandas."""
    lines = table_lines(found)
    columns = list(dict.fromkeys(key for line in lines for key in line)) or ["trial"]
    with file.open("w", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, columns, restval="")
        table.writeheader()
        table.writerows(lines)
    if find_spec("pyarrow") is not None:  # a large package that nothing else here needs: in the extra `report`
        _write_typed(lines, columns, file.with_name(TYPED_TABLE))


def _write_typed(lines: Sequence[Mapping[str, Any]], columns: Sequence[str], file: Path) -> None:
    """The same table with numbers as numbers and gaps as gaps."""
    import pyarrow
    import pyarrow.parquet

    table = {column: [None if line.get(column) == "" else line.get(column) for line in lines] for column in columns}
    for column, values in table.items():
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1 and kinds != {int, float}:
            table[column] = [None if value is None else str(value) for value in values]
    pyarrow.parquet.write_table(pyarrow.table(table), file)


def table_lines(found: Findings) -> list[dict[str, Any]]:
    """The trials as rows; a trial lacks the columns it has nothing for."""
    return [_line(entry, found) for entry in found.entries]


def _line(entry: Entry, found: Findings) -> dict[str, Any]:
    trial, names = entry.trial, found.names
    line: dict[str, Any] = {"trial": entry.number, "state": trial.state.name.lower(), "feasible": entry.verdict}
    line |= {"rank": entry.rank or "", "on_front": entry.on_front, "against_best": against(entry, found.first)}
    for index, name in enumerate(names):
        low, high = entry.interval(name) or ("", "")
        line |= {name: trial.values[index] if entry.scored else "", f"{name}_low": low, f"{name}_high": high}
    captions, mix = entry.words
    line |= {"rectangle": entry.rectangle if entry.scored else "", "captions": captions, "mix": mix}
    line |= {key: trial.user_attrs.get(key, "") for key in ("recipe", "strength", "step", "seconds", "lora")}
    line |= {"prompts": entry.prompts or "", "trainings": 1 if entry.scored else ""}
    line |= {f"constraint.{name}": value for name, value in trial.constraints.items()}
    for rung in entry.rungs:
        line |= {f"rung_{rung.part}.{name}": value for name, value in zip(names, rung.values, strict=False)}
    diagnostics = entry.outcome.best.diagnostics if entry.outcome else {}
    return line | {f"param.{k}": v for k, v in trial.params.items()} | {f"score.{k}": v for k, v in diagnostics.items()}


def report(config: Config, place: Place) -> None:
    """Writes the report of the study that the configuration names."""
    folder = study_folder(config.study)
    page = write_report(load_study(folder), folder)
    StepProgress().say(f"report: {shown(page)}\ntext:   {shown(folder / TEXT)}\ntable:  {shown(folder / TABLE)}")
    if (folder / FOLDER).is_dir():
        StepProgress().say(f"recipe for other trainers: {shown(folder / FOLDER)}")


def main(arguments: list[str]) -> None:
    """Takes the word wandb out of the command line; Hydra gets the rest."""
    if "wandb" in arguments:
        sys.argv[1:] = [argument for argument in arguments if argument != "wandb"]
        from sweep.wandb_report import main as publish_it

        publish_it()
        return
    start(report, keeps_folder=False, of_study=True)


if __name__ == "__main__":
    main(sys.argv[1:])
