"""`python -m sweep.report`: the study as a page that opens anywhere, as text, as a table, and as other trainers' files.

Writes report.html, report.md, trials.csv and export/ into the study's folder; same overrides as `python -m sweep`,
of which `study.name` and `study.folder` say which study. `python -m sweep.report wandb` publishes it in W&B.
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from sweep.__main__ import Place, start
from sweep.answers import against, answers, command, nothing_yet, signed, state
from sweep.charts import effects_figure, effects_range, front_figure, importance_figure
from sweep.exports import FOLDER, Export, write_exports
from sweep.findings import Entry, Findings, find
from sweep.progress import StepProgress, duration, shown
from sweep.report_pictures import Album, compared, sheets, side_by_side
from sweep.schema import Config
from sweep.study import load_study, study_folder
from sweep.summary import CANNOT_SAY

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go

PAGE, TEXT, TABLE = "report.html", "report.md", "trials.csv"
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
    interval: str
    at: float
    low: float
    high: float


def write_report(study: "optuna.Study", folder: Path) -> Path:
    """Writes page, text, table and exports; returns where the page is."""
    return write_found(find(study, folder))


def write_found(found: Findings) -> Path:
    """As `write_report`, of findings that are there already."""
    top, folder = found.best, found.folder
    made: tuple[list[Export], str] = ([], "")
    if top is not None and top.outcome is not None:
        made = write_exports(top.outcome, found.name, folder / FOLDER)
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
    return {
        "found": found,
        "state": state(found),
        "nothing": nothing_yet(found),
        "answers": answers(found),
        "best": top,
        "rows": _rows(found)[:LISTED],
        "hidden": max(0, len(found.entries) - LISTED),
        "without_values": [e for kind in ("failed", "pruned", "unfinished") for e in found.of(kind)][:LISTED],
        "banner": CANNOT_SAY if found.sandbox else "",
        "settings": settings_yaml(top) if top is not None else "",
        "command": command(top) if top is not None else "",
        "exports": exports,
        "export_fault": export_fault,
        "unreadable": found.unreadable,
        "signed": signed,
    }


def _drawn(found: Findings) -> dict[str, Any]:
    """What only the page has: charts and pictures."""
    from plotly.offline import get_plotlyjs

    album = Album()
    entries = compared(found)
    pictures = side_by_side(found, entries, album)
    more = sheets(found, entries, album)
    figures = [effects_figure(list_, name, effects_range(found)) for name, list_ in found.effects.items()]
    charts = {
        "front": _div(front_figure(found)) if found.of("scored") else "",
        "effects": [(name, _div(figure)) for name, figure in zip(found.effects, figures, strict=True)],
        "importances": _div(importance_figure(found.importances)) if any(found.importances.values()) else "",
    }
    return {
        "compared": entries,
        "pictures": pictures,
        "sheets": more,
        "gone": album.gone,
        "refused": album.refused,
        "charts": charts,
        "plotly": get_plotlyjs() if charts["front"] else "",
    }


def _div(figure: "go.Figure") -> str:
    return str(
        figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True})
    )


def _rows(found: Findings) -> list[Row]:
    scored = found.of("scored")
    scales = [_scale([e.trial.values[i] for e in scored]) for i in range(len(found.names))]
    ranks = [entry.rank for entry in scored]
    return [
        Row(
            entry=entry,
            rank=f"{entry.rank}{' =' if ranks.count(entry.rank) > 1 else ''}" if entry.rank else "–",
            values=[_bar(entry, name, i, scales[i]) for i, name in enumerate(found.names)],
            against=against(entry),
            settings=" ".join(entry.other_settings),
            rests_on=f"{entry.prompts} × 1" if entry.prompts else "?",
            took=duration(entry.trial.user_attrs["seconds"]) if "seconds" in entry.trial.user_attrs else "",
        )
        for entry in scored
    ]


def _scale(values: Sequence[float]) -> tuple[float, float]:
    return min([0.0, *values]), max([1.0, *values])


def _bar(entry: Entry, name: str, index: int, scale: tuple[float, float]) -> Bar:
    value, bounds = entry.trial.values[index], entry.interval(name)
    low, high = bounds or (value, value)
    at, start_, end = (min(100.0, max(0.0, 100 * (v - scale[0]) / (scale[1] - scale[0]))) for v in (value, low, high))
    return Bar(name, f"{value:.3f}", f"{low:.2f} to {high:.2f}" if bounds else "no interval", at, start_, end)


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


def table_lines(found: Findings) -> list[dict[str, Any]]:
    """The trials as rows; a trial lacks the columns it has nothing for."""
    return [_line(entry, found.names) for entry in found.entries]


def _line(entry: Entry, names: Sequence[str]) -> dict[str, Any]:
    trial = entry.trial
    line: dict[str, Any] = {"trial": entry.number, "state": trial.state.name.lower(), "feasible": entry.verdict}
    line |= {"rank": entry.rank or "", "on_front": entry.on_front, "against_best": against(entry)}
    for index, name in enumerate(names):
        low, high = entry.interval(name) or ("", "")
        line |= {name: trial.values[index] if entry.scored else "", f"{name}_low": low, f"{name}_high": high}
    captions, mix = entry.words
    line |= {"rectangle": entry.rectangle if entry.scored else "", "captions": captions, "mix": mix}
    line |= {key: trial.user_attrs.get(key, "") for key in ("recipe", "strength", "step", "seconds", "lora")}
    line |= {"prompts": entry.prompts or "", "trainings": 1 if entry.scored else ""}
    line |= {f"constraint.{name}": value for name, value in trial.constraints.items()}
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
        from sweep.wandb_report import publish

        start(publish, keeps_folder=False)
        return
    start(report, keeps_folder=False)


if __name__ == "__main__":
    main(sys.argv[1:])
