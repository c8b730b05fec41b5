"""Several trials at once: `study.slots=n` runs the same command n times over, each with a graphics card of its own.

A slot is a process that takes a trial, launches it through `hydra/launcher`, tells what came of it and takes the next
one, so that none waits for another. With Hydra's own launcher the trial runs in the slot itself, which keeps its base
loaded from trial to trial; joblib, submitit and ray get one job at a time from each slot. Hydra's launchers know one
batch per process, one working configuration and one alarm clock: threads would have to share them, processes do not.

A slot ends with the command that started it, however that ends: it listens on a pipe. A slot that is killed, with its
trial most often, is started again; so is one that a library or a trial that hung has ended, which is known by the mark
that a slot leaves while it works. That is why a search with `search.trial_seconds` has a slot even for one trial at a
time.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sweep.errors import InputError

# In a slot's environment: its number from 1, the sweep's start, the file that is there while it works.
NUMBER, BEGAN, MARK = "STYLESWEEP_SLOT", "STYLESWEEP_BEGAN", "STYLESWEEP_AT_WORK"
CARDS = "CUDA_VISIBLE_DEVICES"
LAST_WORDS_S = 60.0  # a slot has to end after it was asked to
BARREN = 3  # deaths of slots in a row, for each slot, after which something else is wrong


def own_number() -> int | None:
    """Which slot this process is, from 1; None for the command itself."""
    number = os.environ.get(NUMBER)
    return int(number) if number else None


def began() -> float:
    """When the command was started, in seconds since the epoch."""
    return float(os.environ.get(BEGAN) or time.time())


def listen() -> None:
    """Has this slot stop as at Ctrl-C when the command that started it is gone."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and hands that on

    def wait_for_the_end() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


def cards() -> list[str]:
    """The graphics cards this process may use, without loading torch."""
    if CARDS in os.environ:
        return [card for card in os.environ[CARDS].split(",") if card.strip()]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    listed = subprocess.run([tool, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True)
    return listed.stdout.split() if listed.returncode == 0 else []


def cores() -> int:
    """The CPU's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def at_work() -> Iterator[None]:
    """Leaves a mark for the command while the block runs; one that stays tells that this slot died in it."""
    mark = Path(os.environ[MARK])
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def run_slots(count: int, say: Callable[[str], None], finished: Callable[[], int]) -> None:
    """Runs the slots until each of them finds nothing left to do.

    Args:
        say: gets every line they print.
        finished: how many trials of the study have ended, to tell whether slots that die get anywhere.

    Raises:
        InputError: if one of them ended with an error, which it has said by then.
    """
    found = cards()
    if found and len(found) < count:
        say(f"{count} slots share {len(found)} graphics cards: {', '.join(found)}")
    lock = threading.Lock()

    def say_in_turn(line: str) -> None:
        with lock:
            say(line)

    with tempfile.TemporaryDirectory(prefix="stylesweep") as marks:
        slots = []
        for number in range(1, count + 1):
            card = found[(number - 1) % len(found)] if found and count > 1 else ""
            head = f"{number}| " if count > 1 else ""
            slots.append(_Slot(Path(marks) / str(number), head, card, max(1, cores() // count), say_in_turn))
        try:
            _wait(slots, finished)
        finally:
            for slot in slots:
                slot.ask_to_stop()
            for slot in slots:
                slot.wait()


class _Slot:
    """One process, started again when it is killed."""

    def __init__(self, mark: Path, head: str, card: str, threads: int, say: Callable[[str], None]) -> None:
        """Start it.

        Args:
            mark: it leaves while it works; named as the slot is.
            head: of its lines.
            card: that it may use; empty: whatever this process may.
            threads: that torch uses on the CPU, unless OMP_NUM_THREADS says otherwise.
        """
        self.mark = mark
        self.say = lambda line: say(f"{head}{line}")
        width = int(os.environ.get("COLUMNS") or shutil.get_terminal_size().columns)
        self.environment = {
            **os.environ,
            NUMBER: mark.name,
            MARK: str(mark),
            BEGAN: str(time.time()),
            "COLUMNS": str(max(40, min(width, 80) - len(head))),
            "PYTHONUNBUFFERED": "1",
        }
        self.environment.setdefault("OMP_NUM_THREADS", str(threads))
        if card:
            self.environment[CARDS] = card
        self.start()

    def start(self) -> None:
        """Starts the command once more, away from the terminal's Ctrl-C, which `ask_to_stop` hands on once."""
        self.process = subprocess.Popen(
            sys.orig_argv,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._relay, daemon=True)
        self.reader.start()

    def _relay(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip():
                self.say(line.rstrip())

    def ask_to_stop(self) -> None:
        """As Ctrl-C does, if it has not ended; its trial is left to be continued."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def wait(self) -> None:
        """Waits until it has ended, and helps where it does not."""
        try:
            self.process.wait(LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(timeout=5)


def _wait(slots: Sequence[_Slot], finished: Callable[[], int]) -> None:
    deaths, before = 0, finished()
    while True:
        ended = {slot: code for slot in slots if (code := slot.process.poll()) is not None}
        dead = {slot: code for slot, code in ended.items() if code < 0 or slot.mark.exists()}
        for slot, code in ended.items():
            if slot not in dead and code:
                slot.reader.join(timeout=5)
                raise InputError(
                    f"slot {slot.mark.name} ended with the error above. The same command continues the study"
                )
        if len(ended) == len(slots) and not dead:
            return
        for slot, code in dead.items():
            slot.reader.join(timeout=5)
            now = finished()
            deaths, before = (1 if now > before else deaths + 1), now
            how = f"killed (signal {-code})" if code < 0 else f"ended in the middle of its work (code {code})"
            if deaths > BARREN * len(slots):
                raise InputError(f"slots die again and again, the last one {how}; is there enough memory?")
            slot.say(f"{how}; started again")
            slot.mark.unlink(missing_ok=True)
            slot.start()
        time.sleep(0.2)
