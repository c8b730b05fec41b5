"""The time a job may take."""

import time

import pytest

from sweep import job
from sweep.errors import ImpossibleTrial
from sweep.job import TimeIsUp, _failure, _time_limit


def test_a_call_into_c_code_is_ended_when_it_returns() -> None:
    began = time.monotonic()
    with pytest.raises(TimeIsUp), _time_limit(0.05):
        sum(range(20_000_000))  # hears of no signal before its end
        time.sleep(60)
    assert time.monotonic() - began < 50


def test_a_limit_that_a_library_swallows_rings_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "AGAIN_S", 0.2)
    began = time.monotonic()
    with pytest.raises(TimeIsUp), _time_limit(0.05):
        try:
            time.sleep(60)
        except BaseException:
            time.sleep(60)
    assert time.monotonic() - began < 50


def test_a_job_in_time_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "AGAIN_S", 0.1)
    with _time_limit(0.2):
        pass
    time.sleep(0.4)


def test_an_error_of_ours_speaks_for_itself_and_another_is_named() -> None:
    assert _failure(ImpossibleTrial("no side is left")).reason == "no side is left"
    assert _failure(KeyError("x")).reason == "KeyError: 'x'"
