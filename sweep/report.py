"""`python -m sweep.report`: the study as one HTML page that opens without a network, `multirun/<study>/report.html`.

Same overrides as `python -m sweep`; `study.name` and `study.folder` say which study.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.__main__ import Place, start
from sweep.progress import StepProgress, shown
from sweep.schema import Config
from sweep.study import best, front, is_feasible, load_study, rectangle, study_folder, why_not
from sweep.summary import CANNOT_SAY, ranked, settings_in_words

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go
    from optuna.trial import FrozenTrial

PAGE = "report.html"
TEMPLATE = Path(__file__).with_name("report.html.j2")
OBJECTIVES = ("style", "composition")
SHEET_QUALITY = 85  # JPEG: a page of a hundred sheets still opens on a phone


@dataclass(frozen=True)
class Row:
    """A trial as the page shows it."""

    number: str
    values: list[str]
    rectangle: str
    feasible: str
    is_feasible: bool
    on_front: bool
    captions: str
    mix: str
    params: str
    lora: str
    sheet: str  # data URL; empty if there is no picture
    seconds: str


def write_report(study: "optuna.Study", folder: Path) -> Path:
    """Writes the page and returns where it is."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    trials = study.get_trials(deepcopy=False)
    names = study.metric_names or [f"value {i}" for i in range(len(study.directions))]
    kept = {trial.number for trial in front(trials)}
    rows = [_row(trial, kept, folder) for trial in ranked(trials)]
    top = best(trials)
    pages = Environment(loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined)
    text = pages.get_template(TEMPLATE.name).render(
        name=study.study_name,
        names=names,
        rows=rows,
        best=next((row for row in rows if top is not None and row.number == f"{top.number:04d}"), None),
        finished=sum(trial.state.is_finished() for trial in trials),
        failed=sum(trial.state.name == "FAIL" for trial in trials),
        infeasible=sum(trial.state.name == "COMPLETE" and not is_feasible(trial) for trial in trials),
        banner=CANNOT_SAY if study.user_attrs.get("sandbox") else "",
        # Plotly's library is written into the page, so that it opens without a network.
        figure=front_figure(trials, names).to_html(full_html=False, include_plotlyjs=True) if kept or rows else "",
    )
    page = folder / PAGE
    page.write_text(text, encoding="utf-8")
    return page


def _row(trial: "FrozenTrial", kept: set[int], folder: Path) -> Row:
    scored = trial.state.name == "COMPLETE"
    captions, mix = settings_in_words(trial)
    return Row(
        number=f"{trial.number:04d}",
        values=[_with_interval(trial, i) for i in range(len(trial.values))] if scored else [],
        rectangle=f"{rectangle(trial.values):.3f}" if scored else "",
        feasible=why_not(trial),
        is_feasible=is_feasible(trial),
        on_front=trial.number in kept,
        captions=captions,
        mix=mix,
        params=" ".join(f"{key}={value}" for key, value in trial.params.items()),
        lora=str(trial.user_attrs.get("lora", "")),
        sheet=_picture(folder / str(trial.user_attrs["sheet"])) if "sheet" in trial.user_attrs else "",
        seconds=str(trial.user_attrs.get("seconds", "")),
    )


def _with_interval(trial: "FrozenTrial", index: int) -> str:
    bounds = trial.user_attrs.get("intervals", {}).get(OBJECTIVES[index])
    return f"{trial.values[index]:.3f}" + (f" ({bounds[0]:.2f} … {bounds[1]:.2f})" if bounds else "")


def _picture(file: Path) -> str:
    from PIL import Image

    if not file.is_file():
        return ""
    packed = io.BytesIO()
    with Image.open(file) as picture:
        picture.convert("RGB").save(packed, "JPEG", quality=SHEET_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode()


def front_figure(trials: Sequence["FrozenTrial"], names: Sequence[str]) -> "go.Figure":
    """Every scored trial in the plane of the two objectives, with the feasible Pareto front as a line."""
    import plotly.graph_objects as go

    scored = [trial for trial in trials if trial.state.name == "COMPLETE"]
    figure = go.Figure()
    for label, kept, symbol, colour in (("feasible", True, "circle", "#0b6e4f"), ("infeasible", False, "x", "#8a8a8a")):
        group = [trial for trial in scored if is_feasible(trial) is kept]
        figure.add_scatter(
            x=[t.values[0] for t in group],
            y=[t.values[1] for t in group],
            mode="markers",
            name=label,
            marker={"symbol": symbol, "color": colour, "size": 11},
            text=[f"{t.number:04d} {' '.join(settings_in_words(t))}" for t in group],
            error_x=_bars(group, "style", 0),
            error_y=_bars(group, "composition", 1),
        )
    line = front(trials)
    figure.add_scatter(
        x=[t.values[0] for t in line],
        y=[t.values[1] for t in line],
        mode="lines",
        name="Pareto front",
        line={"color": "#0b6e4f", "dash": "dot"},
    )
    figure.update_layout(
        template="plotly_white",
        xaxis_title=names[0],
        yaxis_title=names[1],
        height=480,
        margin={"l": 50, "r": 20, "t": 20, "b": 50},
    )
    return figure


def _bars(trials: Sequence["FrozenTrial"], name: str, index: int) -> dict[str, Any]:
    bounds = [t.user_attrs.get("intervals", {}).get(name, (t.values[index],) * 2) for t in trials]
    return {
        "type": "data",
        "symmetric": False,
        "thickness": 1,
        "width": 3,
        "color": "#bbbbbb",
        "array": [max(0.0, high - t.values[index]) for t, (_, high) in zip(trials, bounds, strict=True)],
        "arrayminus": [max(0.0, t.values[index] - low) for t, (low, _) in zip(trials, bounds, strict=True)],
    }


def report(config: Config, place: Place) -> None:
    """Writes the page of the study that the configuration names."""
    folder = study_folder(config.study)
    StepProgress().say(f"report: {shown(write_report(load_study(folder), folder))}")


if __name__ == "__main__":
    start(report, keeps_folder=False)
