"""Ctrl-C and `kill` end a command in one line and with exit code 130, from its first import on.

A command that has not begun its work has nothing to put away and ends where it is; an exception raised in the middle of
an import can be turned into another one there, or be swallowed. Once the work has begun it is a KeyboardInterrupt.
Loaded before everything else, so it needs nothing but Python.
"""

import os
import signal

INTERRUPTED = 130
LAST_WORDS = "\nStopped. The same command continues where this one stopped."
if "STYLESWEEP_SLOT" in os.environ:  # the command that started this slot says it
    LAST_WORDS = ""
ASKING = (signal.SIGINT, signal.SIGTERM)


def end_at_once() -> None:
    """Has this process end in one line when it is asked to; a signal that it was started to ignore stays ignored."""
    for number in ASKING:
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _end)


def put_away_first() -> None:
    """Turns what `end_at_once` did into a KeyboardInterrupt: the work begins."""
    for number in ASKING:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.default_int_handler)


def _end(number: int, frame: object) -> None:
    os.write(2, f"{LAST_WORDS}\n".encode())
    os._exit(INTERRUPTED)
