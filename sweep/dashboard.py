"""`python -m sweep.dashboard [STUDY]`: optuna-dashboard on a study, with its pictures; the newest by default.

Bound to this machine only, as the dashboard has no login and can delete what it shows.
"""

import argparse
import signal
import sys
from copy import copy
from functools import partial
from pathlib import Path

from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial
from sqlalchemy.exc import OperationalError

from sweep.database import storage
from sweep.errors import InputError
from sweep.interrupts import put_away_first
from sweep.naming import add_study, find_study
from sweep.record import artifact_store
from sweep.study import is_feasible
from sweep.typed import refuse


def _refresh(folder: Path) -> str:
    """Brings notes and charts up to date; a study that cannot be written to is shown as it is.

    Returns:
        the study's page below the dashboard's; empty where it cannot be told.
    """
    from sweep.findings import find
    from sweep.notes import write_notes
    from sweep.study import load_study

    page = ""
    try:
        study = load_study(folder)
        page = f"/studies/{study._study_id}"
        write_notes(find(study, folder))
    except (OperationalError, StorageInternalError) as fault:
        print(f"warning: the notes are not up to date: {fault}", file=sys.stderr)
    return page


def add_address(parser: argparse.ArgumentParser) -> None:
    """Where to listen."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine only)")
    parser.add_argument("--port", type=int, default=8080)


def _adapt_pages() -> None:
    """Has optuna-dashboard's pages tell the infeasible trials, in their charts and among the best; quietly.

    Its pages know constraints as Optuna 4 wrote them, a list, and its server's Pareto front knows none; Optuna 5 writes
    each one by its name.
    """
    from optuna_dashboard import _app
    from optuna_dashboard._serializer import CONSTRAINTS_KEY

    read, front = _app.get_trials, _app.get_pareto_front_trials

    def with_list(trial: FrozenTrial) -> FrozenTrial:
        if CONSTRAINTS_KEY in trial.system_attrs or not trial.constraints:
            return trial
        shown = copy(trial)  # the storage keeps the original
        shown._system_attrs = {**trial.system_attrs, CONSTRAINTS_KEY: list(trial.constraints.values())}
        return shown

    _app.run = partial(_app.run, quiet=True)  # else a line for every request
    _app.get_trials = lambda *place: [with_list(trial) for trial in read(*place)]
    _app.get_pareto_front_trials = lambda trials, directions: front(list(filter(is_feasible, trials)), directions)


def serve(folder: Path, host: str, port: int) -> None:
    """Serves until Ctrl-C.

    Raises:
        InputError: if the address is taken or not this machine's.
    """
    from optuna_dashboard import run_server

    try:
        _adapt_pages()
    except (ImportError, AttributeError) as fault:  # its own names, of 0.21
        print(
            f"warning: another optuna-dashboard, its pages take ruled-out trials for good ones: {fault}",
            file=sys.stderr,
        )
    put_away_first()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a server that waits for its open pages would not end on `kill`
    try:
        run_server(storage(folder), host=host, port=port, artifact_store=artifact_store(folder))
    except KeyboardInterrupt:
        print("\nStopped.")
    except OSError as fault:
        raise InputError(f"{host}:{port}: {fault.strerror}. Choose another: --port 8081") from fault


def main(arguments: list[str]) -> None:
    """Brings the notes up to date and serves."""
    parser = argparse.ArgumentParser(prog="python -m sweep.dashboard", description=__doc__.split("\n\n")[0])
    add_study(parser)
    add_address(parser)
    given = parser.parse_args(arguments)
    try:
        folder = find_study(given.study)
        address = f"http://{given.host}:{given.port}/dashboard{_refresh(folder)}"
        print(f"study {folder.name} at {address}   (Ctrl-C ends it)", flush=True)
        serve(folder, given.host, given.port)
    except InputError as fault:
        refuse(fault)


if __name__ == "__main__":
    main(sys.argv[1:])
