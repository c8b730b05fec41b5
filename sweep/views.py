"""Everything a finished sweep leaves to look at: the report, the dashboard's notes, the summary run of W&B."""

from collections.abc import Callable
from pathlib import Path

import optuna

from sweep.findings import find
from sweep.notes import write_notes
from sweep.report import write_found
from sweep.tracking import track_study
from sweep.typed import typed


def write_views(study: optuna.Study, folder: Path, say: Callable[[str], None]) -> None:
    """Writes all of them; a view that cannot be written costs a line and never the study."""
    found = find(study, folder)
    for what, write in (
        ("the report", lambda: say(f"report: {typed(write_found(found))}")),
        ("the dashboard's notes", lambda: write_notes(found)),
        ("the summary run", lambda: track_study(found, say)),
    ):
        try:
            write()
        # A night of trainings is done: whatever is wrong with a picture, a disk or a template is told and no more.
        except Exception as fault:
            say(f"warning: {what} could not be written ({type(fault).__name__}: {fault})")
