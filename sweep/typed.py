"""Commands and paths as a person types them, and messages as a terminal shows them."""

import gc
import re
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import NoReturn

WRONG_INPUT = 2
COMMAND = " " * 4  # what a line that is to be copied as it stands begins with
IN_ADDRESS = re.compile(r"(://[^:/@\s]*:)[^@\s]+@")
IN_QUERY = re.compile(r"([?&]passw(?:or)?d=)[^&\s'\"]+")


def python(executable: str = sys.executable) -> str:
    """This interpreter: by its path when it is that of the working folder's .venv, which need not be activated."""
    here = Path(executable).absolute()  # not resolved: a venv's python is a link to the system's
    return typed(here) if here.is_relative_to(Path.cwd() / ".venv") else "python"


def typed(path: Path) -> str:
    """A path, relative where it lies below the working folder, quoted where a shell needs it."""
    relative = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return shlex.quote(str(relative))


def folded(text: str, indent: str = "") -> str:
    """The text in lines of 80 columns, fewer in a narrower terminal.

    A longer word, a path mostly, stays whole; so does a line that is set in by four columns or more: a command.
    """
    width = min(80, shutil.get_terminal_size().columns)
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(COMMAND):
            lines.append(indent + line)
            continue
        deeper = indent + line[: len(line) - len(line.lstrip())]
        lines += textwrap.wrap(
            line.strip(),
            width,
            initial_indent=deeper,
            subsequent_indent=deeper,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return "\n".join(lines)


def refuse(fault: object) -> NoReturn:
    """Ends the command with what a person has to put right; a command line that is quoted in it may hold a password."""
    told = IN_QUERY.sub(r"\1…", IN_ADDRESS.sub(r"\1…@", str(fault)))
    glued = folded(f"error:\N{NO-BREAK SPACE}{told}")  # a long path must not leave "error:" alone on its line
    print(glued.replace("\N{NO-BREAK SPACE}", " ", 1), file=sys.stderr)
    leave_at_once()
    sys.exit(WRONG_INPUT)


def leave_at_once() -> None:
    """Spares the end of a command the last search for cycles, .1 to .2 s; it has nothing open by then."""
    gc.freeze()
