"""Where a study is kept: SQLite in its folder, or the database server that `storage.txt` in its folder names."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from sweep.errors import InputError, StorageLost

DATABASE = "study.db"
ADDRESS = "storage.txt"  # the server's address, without a password, for everything that reads the study later
AWAY_S = 120  # a server may be out of reach while a study runs
BREAKS = 10  # of a server in the middle of a statement, after which one gives up
UNNUMBERED = -1  # a trial that is enqueued, in Optuna's way
SILENT = 4  # heartbeats missed before a trial counts as left
_OPENED: set[Path] = set()  # SQLite files whose tables this process has looked through: thirty milliseconds a time


def has_study(folder: Path) -> bool:
    """Whether a study has been begun in the folder."""
    return (folder / DATABASE).is_file() or (folder / ADDRESS).is_file()


def address_of(folder: Path) -> str:
    """The server's address, or empty for SQLite."""
    file = folder / ADDRESS
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def _again(statement: Callable[..., Any]) -> Any:
    """Says a statement again when the server broke off in the middle of it; to say it twice must be to say it once."""

    @wraps(statement)
    def patient(*args: Any, **kwargs: Any) -> Any:
        for left in reversed(range(BREAKS)):
            try:
                return statement(*args, **kwargs)
            except Exception as fault:
                if not left or not _broke_off(fault):
                    raise
        raise AssertionError  # the last round returns or raises

    return patient


def _broke_off(fault: Exception) -> bool:
    from sqlalchemy.exc import DBAPIError, PendingRollbackError

    cause = fault.__cause__ if isinstance(fault, StorageInternalError) else fault
    if isinstance(cause, PendingRollbackError):  # Optuna went on after it, in the same transaction
        return True
    return isinstance(cause, DBAPIError) and cause.connection_invalidated


