"""Commands and paths as a person types them, in messages and at the end of a sweep."""

import shlex
import sys
from pathlib import Path


def python(executable: str = sys.executable) -> str:
    """This interpreter: by its path when it is that of the working folder's .venv, which need not be activated."""
    here = Path(executable).absolute()  # not resolved: a venv's python is a link to the system's
    return typed(here) if here.is_relative_to(Path.cwd() / ".venv") else "python"


def typed(path: Path) -> str:
    """A path, relative where it lies below the working folder, quoted where a shell needs it."""
    relative = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return shlex.quote(str(relative))
