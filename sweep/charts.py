"""The study's charts, by Plotly: every trial in the plane of the objectives, and the effects of the factors."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweep.effects import Effect
from sweep.findings import Entry, Findings

if TYPE_CHECKING:
    import plotly.graph_objects as go

GREEN, INK, MUTED, FAINT = "#0b6e4f", "#1d2329", "#68727d", "#c9ced4"
ROW = 24  # px per line of an effects chart
WITH_INTERVALS = 12  # usable trials whose intervals can be drawn without hiding each other


def front_figure(found: Findings) -> "go.Figure":
    """Every scored trial by its first two objectives, with the Pareto front of the feasible ones as a line."""
    import plotly.graph_objects as go

    figure = go.Figure()
    infeasible, feasible = found.of("infeasible"), found.of("feasible")
    if infeasible:
        named = not feasible and len(infeasible) <= WITH_INTERVALS
        _points(figure, infeasible, f"ruled out ({len(infeasible)})", {"symbol": "x-thin", "size": 8}, labels=named)
        figure.data[-1].marker.line = {"width": 1.5, "color": MUTED}
    if feasible:
        line = sorted(found.of("front"), key=lambda entry: entry.trial.values[0])
        xs, ys = _stairs(line)
        figure.add_scatter(x=xs, y=ys, mode="lines", name="front", line={"color": GREEN, "width": 1.5, "dash": "dot"})
        few = len(feasible) <= WITH_INTERVALS
        _points(figure, feasible, f"usable ({len(feasible)})", {"color": GREEN, "size": 10}, bars=few)
        _points(figure, found.of("front"), "", {"size": 22, "color": "rgba(0,0,0,0)"}, labels=True)  # beside the ring
        figure.data[-1].showlegend = False
    top = found.best
    if top is not None:
        ring = {"size": 20, "color": "rgba(0,0,0,0)", "line": {"color": GREEN, "width": 2}}
        _points(figure, [top], f"{found.first.removeprefix('the ')} ({top.number})", ring)
    names = [*found.names, ""]
    figure.update_xaxes(title=f"{names[0]}  →  better", gridcolor="#eceff1", zeroline=False)
    figure.update_yaxes(title=f"{names[1]}  →  better", gridcolor="#eceff1", zeroline=False)
    figure.update_layout(**_layout(460, legend=True))
    return figure


def _points(
    figure: "go.Figure",
    entries: Sequence[Entry],
    name: str,
    marker: Mapping[str, Any],
    *,
    bars: bool = False,
    labels: bool = False,
) -> None:
    values = [entry.trial.values for entry in entries]
    two = len(values[0]) > 1
    figure.add_scatter(
        x=[value[0] for value in values],
        y=[value[1] if two else entry.trial.number for value, entry in zip(values, entries, strict=True)],
        mode="markers+text" if labels else "markers",
        text=[entry.number for entry in entries] if labels else None,
        textposition="top right",
        textfont={"size": 11, "color": INK},
        name=name,
        marker=dict(marker),
        customdata=[[entry.number, entry.label, entry.verdict] for entry in entries],
        hovertemplate="%{customdata[0]}  %{customdata[1]}<br>%{x:.3f}, %{y:.3f}<br>usable: %{customdata[2]}"
        "<extra></extra>",
        error_x=_bars(entries, 0) if bars else None,
        error_y=_bars(entries, 1) if bars and two else None,
    )


def _bars(entries: Sequence[Entry], index: int) -> dict[str, Any]:
    objective = ("style", "composition")[index]
    pairs = [(entry.trial.values[index], entry.interval(objective)) for entry in entries]
    return {
        "type": "data",
        "symmetric": False,
        "thickness": 1,
        "width": 0,
        "color": FAINT,
        "array": [max(0.0, bounds[1] - value) if bounds else 0.0 for value, bounds in pairs],
        "arrayminus": [max(0.0, value - bounds[0]) if bounds else 0.0 for value, bounds in pairs],
    }


def _stairs(front: Sequence[Entry]) -> tuple[list[float], list[float]]:
    """The edge of what the front dominates: right, then down."""
    xs: list[float] = []
    ys: list[float] = []
    for entry in front:
        x, y = (*entry.trial.values, float(entry.trial.number))[:2]
        if xs:
            xs.append(xs[-1])
            ys.append(y)
        xs.append(x)
        ys.append(y)
    return xs, ys


def effects_figure(effects: Sequence[Effect], outcome: str, wide: Sequence[float]) -> "go.Figure":
    """The effect of every level with its interval, factor below factor; `wide` is the common range of the axis."""
    import plotly.graph_objects as go

    figure = go.Figure()
    labels = [f"{effect.words}  (n {effect.trials})" for effect in effects]
    for clear, colour in ((False, MUTED), (True, GREEN)):
        group = [(label, effect) for label, effect in zip(labels, effects, strict=True) if effect.clear is clear]
        if not group:
            continue
        figure.add_scatter(
            x=[effect.value for _, effect in group],
            y=[label for label, _ in group],
            mode="markers",
            marker={"color": colour, "size": 8},
            error_x={
                "type": "data",
                "symmetric": False,
                "thickness": 1.5,
                "width": 0,
                "color": colour,
                "array": [effect.high - effect.value for _, effect in group],
                "arrayminus": [effect.value - effect.low for _, effect in group],
            },
            hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    figure.update_yaxes(categoryorder="array", categoryarray=labels[::-1], automargin=True, showgrid=False)
    figure.update_yaxes(ticks="outside", ticklen=8, tickcolor="rgba(0,0,0,0)")
    figure.update_xaxes(range=list(wide), gridcolor="#eceff1", zeroline=False, nticks=5, tickangle=0)
    figure.update_layout(**_layout(60 + ROW * len(labels)), title={"text": outcome, "x": 0, "font": {"size": 14}})
    return figure


def effects_range(found: Findings) -> tuple[float, float]:
    """One axis for all effects, so that they can be compared by eye."""
    bounds = [bound for list_ in found.effects.values() for e in list_ for bound in (e.low, e.high)]
    reach = 1.05 * max(map(abs, bounds), default=1.0)
    return -reach, reach


def _layout(height: int, *, legend: bool = False) -> dict[str, Any]:
    return {
        "template": "plotly_white",
        "height": height,
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        "margin": {"l": 10, "r": 14, "t": 36, "b": 10},
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
        "hoverlabel": {"font": {"family": "system-ui, sans-serif"}},
        "dragmode": False,
    }