class Patient(RDBStorage):
    """A server's storage: one that is restarted in the middle of a statement costs no trial.

    A new study and a new trial are not asked for twice: who takes them holds a lock of the server, which is gone too.
    """

    set_study_user_attr = _again(RDBStorage.set_study_user_attr)
    set_study_system_attr = _again(RDBStorage.set_study_system_attr)
    get_study_id_from_name = _again(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = _again(RDBStorage.get_study_name_from_id)
    get_study_directions = _again(RDBStorage.get_study_directions)
    get_study_user_attrs = _again(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = _again(RDBStorage.get_study_system_attrs)
    get_all_studies = _again(RDBStorage.get_all_studies)
    get_trial_id_from_study_id_trial_number = _again(RDBStorage.get_trial_id_from_study_id_trial_number)
    get_trial = _again(RDBStorage.get_trial)
    get_trial_system_attrs = _again(RDBStorage.get_trial_system_attrs)
    _get_trials = _again(RDBStorage._get_trials)
    _get_stale_trial_ids = _again(RDBStorage._get_stale_trial_ids)
    _set_trial_param = _again(RDBStorage._set_trial_param)
    set_trial_intermediate_value = _again(RDBStorage.set_trial_intermediate_value)
    set_trial_user_attr = _again(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = _again(RDBStorage.set_trial_system_attr)
    record_heartbeat = _again(RDBStorage.record_heartbeat)

    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Any) -> Any:
        """The trial that is begun, in a transaction of Optuna's, which says it again by itself when a server broke off:
        then another process may have held the lock, and begun that trial, meanwhile.
        """
        made: Any = super()._get_prepared_new_trial(study_id, template_trial, session)
        if template_trial is not None and template_trial.number not in (UNNUMBERED, made.number):
            raise StorageLost("`study.storage` broke off while a trial was begun.")
        return made

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Tells how a trial ended; once, also where the server broke off after it had heard it."""
        try:
            return super().set_trial_state_values(trial_id, state, values)
        except StorageInternalError as fault:
            if not state.is_finished() or not _broke_off(fault):
                raise
        try:
            return bool(_again(super().set_trial_state_values)(trial_id, state, values))
        except UpdateFinishedTrialError:
            told = self.get_trial(trial_id)
            if (told.state, told.values) != (state, None if values is None else list(values)):
                raise  # another process finished it meanwhile
            return True


def storage(folder: Path, heartbeat_seconds: int | None = None) -> RDBStorage:
    """The study's database; a minute's patience with other readers of SQLite, two with a server that is away.

    Args:
        heartbeat_seconds: between the signs of life of a trial on a server; None for who only reads.

    Raises:
        InputError: if it is damaged, out of reach, or another process holds it for longer than that.
    """
    address = address_of(folder)
    with readable(folder):
        if not address:
            file = folder / DATABASE
            known = file in _OPENED and file.is_file()
            found = RDBStorage(
                f"sqlite:///{file}",
                engine_kwargs={"connect_args": {"timeout": 60}},
                skip_compatibility_check=known,
                skip_table_creation=known,
            )
            _OPENED.add(file)
            return found
        from sqlalchemy.pool import NullPool

        # A driver keeps its connection; a job and a reader leave none open, as a server has a hundred of them.
        pool = {"pool_pre_ping": True} if heartbeat_seconds else {"poolclass": NullPool}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeat_interval, since Optuna 2.8
            return _again(Patient)(  # which asks for the tables it needs
                address,
                engine_kwargs={"creator": connector(address), **pool},
                heartbeat_interval=heartbeat_seconds,
                grace_period=SILENT * heartbeat_seconds if heartbeat_seconds else None,
            )


def connector(address: str, away_s: float = AWAY_S) -> Callable[[], Any]:
    """Makes connections to a server, and tries again while it is away.

    Args:
        away_s: s after which a server that cannot be reached is an error.
    """
    from sqlalchemy.engine import make_url
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

    url = make_url(address)
    kind: Any = url.get_dialect()
    driver: Any = kind.import_dbapi()
    positional, named = kind(dbapi=driver).create_connect_args(url)

    patience = Retrying(
        retry=retry_if_exception_type(driver.OperationalError),
        stop=stop_after_delay(away_s),
        wait=wait_fixed(1),
        reraise=True,
    )
    return lambda: patience(driver.connect, *positional, **named)


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turns what a database says of a damaged or locked file, or a server out of reach, into one message."""
    from sqlalchemy.exc import DatabaseError

    try:
        yield
    except (DatabaseError, StorageInternalError, RuntimeError) as fault:
        raise InputError(_cannot_be_used(folder, in_its_words(fault))) from fault


@contextmanager
def told_of_storage(folder: Path) -> Iterator[None]:
    """Turns a database that fails in the middle of a study into one message.

    Raises:
        StorageLost: with the database's own words and what to do.
    """
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except (StorageInternalError, DBAPIError) as fault:
        where = "`study.storage`" if address_of(folder) else str(folder / DATABASE)
        raise StorageLost(
            f"{where} failed: {in_its_words(fault)}.\n  Is its disk full, or the server gone? What has been told is"
            " kept; when it is well again, the same command continues the study."
        ) from fault


def in_its_words(fault: BaseException) -> str:
    """What the database itself said, without what the libraries above it add."""
    cause = fault.__cause__
    return str(getattr(cause, "orig", None) or getattr(fault, "orig", None) or cause or fault).splitlines()[0]


def out_of_reach(reason: str) -> str:
    """The message for a server that does not answer."""
    return f"`study.storage` cannot be reached: {reason}.\n  When it can, the same command begins or continues it."


def _cannot_be_used(folder: Path, reason: str) -> str:
    if address_of(folder):
        return out_of_reach(reason)
    return (
        f"{folder / DATABASE} cannot be used: {reason}.\n  If another program has it open, end that one; if the file is"
        f" damaged, move it away and start anew, or give a new study its own name: study.name={folder.name}_2"
    )
