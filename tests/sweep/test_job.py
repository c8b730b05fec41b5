"""The time a job may take."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from sweep import job
from sweep.errors import ImpossibleTrial
from sweep.job import TimeIsUp, _failure, _time_limit


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[IO[str]]:
    """Where a job that never returns would say where it is."""
    with (tmp_path / "trace").open("w") as file:
        yield file


def test_a_call_into_c_code_is_ended_when_it_returns(trace: IO[str]) -> None:
    began = time.monotonic()
    with pytest.raises(TimeIsUp), _time_limit(0.05, trace):
        sum(range(20_000_000))  # hears of no signal before its end
        time.sleep(60)
    assert time.monotonic() - began < 50


def test_a_limit_that_a_library_swallows_rings_again(trace: IO[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "AGAIN_S", 0.2)
    began = time.monotonic()
    with pytest.raises(TimeIsUp), _time_limit(0.05, trace):
        try:
            time.sleep(60)
        except BaseException:
            time.sleep(60)
    assert time.monotonic() - began < 50


def test_a_job_in_time_hears_nothing(trace: IO[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "AGAIN_S", 0.1)
    with _time_limit(0.2, trace):
        pass
    time.sleep(0.4)


def test_an_error_of_ours_speaks_for_itself_and_another_is_named() -> None:
    assert _failure(ImpossibleTrial("no side is left")).reason == "no side is left"
    assert _failure(KeyError("x")).reason == "KeyError: 'x'"
