"""Several processes on one study, in a real PostgreSQL: no trial twice, none too many, none left behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from sweep.database import Patient, connector
from sweep.drawing import ground
from sweep.errors import InputError, StorageLost
from sweep.rules import Conditions
from sweep.settings import SearchSettings, StudySettings
from sweep.sharing import Shared, checked_address, hold_of
from sweep.study import load_study, open_study
from tests.sweep.conftest import TOY, Run, command, environment


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """One more process on the study."""
    return subprocess.Popen(
        [sys.executable, str(TOY), "-m", *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_four_processes_share_a_study_and_take_over_what_a_dead_one_left(server: str, toy: Run, tmp_path: Path) -> None:
    words = [f'study.storage="{server}"', "study.heartbeat_seconds=1", "search.n_trials=9", "behave=kill", "when=2"]
    workers = [start(tmp_path, *words) for _ in range(4)]
    said = [worker.communicate(timeout=250)[0] for worker in workers]
    codes = sorted(worker.returncode for worker in workers)
    assert codes == [-signal.SIGKILL, 0, 0, 0], "\n".join(said)
    study = load_study(tmp_path / "multirun" / "toy")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 9
    assert len({str(trial.params) for trial in study.trials}) == 9
    ran = [(tmp_path / "multirun" / "toy" / f"{n:04d}" / "runs.txt").read_text().count("\n") for n in range(9)]
    assert ran == [1, 1, 2, 1, 1, 1, 1, 1, 1], "only the trial whose process was killed ran twice, in its own folder"
    assert not (tmp_path / "multirun" / "toy" / "study.db").exists()
    again = toy("search.n_trials=9", "behave=kill", "when=2")
    assert again.code == 0 and "9 done, 0 to run" in again.out, "the folder knows where its study lives"


@pytest.mark.parametrize("away_s", [7, pytest.param(35, marks=pytest.mark.cluster)])
def test_a_server_that_goes_away_for_a_while_costs_nothing(away_s: float, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        import pgserver

        server = pgserver.get_server(f"{folder}/data")
        address = server.get_uri().replace(":@", "@")
        words = [f'study.storage="{address}"', "study.heartbeat_seconds=1", "search.n_trials=3"]
        workers = [start(tmp_path, *words, "behave=pause", "when=1") for _ in range(2)]
        end = time.monotonic() + 150
        while not (tmp_path / "multirun" / "toy" / "0001" / "seen").exists() and time.monotonic() < end:
            time.sleep(0.05)
        server.cleanup()
        time.sleep(away_s)  # longer than the job's pause, which ends meanwhile, and than a trial may be silent
        server = pgserver.get_server(f"{folder}/data")
        said = [worker.communicate(timeout=200)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], "\n".join(said)
        study = load_study(tmp_path / "multirun" / "toy")
        assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
        ran = [(tmp_path / "multirun" / "toy" / f"{n:04d}" / "runs.txt").read_text().count("\n") for n in range(3)]
        assert ran == [1, 1, 1], "none was taken for left while nobody could show that he lives"
        server.cleanup()


# Ends every connection of the server as soon as each of these statements is about to be said, and again when it has
# been said and shall be kept, in whichever process that is.
CUT = """
import runpy, sys
from pathlib import Path
import psycopg
from sqlalchemy import event
from sqlalchemy.engine import Engine
marks = ("trial_heartbeats", "INSERT INTO trial_user_attributes", "INSERT INTO trial_values", "SELECT trials.")
def end_all():
    with psycopg.connect({address!r}, autocommit=True) as own:
        own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
def first(what):
    try:
        Path(what).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
@event.listens_for(Engine, "before_cursor_execute")
def before(connection, cursor, statement, *rest):
    for number, mark in enumerate(marks):
        if mark in statement and Path("multirun/cut/0000/runs.txt").exists():
            connection.info["mark"] = number
            if first(f"said_{{number}}"):
                end_all()
@event.listens_for(Engine, "commit")
def commit(connection):
    number = connection.info.pop("mark", None)
    if number is not None and first(f"kept_{{number}}"):
        end_all()
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_server_that_breaks_off_in_the_middle_of_a_statement_is_told_it_again(server: str, tmp_path: Path) -> None:
    words = [f'study.storage="{server}"', "study.name=cut", "study.heartbeat_seconds=1", "search.n_trials=3"]
    ran = command("-c", CUT.format(address=server, argv=[str(TOY), "-m", *words]), cwd=tmp_path)
    assert ran.code == 0, ran.text
    study = load_study(tmp_path / "multirun" / "cut")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    ran_times = [(tmp_path / "multirun" / "cut" / f"{n:04d}" / "runs.txt").read_text().count("\n") for n in range(3)]
    assert ran_times == [1, 1, 1], "no training is repeated for a word that did not arrive"
    assert {file.name[:4] for file in tmp_path.glob("*_?")} == {"said", "kept"}, "it was cut, before and after"


