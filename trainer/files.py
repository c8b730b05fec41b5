"""Writing a file so that it is there whole or not at all."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file that either is there whole or not at all, even when the process is killed.

    Raises:
        OSError: as the system reports it, naming the file (a full disk among others).
    """
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as file:
            part = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
