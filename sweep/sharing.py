"""Who may run a study: one process, which holds its folder, or any number of them, which share its database.

`study.storage=postgresql://user@host/database` (MySQL likewise) puts the study into a database server; the same command
on any machine then joins it. What must not happen twice, opening the study and taking a trial, is done one process at a
time under an advisory lock of the server, which falls when its holder dies. A process shows that it lives by a
heartbeat on its trial, and by a lock file in the trial's folder to who can see that. A trial that is silent for four
heartbeats is taken over, under its number, by whoever sees it first, and continues from its checkpoint where that
machine can reach it.

The slots of one command (`sweep.slots`) share SQLite in the same way, with lock files in the study's folder.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from sweep.database import ADDRESS, DATABASE, SILENT, address_of, connector, out_of_reach
from sweep.errors import InputError, StudyMismatch
from sweep.settings import NO_PASSWORD, PASSWORD, StudySettings, study_folder
from sweep.study import file_lock, study_lock

SLOT = "slot"  # on a trial: which slot of a command runs it
LONGEST_WAIT_S = 5.0  # between two looks at trials that run elsewhere
BACK_S = 10.0  # that a process may take to reach a server which is back: it tries every second, on a busy machine
DRIVERS = {
    "postgresql": ("postgresql+psycopg", "pip install 'stylesweep[postgres]'"),
    "mysql": ("mysql+pymysql", "pip install 'stylesweep[mysql]'"),
}


class Hold(Protocol):
    """What a driver asks about the other processes of its study."""

    def whole(self) -> AbstractContextManager[Any]:
        """Holds the study for as long as this process runs it."""

    def claim(self) -> AbstractContextManager[Any]:
        """Keeps the others waiting while a trial is taken."""

    def orphans(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those of the study's trials that a process left unfinished."""

    def elsewhere(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those that another process is running."""

    def beat(self, study: optuna.Study, trial: Trial) -> None:
        """Says that the trial is not left."""

    def alive(self, study: optuna.Study, trial: Trial) -> AbstractContextManager[Any]:
        """Goes on saying so for as long as the block runs."""

    def is_back(self) -> bool:
        """Whether a database that broke off can be reached again."""


class Alone:
    """One process at a time: SQLite in the study's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def whole(self) -> AbstractContextManager[Any]:
        """The folder's lock."""
        return study_lock(self.folder)

    def claim(self) -> AbstractContextManager[Any]:
        """Nobody to keep waiting."""
        return nullcontext()

    def orphans(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Whatever is running, since nobody else can be."""
        return _running(trials)

    def elsewhere(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """None."""
        return []

    def beat(self, study: optuna.Study, trial: Trial) -> None:
        """Nobody to tell."""

    def alive(self, study: optuna.Study, trial: Trial) -> AbstractContextManager[Any]:
        """Nobody to tell."""
        return nullcontext()

    def is_back(self) -> bool:
        """No: what is wrong with a file does not pass by itself."""
        return False


class Together(Alone):
    """A slot of a command that holds the study's folder: SQLite, and lock files that fall with their processes."""

    def __init__(self, folder: Path, slot: int) -> None:
        super().__init__(folder)
        self.slot = slot

    def whole(self) -> AbstractContextManager[Any]:
        """The slot's own lock, by which the others see that it lives."""
        return file_lock(self._lock_of(self.slot), wait=True)  # another slot may be looking at it

    def _lock_of(self, slot: int) -> Path:
        return self.folder / f".slot{slot}"

    def claim(self) -> AbstractContextManager[Any]:
        """One slot at a time."""
        return file_lock(self.folder / ".claim", wait=True)

    def orphans(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Trials without a living slot; this one has nothing in hand when it asks."""
        return [trial for trial in _running(trials) if not self._is_run(trial)]

    def _is_run(self, trial: FrozenTrial) -> bool:
        slot = trial.user_attrs.get(SLOT)
        if slot is None or slot == self.slot:
            return False
        with file_lock(self._lock_of(slot)) as holder:
            return holder is not None

    def elsewhere(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """What the other slots run."""
        return [trial for trial in _running(trials) if self._is_run(trial)]

    def beat(self, study: optuna.Study, trial: Trial) -> None:
        """Says which slot has it."""
        trial.set_user_attr(SLOT, self.slot)


class Shared:
    """Any number of processes on one database server."""

    def __init__(self, folder: Path, address: str, heartbeat_seconds: int) -> None:
        self.address = address
        self.heartbeat_seconds = heartbeat_seconds
        self.folder = folder
        self.silent: dict[int, float] = {}  # id of a trial without signs of life -> when that was first seen
        self.lock = hashlib.blake2b(folder.name.encode(), digest_size=7).hexdigest()

    def whole(self) -> AbstractContextManager[Any]:
        """Everybody is welcome, if the server can be reached now."""
        try:
            connector(self.address, away_s=0)().close()
        except Exception as fault:  # each driver has its own errors
            raise InputError(out_of_reach(str(fault).splitlines()[0])) from fault
        self.folder.mkdir(parents=True, exist_ok=True)
        if address_of(self.folder) != self.address:  # whoever reads it meanwhile shall not find it empty
            draft = self.folder / f".{ADDRESS}.{os.getpid()}"
            draft.write_text(f"{self.address}\n", encoding="utf-8")
            draft.replace(self.folder / ADDRESS)
        return nullcontext()

    @contextmanager
    def claim(self) -> Iterator[None]:
        """The server's advisory lock, on a connection of its own."""
        from sqlalchemy import create_engine, text
        from sqlalchemy.pool import NullPool

        engine = create_engine(self.address, creator=connector(self.address), poolclass=NullPool)
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": int(self.lock, 16)})
            else:
                while connection.scalar(text("SELECT GET_LOCK(:key, 60)"), {"key": self.lock}) != 1:
                    pass  # MariaDB, unlike MySQL, knows no wait without an end
            yield

    def orphans(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Trials whose process has been silent too long, or died before its first sign of life.

        After a server was away all of them are silent. Those that live show it as soon as they have reached it and a
        heartbeat is due: so that is waited for. Where the folder is shared, a trial's lock file says it at any time.
        """
        running = [trial for trial in _running(trials) if not self._is_held(trial.number)]
        storage: Any = study._storage
        silent = set(storage._get_stale_trial_ids(study._study_id)) if running else set()
        silent |= {trial._trial_id for trial in running if self._died_young(trial)}
        now = time.monotonic()
        self.silent = {name: self.silent.get(name, now) for name in silent}
        left = {name for name, since in self.silent.items() if now - since >= BACK_S + self.heartbeat_seconds}
        return [trial for trial in running if trial._trial_id in left]

    def _lock_of(self, number: int) -> Path:
        return self.folder / f"{number:04d}" / ".running"

    def _is_held(self, number: int) -> bool:
        """Whether a process that this machine can see has the trial in hand, however long the server was away."""
        if not self._lock_of(number).exists():
            return False
        try:
            with file_lock(self._lock_of(number)) as holder:
                return holder is not None
        except OSError:  # a disk without locks
            return False

    @contextmanager
    def _held(self, number: int) -> Iterator[None]:
        self._lock_of(number).parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            with suppress(OSError):  # a disk without locks: the heartbeats alone say that it lives
                stack.enter_context(file_lock(self._lock_of(number), wait=True))  # another may be looking at it
            yield

    def _died_young(self, trial: FrozenTrial) -> bool:
        began = trial.datetime_start
        if "attempts" in trial.user_attrs or began is None:
            return False
        return time.time() - began.timestamp() > SILENT * self.heartbeat_seconds

    def elsewhere(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Whatever is running, since this process has nothing in hand when it asks."""
        return _running(trials)

    def beat(self, study: optuna.Study, trial: Trial) -> None:
        """One heartbeat, by the server's clock."""
        storage: Any = study._storage
        storage.record_heartbeat(trial._trial_id)

    @contextmanager
    def alive(self, study: optuna.Study, trial: Trial) -> Iterator[None]:
        """A thread that records the trial's heartbeats, and a lock file that falls with this process."""
        over = threading.Event()

        def go_on() -> None:
            while not over.wait(self.heartbeat_seconds):
                try:
                    self.beat(study, trial)
                except Exception as fault:  # the server is away; the next beat may reach it, and no beat is no fault
                    optuna.logging.get_logger(__name__).debug("no heartbeat: %s", type(fault).__name__)

        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        try:
            with self._held(trial.number):
                yield
        finally:
            over.set()
            thread.join()

    def is_back(self) -> bool:
        """Yes, as soon as it is, within the time that a server may be away."""
        try:
            connector(self.address)().close()
        except Exception:  # each driver has its own errors
            return False
        return True


def _running(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.RUNNING]


def hold_of(settings: StudySettings, slot: int | None = None) -> Hold:
    """How this process holds its study.

    Args:
        slot: the process is this slot of a command; None: it is the command.

    Raises:
        InputError: for an address that cannot be used; it is not repeated where it holds a password.
        StudyMismatch: if the folder has a study of its own already.
    """
    folder = study_folder(settings)
    address = settings.storage or address_of(folder)
    if not address:
        return Alone(folder) if slot is None else Together(folder, slot)
    if (folder / DATABASE).is_file():
        raise StudyMismatch(
            f"the study {folder.name} lives in {folder / DATABASE}, not in `study.storage`. Give the new one its own"
            f" name, study.name={folder.name}_2"
        )
    return Shared(folder, checked_address(address), settings.heartbeat_seconds)


def checked_address(address: str) -> str:
    """The address with the driver that is meant.

    Raises:
        InputError: if it is none, holds a password, or its driver is not installed.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        url = make_url(address)
    except ArgumentError:
        raise InputError(f"`study.storage` must be an address such as {EXAMPLE}") from None
    kind = url.drivername.partition("+")[0]
    if kind not in DRIVERS:
        raise InputError(f"`study.storage` must be PostgreSQL or MySQL, such as {EXAMPLE}; empty: SQLite, one process")
    if PASSWORD.search(address):
        raise InputError(NO_PASSWORD)
    driver, way_out = DRIVERS[kind]
    named = url.drivername.partition("+")[2]
    if named:
        way_out += f", and write {kind}:// without +{named}"
    else:
        url = url.set(drivername=driver)
    try:
        url.get_dialect().import_dbapi()
    except (ImportError, NoSuchModuleError) as fault:
        raise InputError(f"`study.storage`: the driver for {kind} is not installed ({fault}): {way_out}") from None
    return url.render_as_string(hide_password=False)


EXAMPLE = "postgresql://user@host/database"


def wait_elsewhere(hold: Hold, study: optuna.Study, say: Callable[[str], None]) -> bool:
    """Waits a moment for trials that run elsewhere; whether there are any."""
    others = hold.elsewhere(study.get_trials(deepcopy=False))
    if others:
        say(f"waiting for what runs elsewhere: {', '.join(f'{trial.number:04d}' for trial in others)}")
        time.sleep(LONGEST_WAIT_S)
    return bool(others)
