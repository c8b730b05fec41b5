"""What the benchmark prints, and the gates without which its ratios are void."""

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path

from bench.kept import Measured

EQUAL = 1e-3  # scores of P2 and ours, which do the same work
TAU = 0.95  # rank correlation of style, P1 and ours
NOISE = 0.05  # of a style between two training seeds; best with early stopping against best without


def gates(found: Sequence[Measured]) -> list[str]:
    """The conditions that are broken."""
    sides: dict[str, Measured] = {row.side: row for row in found}
    plain, loop, peer, early = (sides.get(name) for name in ("ours", "P2", "P1", "ours, stopping"))
    broken = []
    wanted = set[str]().union(*(row.styles for row in found))
    for name, row in sides.items():
        lost = sorted(wanted - set(row.styles))
        broken += [f"{name}: no scores of {', '.join(lost)}"] * (bool(lost) and row is not early)
    if plain and loop:
        apart = max(
            abs(a - b)
            for mine, theirs in ((plain.styles, loop.styles), (plain.compositions, loop.compositions))
            for a, b in ((mine[name], theirs[name]) for name in _common(mine, theirs))
        )
        broken += [f"P2 and ours: scores differ by {apart:.2g}, at most {EQUAL} is allowed"] * (apart > EQUAL)
    if plain and peer and len(_common(plain.styles, peer.styles)) > 2:
        tau = kendall(peer.styles, plain.styles)
        broken += [f"P1 and ours: Kendall's tau of style is {tau:.3f}, at least {TAU} is needed"] * (tau < TAU)
    if plain and early:
        short = max(plain.styles.values()) - max(early.styles.values())
        broken += [f"early stopping lost {short:.3f} of the best style, noise is {NOISE}"] * (short > NOISE)
    return broken


def _common(one: Mapping[str, float], other: Mapping[str, float]) -> list[str]:
    return [name for name in one if name in other]


def kendall(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Rank correlation over the trials that both have."""
    from scipy.stats import kendalltau

    names = _common(one, other)
    return float(kendalltau([one[name] for name in names], [other[name] for name in names]).statistic)


def heading(rounds: int, trials: int) -> str:
    """When, of what and on what the figures below it were taken."""
    cpu = Path("/proc/cpuinfo")
    models = [line for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    taken = f"{date.today()}, {trials} trials, {rounds} round{'s' * (rounds > 1)}"
    return f"{taken}, one thread of {os.cpu_count()} of {model}, torch {metadata.version('torch')}:"


def show(found: Sequence[Measured], ratios: Mapping[str, float], peak: float) -> str:
    """The whole table."""
    sides = list(dict.fromkeys(row.side for row in found))
    lines = ["", f"peak of one thread: {peak / 1e9:.0f} GFLOP/s", ""]
    lines += [
        "| side | wall s | CPU s | spread of CPU s | load | peak MB | % of the limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for side in sides:
        rows = [row for row in found if row.side == side]
        cpu = [row.cpu for row in rows]
        wall, load, peak_mb = (
            statistics.median(getattr(row, name) for row in rows) for name in ("wall", "load", "peak_mb")
        )
        flop = rows[0].flop
        limit = f"{flop / peak / statistics.median(cpu):.0%}" if flop else ""
        spread = f"{min(cpu):.0f} to {max(cpu):.0f}"
        lines.append(
            f"| {side} | {wall:.0f} | {statistics.median(cpu):.0f} | {spread} | {load:.1f} | {peak_mb:.0f} | {limit} |"
        )
    lines += ["", "seconds by part, median:"]
    for side in sides:
        rows = [row for row in found if row.side == side]
        parts = {part: statistics.median(row.split.get(part, 0.0) for row in rows) for part in rows[0].split}
        lines.append(f"  {side:15s} " + ", ".join(f"{part} {seconds:.1f}" for part, seconds in parts.items()))
        if rows[0].steps and parts.get("train"):
            lines[-1] += f"; {rows[0].steps / parts['train']:.1f} steps a second"
        if rows[0].kept:
            trials = len(rows[0].styles)
            found_again = ", ".join(
                f"{kind} {(trials - 1) * made} of {trials * made}" for kind, made in rows[0].kept.items()
            )
            lines.append(f"  {'':15s} found in the cache: {found_again}")
    lines += ["", "style by trial, last round:"]
    last = {side: [row for row in found if row.side == side][-1] for side in sides}
    for name in last[sides[0]].styles:
        values = "  ".join(f"{side} {row.styles.get(name, float('nan')):.4f}" for side, row in last.items())
        lines.append(f"  {name:15s} {values}")
    if {"P1", "ours"} <= set(last):
        lines.append(f"Kendall's tau of style, P1 and ours: {kendall(last['P1'].styles, last['ours'].styles):.3f}")
    lines += ["", "ratios of CPU seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in ratios.items())]
    return "\n".join(lines)
