"""Where a study is kept: SQLite in its folder, or the database server that `storage.txt` in its folder names."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning

from sweep.errors import InputError, StorageLost

DATABASE = "study.db"
ADDRESS = "storage.txt"  # the server's address, without a password, for everything that reads the study later
AWAY_S = 120  # a server may be out of reach while a study runs
SILENT = 4  # heartbeats missed before a trial counts as left


def has_study(folder: Path) -> bool:
    """Whether a study has been begun in the folder."""
    return (folder / DATABASE).is_file() or (folder / ADDRESS).is_file()


def address_of(folder: Path) -> str:
    """The server's address, or empty for SQLite."""
    file = folder / ADDRESS
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def storage(folder: Path, heartbeat_seconds: int | None = None) -> optuna.storages.RDBStorage:
    """The study's database; a minute's patience with other readers of SQLite, two with a server that is away.

    Args:
        heartbeat_seconds: between the signs of life of a trial on a server; None for who only reads.

    Raises:
        InputError: if it is damaged, out of reach, or another process holds it for longer than that.
    """
    address = address_of(folder)
    with readable(folder):
        if not address:
            sqlite = f"sqlite:///{folder / DATABASE}"
            return optuna.storages.RDBStorage(sqlite, engine_kwargs={"connect_args": {"timeout": 60}})
        from sqlalchemy.pool import NullPool

        # A driver keeps its connection; a job and a reader leave none open, as a server has a hundred of them.
        pool = {"pool_pre_ping": True} if heartbeat_seconds else {"poolclass": NullPool}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeat_interval, since Optuna 2.8
            return optuna.storages.RDBStorage(
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
    except (DatabaseError, optuna.exceptions.StorageInternalError, RuntimeError) as fault:
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
    except (optuna.exceptions.StorageInternalError, DBAPIError) as fault:
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
