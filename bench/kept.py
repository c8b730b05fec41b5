"""What a benchmark leaves: sides that are done, so that a killed one goes on; the figures that `bench-check` compares
with; and the table in bench/README.md.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FIGURES = Path(__file__).with_name("speed.json")
README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- measured -->\n", "<!-- end -->\n"
FALL = 0.2  # of a ratio, that `--check` lets pass


@dataclass(frozen=True)
class Measured:
    """One side, once."""

    side: str
    wall: float  # s
    cpu: float  # s, of all its processes
    load: float  # average of the last minute when it began
    peak_mb: float  # largest resident memory of a process
    styles: dict[str, float]  # trial -> style
    compositions: dict[str, float]
    split: dict[str, float]  # s
    flop: float  # that had to be computed
    steps: int = 0  # of the optimiser that had to be computed
    kept: dict[str, int] = field(default_factory=dict)  # what was made once for all trials, by its kind


def read_row(file: Path, trials: Sequence[str]) -> Measured | None:
    """A side that an earlier run of the benchmark has done.

    Raises:
        SystemExit: it did other trials.
    """
    if not file.is_file():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    if found["trials"] != list(trials):
        raise SystemExit(f"{file} is of other trials: choose another folder for --into, or remove it")
    return Measured(**found["row"])


def write_row(file: Path, row: Measured, trials: Sequence[str]) -> None:
    """Keeps a side, whole or not at all."""
    draft = file.with_suffix(".part")
    draft.write_text(json.dumps({"trials": list(trials), "row": asdict(row)}), encoding="utf-8")
    draft.replace(file)


def write_figures(found: Sequence[Measured], trials: Sequence[str], **others: Any) -> None:
    """Keeps all figures in speed.json."""
    plain = {"trials": list(trials), **others, "rounds": [asdict(row) for row in found]}
    FIGURES.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def figures_before(trials: Sequence[str]) -> dict[str, float]:
    """The ratios in speed.json.

    Raises:
        SystemExit: there are none, or they are of other trials.
    """
    if not FIGURES.is_file():
        raise SystemExit(f"nothing to compare with yet: python -m bench.speed --write makes {FIGURES.name}")
    kept = json.loads(FIGURES.read_text(encoding="utf-8"))
    if kept["trials"] != list(trials):
        raise SystemExit(f"{FIGURES.name} is of other trials, so that its ratios say nothing about these")
    ratios: dict[str, float] = kept["ratios"]
    return ratios


def fallen(now: Mapping[str, float], before: Mapping[str, float]) -> list[str]:
    """The ratios that fell by more than FALL."""
    return [
        f"{name}: {before[name]:.2f} before, {value:.2f} now"
        for name, value in now.items()
        if name in before and value < (1 - FALL) * before[name]
    ]


def write_table(text: str) -> None:
    """Puts a table into the README, in place of the one before."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{README.name} has lost the marks between which the table goes: {BEGIN}{END}")
    README.write_text(f"{before}{BEGIN}{text.strip()}\n{END}{after}", encoding="utf-8")
