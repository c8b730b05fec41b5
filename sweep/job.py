"""One job through Hydra's launcher: the values it returned, or why it has none.

This is the edge of a trial. Whatever goes wrong inside becomes a reason here, Ctrl-C and a fault of the input excepted.
A launcher may run the job in a process or on a machine of its own, so the edge goes there with it (`Guarded`) and what
comes back is plain: an exception might not survive the way, and its trace never does.
"""

import errno
import faulthandler
import math
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import TaskFunction
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from optuna.exceptions import StorageInternalError

from sweep.database import in_its_words
from sweep.errors import InputError, Stopped
from trainer.base import BaseError
from trainer.examples import DatasetError

BEGAN = ".began"  # in a trial's folder from its job's start; holds a trace if the job had to be ended from outside
AGAIN_S = 10.0  # s until the alarm rings again, for a library that swallowed it
LAST_CALL_S = 60.0  # s that the call in hand may go on when time is up, before its process is ended


@dataclass(frozen=True)
class Failure:
    """Why a trial has no values."""

    reason: str
    trace: str = ""
    lost: bool = False  # the process died or its node went away: another try may end well


@dataclass(frozen=True)
class InputFault:
    """What every trial of the study would run into, so that none of them is to blame."""

    text: str
    storage: bool = False  # it was the study's database that broke off


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    result: list[float] | Failure | Stopped
    config: DictConfig | None = None  # as the job got it, composed; None where it was not reached
    choices: Mapping[str, Any] | None = None  # config group -> option, of that configuration


class TimeIsUp(BaseException):
    """Raised in the job when it has had its time; no `except Exception` of a library shall catch it."""


class Guarded:
    """The task as a job runs it: it returns, whatever happens, but for Ctrl-C."""

    def __init__(self, task: TaskFunction, seconds: float | None) -> None:
        """Wrap it.

        Args:
            seconds: it may take; None: as many as it needs.
        """
        self.task = task
        self.seconds = seconds

    def __call__(self, config: DictConfig) -> Any:
        try:
            place = Path(HydraConfig.get().runtime.output_dir)
            with (place / BEGAN).open("w") as trace, _time_limit(self.seconds, trace):
                return self.task(config)
        except TimeIsUp:
            return Failure(f"took longer than search.trial_seconds={self.seconds:g}", traceback.format_exc())
        except SystemExit as exit_:
            return Failure(f"the job called sys.exit({exit_.code!r})", traceback.format_exc())
        except Exception as error:
            if isinstance(error, StorageInternalError):
                return InputFault(in_its_words(error), storage=True)
            return InputFault(str(error)) if _is_study_wide(error) else _failure(error)


def run_job(launcher: Launcher, overrides: list[str], number: int, objectives: Sequence[str], folder: Path) -> Ended:
    """Launches one job, whose task is `Guarded`, and waits for it.

    Args:
        number: of the trial, which the job gets as `hydra.job.num`.
        objectives: names of the values the job returns.
        folder: of the trial.

    Raises:
        InputError: if what went wrong is the input's fault, or the launcher's; the trial is then not told anything.
        StorageInternalError: if the job could not reach the study's database; nor is it then.
    """
    (folder / BEGAN).unlink(missing_ok=True)
    try:
        [job] = launcher.launch([overrides], initial_job_idx=number)
    except Exception as error:  # a launcher's own: a killed worker, a lost node, or a cluster that is not there
        if (never_returned := hung(folder)) is not None:
            return Ended(never_returned)
        failure = _failure(error, lost=(folder / BEGAN).exists())
        if not failure.lost and not isinstance(error, HydraException | OmegaConfBaseException):
            raise InputError(f"`hydra/launcher` could not start the job: {failure.reason}") from error
        died = f"the job's process died ({failure.reason})"
        return Ended(replace(failure, reason=died) if failure.lost else failure)
    if isinstance(job._return_value, InputFault):
        if job._return_value.storage:
            raise StorageInternalError(job._return_value.text)
        raise InputError(
            f"{job._return_value.text}\n  Trial {number:04d} met this and is not counted:"
            " put it right, and the same command continues the study."
        )
    choices = job.hydra_cfg.hydra.runtime.choices if job.hydra_cfg is not None else None
    return Ended(_values(job, objectives), job.cfg, choices)


def hung(folder: Path) -> Failure | None:
    """What became of a job whose process was ended in a call that never returned; None for any other.

    Args:
        folder: of the trial.
    """
    began = folder / BEGAN
    trace = began.read_text(encoding="utf-8", errors="replace") if began.is_file() else ""
    reason = "took longer than search.trial_seconds, in a call that never returned: its process was ended"
    return Failure(reason, trace) if trace else None


@contextmanager
def _time_limit(seconds: float | None, trace: IO[str]) -> Iterator[None]:
    """Raises TimeIsUp in the block after so many seconds; the system's alarm, as a job holds the only thread.

    Python hears it when the call in hand returns, so a step in C code is finished first. Where a library swallows it,
    it rings again. A call that does not return ends with its process, which a thread of Python's own sees to that needs
    no turn of the interpreter's: code 1, and the trace says where it was.
    """
    if seconds is None:
        yield
        return

    def ring(signum: int, frame: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    faulthandler.dump_traceback_later(seconds + LAST_CALL_S, exit=True, file=trace)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def _values(job: JobReturn, objectives: Sequence[str]) -> list[float] | Failure | Stopped:
    value: Any = job._return_value
    if job.status == JobStatus.FAILED:  # before the task was reached
        return _failure(value)
    if isinstance(value, Failure | Stopped):
        return value
    values = list(value) if isinstance(value, Sequence) else [value]
    if len(values) != len(objectives) or not all(isinstance(v, int | float) for v in values):
        return Failure(f"the job returned {value!r} where {', '.join(objectives)} were expected")
    odd = [f"{name} is {v}" for name, v in zip(objectives, values, strict=True) if not math.isfinite(v)]
    return Failure("; ".join(odd)) if odd else [float(v) for v in values]


def _is_study_wide(error: BaseException) -> bool:
    """Whether every trial of the study would run into this, so that none of them is to blame."""
    if isinstance(error, InputError | DatasetError | BaseError):
        return True
    for fault in (error, error.__cause__):  # a training tells of its disk in its own words
        if isinstance(fault, OSError) and fault.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
        ):  # no room for the next one either
            return True
    if "metrics.images" not in sys.modules:  # who raised a ScoreError has loaded it, and torch with it
        return False
    from metrics.images import SampleError, ScoreError

    return isinstance(error, ScoreError) and not isinstance(error, SampleError)


def _failure(error: BaseException, *, lost: bool = False) -> Failure:
    lines = str(error).strip().splitlines() or ["no message"]
    trace = "".join(traceback.format_exception(error))
    ours = type(error).__module__.partition(".")[0] in ("sweep", "trainer", "metrics")  # say what to do, by themselves
    return Failure(lines[0] if ours else f"{type(error).__name__}: {lines[0]}", trace, lost)
