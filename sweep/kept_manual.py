"""What `python -m sweep --help` says, kept beside Python's bytecode while nothing that it is made from has changed.

To make it, Hydra and OmegaConf are loaded and a configuration is composed: a second on a slow machine.
"""

import os
import shutil
import sys
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from trainer.files import write_atomic

HERE = Path(__file__).parent
KEPT = HERE / "__pycache__" / "help.txt"
MADE_FROM = ("conf", "sweep", "trainer", "metrics")
COLUMNS = 80  # a narrower terminal has it folded anew


def state() -> str | None:
    """What stands for the files it is made from, by what Python's bytecode goes by as well: time of change and size.

    Returns:
        None if the command line asks for more than the manual, or the terminal is too narrow for its lines.
    """
    if sys.argv[1:] not in (["--help"], ["-h"]) or shutil.get_terminal_size().columns < COLUMNS:
        return None
    files = sorted(file for room in MADE_FROM for file in (HERE.parent / room).rglob("*.[py]*"))
    looked = [(file, file.stat()) for file in files if file.suffix in (".py", ".yaml") and file.is_file()]
    said = [f"{file} {stat.st_mtime_ns} {stat.st_size}" for file, stat in looked]
    return blake2b("\n".join(said).encode(), digest_size=16).hexdigest()


def kept(now: str) -> str | None:
    """The manual, if it was kept in this state."""
    with suppress(OSError, ValueError):
        then, _, text = KEPT.read_text(encoding="utf-8").partition("\n")
        if then == now:
            return text
    return None


def keep(now: str, text: str) -> None:
    """Keeps the manual where Python may keep bytecode and the folder takes it; elsewhere it is made every time."""
    if not sys.dont_write_bytecode:
        with suppress(OSError):
            write_atomic(KEPT, f"{now}\n{text}".encode())


def tell(text: str) -> None:
    """Prints it, in whole or as far as it is read."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
