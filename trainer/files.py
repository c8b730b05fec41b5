"""Writing a file so that it is there whole or not at all, and telling whether one is still what it was."""

import os
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b, file_digest
from pathlib import Path
from uuid import uuid4


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file that either is there whole or not at all, even when the process is killed.

    Raises:
        OSError: as the system reports it, naming the file (a full disk among others).
    """
    part = path.with_name(f".part-{uuid4().hex}")  # with the rights of any new file; tempfile's are for one person
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            part.unlink()


def file_state(path: Path) -> tuple[Path, int, int, int]:
    """What changes when a file is written or replaced: path, time of change in ns, size in bytes, inode."""
    found = path.stat()
    return path.absolute(), found.st_mtime_ns, found.st_size, found.st_ino


def file_id(path: Path) -> str:
    """A hash of what is in a file, 32 hexadecimal digits; read once while the file stays what it is."""
    return _hash(*file_state(path))


@lru_cache(maxsize=10_000)  # judges of gigabytes are asked for in every trial
def _hash(path: Path, changed_ns: int, size: int, inode: int) -> str:
    with path.open("rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()
