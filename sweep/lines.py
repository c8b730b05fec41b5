"""The lines of one command or trial; light, as a refused command has to say its reason within a second."""

from __future__ import annotations

import logging
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.typed import folded

if TYPE_CHECKING:
    from rich.console import Console

STEP_LINE_EVERY_S = 5.0
LOGGER = logging.getLogger("stylesweep")


def console() -> Console:
    """Where progress goes: standard output as it is now, without colours unless it is a terminal."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, soft_wrap=False, markup=False)


def duration(seconds: float) -> str:
    """A time as exact as one needs it: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{max(0, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def shown(path: Path) -> str:
    """A path as one types it: relative where it lies below the working folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


class StepProgress:
    """The lines inside one trial: phase, step of steps, and no more than one line every few seconds."""

    def __init__(self) -> None:
        self.last = 0.0
        self.phase = ""

    @cached_property
    def console(self) -> Console:
        """Where they go, looked for with the first of them: a refused command has none."""
        return console()

    def __call__(self, phase: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if phase != self.phase or done == total or now - self.last > STEP_LINE_EVERY_S:
            self.last, self.phase = now, phase
            self._print(f"{phase} {done}/{total}{'  ' + note if note else ''}")

    def say(self, text: str) -> None:
        """A line of its own."""
        for line in text.splitlines():
            self._print(line)

    def _print(self, line: str) -> None:
        self.console.print(folded(line, "    "), soft_wrap=True)
        LOGGER.info(line)  # to trial.log in the trial's folder, where `sweep.status` looks
