"""`python -m sweep.dashboard [STUDY_FOLDER]`: optuna-dashboard on a study, with its pictures; the newest by default.

Bound to this machine only, as the dashboard has no login and can delete what it shows.
"""

import argparse
import sys
from pathlib import Path

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from sweep.errors import InputError
from sweep.record import artifact_store
from sweep.study import DATABASE, storage
from sweep.typed import python


def newest_study(folder: Path) -> Path:
    """The study that was written to last.

    Raises:
        InputError: if there is none.
    """
    databases = sorted(folder.glob(f"*/{DATABASE}"), key=lambda file: file.stat().st_mtime)
    if not databases:
        raise InputError(f"no study in {folder.absolute()}: make one with {python()} -m sweep -m (or make sweep)")
    return databases[-1].parent


def _refresh(folder: Path) -> None:
    """Brings notes and charts up to date; a study that cannot be written to is shown as it is."""
    from sweep.findings import find
    from sweep.notes import write_notes
    from sweep.study import load_study

    try:
        write_notes(find(load_study(folder), folder))
    except (OperationalError, StorageInternalError) as fault:
        print(f"warning: the notes are not up to date: {fault}", file=sys.stderr)


def main(arguments: list[str]) -> None:
    """Serves until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m sweep.dashboard", description=__doc__.split("\n\n")[0])
    parser.add_argument("study", nargs="?", type=Path, help="folder of the study; default: the newest in multirun/")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=8080)
    given = parser.parse_args(arguments)
    try:
        folder = (given.study or newest_study(Path("multirun"))).absolute()
        if not (folder / DATABASE).is_file():
            raise InputError(f"{folder} has no study ({DATABASE})")
    except InputError as fault:
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(2)
    _refresh(folder)
    print(f"study {folder.name} at http://{given.host}:{given.port}/dashboard   (Ctrl-C ends it)", flush=True)
    from optuna_dashboard import run_server

    try:
        run_server(storage(folder), host=given.host, port=given.port, artifact_store=artifact_store(folder))
    except KeyboardInterrupt:
        print("\nStopped.")
    except OSError as fault:
        print(f"error: {given.host}:{given.port}: {fault.strerror}. Choose another: --port 8081", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