def test_a_trial_that_optuna_asks_for_again_is_not_begun_where_another_was_meanwhile(server: str) -> None:
    shared = Patient(server.replace("postgresql:", "postgresql+psycopg:"))
    study = optuna.create_study(storage=shared, study_name="late")
    field = ground(SearchSettings(), {"x": IntDistribution(0, 9)}, Conditions())
    assert field.begin(study, []).number == 0
    with pytest.raises(StorageLost, match="broke off"):
        field.begin(study, [])  # in whose eyes nobody has begun one
    study.enqueue_trial({"x": 1})
    assert [trial.state for trial in study.get_trials()] == [TrialState.RUNNING, TrialState.WAITING]
    shared.remove_session()
    shared.engine.dispose()


# Ends every connection of the server when a trial has just been taken, the one that holds the lock among them.
BREAK = """
import runpy, sys
import psycopg
from optuna.storages import RDBStorage
real, calls = RDBStorage._create_new_trial, [0]
def breaking(self, *args, **kwargs):
    trial = real(self, *args, **kwargs)
    calls[0] += 1
    if calls[0] == 2:
        with psycopg.connect({address!r}, autocommit=True) as own:
            own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    return trial
RDBStorage._create_new_trial = breaking
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_server_that_breaks_off_in_the_middle_of_something_is_asked_again(server: str, tmp_path: Path) -> None:
    words = [f'study.storage="{server}"', "study.name=broken", "study.heartbeat_seconds=1", "search.n_trials=3"]
    ran = command("-c", BREAK.format(address=server, argv=[str(TOY), "-m", *words]), cwd=tmp_path)
    assert ran.code == 0, ran.text
    assert "It is back, and the study goes on." in " ".join(ran.out.split())
    study = load_study(tmp_path / "multirun" / "broken")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_trial_in_hand_is_not_taken_for_left_however_long_its_server_was_away(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweep.sharing.BACK_S", 1)
    settings = StudySettings(folder=str(tmp_path), name="held", storage=server, heartbeat_seconds=1)
    there, here = hold_of(settings), hold_of(settings)
    with there.whole():
        study = open_study(tmp_path / "held", SearchSettings(), {}, {}, heartbeat_seconds=1)
    trial = study.ask()
    there.beat(study, trial)
    assert isinstance(there, Shared) and isinstance(here, Shared)
    there.heartbeat_seconds = 1000  # its thread cannot reach the server, that is
    with there.alive(study, trial):
        assert _left(here, study, 9) == []
    assert _left(here, study, 60) == [0], "and is, once its process has let go of it"
    storage: Any = study._storage
    storage._backend.engine.dispose()


def _left(hold: Shared, study: optuna.Study, seconds: float) -> list[int]:
    """Numbers of the trials that are taken for left within so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if left := hold.orphans(study, study.get_trials(deepcopy=False)):
            return [trial.number for trial in left]
        time.sleep(0.5)
    return []


def test_a_server_that_is_away_for_a_while_is_waited_for(server: str) -> None:
    calls = []
    connect = connector(checked_address(server), away_s=20)
    gone = connector("postgresql+psycopg://nobody@127.0.0.1:1/none", away_s=1.5)
    began = time.monotonic()
    with pytest.raises(Exception, match="refused"):
        calls.append(gone())
    assert time.monotonic() - began >= 1.5 and not calls
    connect().close()


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("postgresql://me:s3cret@host/db", ("holds a password", "PGPASSWORD")),
        ("postgresql://me@host/db?password=s3cret", ("holds a password", "PGPASSWORD")),
        ("mysql+nodriver://me@host/db", ("is not installed", "stylesweep[mysql]")),
        ("postgresql+nodriver://me@host/db", ("is not installed", "stylesweep[postgres]", "without +nodriver")),
        ("sqlite:///x.db", ("PostgreSQL or MySQL",)),
        ("nonsense", ("postgresql://user@host/database",)),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_never_repeated(address: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as fault:
        checked_address(address)
    assert all(part in str(fault.value) for part in parts), fault.value
    assert "s3cret" not in str(fault.value)


def test_a_server_out_of_reach_is_told_at_once(tmp_path: Path) -> None:
    settings = StudySettings(folder=str(tmp_path), storage="postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(InputError, match="cannot be reached"), hold_of(settings).whole():
        pass
    assert not list(tmp_path.rglob("storage.txt")), "and nothing is left of it"
