"""One job through Hydra's launcher: the values it returned, or why it has none.

This is the edge of a trial. Whatever goes wrong inside becomes a reason here, Ctrl-C and a fault of the input excepted.
"""

import errno
import math
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from sweep.errors import InputError
from trainer.base import BaseError
from trainer.examples import DatasetError


@dataclass(frozen=True)
class Failure:
    """Why a trial has no values."""

    reason: str
    trace: str = ""


class TimeIsUp(BaseException):
    """Raised in the job when it has had its time; no `except Exception` of a library shall catch it."""


def run_job(
    launcher: Launcher, overrides: list[str], number: int, objectives: Sequence[str], seconds: float | None = None
) -> list[float] | Failure:
    """Launches one job and waits for it.

    Args:
        number: of the trial, which the job gets as `hydra.job.num`.
        objectives: names of the values the job returns.
        seconds: it may take; None: as many as it needs.

    Raises:
        InputError: if what went wrong is the input's fault; the trial is then not told anything.
    """
    try:
        with _time_limit(seconds):
            [job] = launcher.launch([overrides], initial_job_idx=number)
    except TimeIsUp:
        return Failure(f"took longer than search.trial_seconds={seconds:g}", traceback.format_exc())
    except SystemExit as exit_:  # Hydra's run_job lets it through
        return Failure(f"the job called sys.exit({exit_.code!r})", traceback.format_exc())
    except Exception as error:  # a launcher's own: a killed worker, a lost node
        return _failure(error)
    # `return_value` would raise the job's exception and print about it; the status is looked at instead.
    if job.status == JobStatus.FAILED and _is_study_wide(job._return_value):
        raise InputError(
            f"{job._return_value}\n  Trial {number:04d} met this and is not counted:"
            " put it right, and the same command continues the study."
        ) from job._return_value
    return _values(job, objectives)


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raises TimeIsUp in the block after so many seconds; the system's alarm, as a job holds the only thread."""
    if seconds is None:
        yield
        return

    def ring(signum: int, frame: object) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _values(job: JobReturn, objectives: Sequence[str]) -> list[float] | Failure:
    value: Any = job._return_value
    if job.status == JobStatus.FAILED:
        return _failure(value)
    values = list(value) if isinstance(value, Sequence) else [value]
    if len(values) != len(objectives) or not all(isinstance(v, int | float) for v in values):
        return Failure(f"the job returned {value!r} where {', '.join(objectives)} were expected")
    odd = [f"{name} is {v}" for name, v in zip(objectives, values, strict=True) if not math.isfinite(v)]
    return Failure("; ".join(odd)) if odd else [float(v) for v in values]


def _is_study_wide(error: BaseException) -> bool:
    """Whether every trial of the study would run into this, so that none of them is to blame."""
    if isinstance(error, InputError | DatasetError | BaseError):
        return True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # no room for the next one either
        return True
    if "metrics.images" not in sys.modules:  # who raised a ScoreError has loaded it, and torch with it
        return False
    from metrics.images import SampleError, ScoreError

    return isinstance(error, ScoreError) and not isinstance(error, SampleError)


def _failure(error: BaseException) -> Failure:
    lines = str(error).strip().splitlines() or ["no message"]
    trace = "".join(traceback.format_exception(error))
    return Failure(f"{type(error).__name__}: {lines[0]}", trace)
