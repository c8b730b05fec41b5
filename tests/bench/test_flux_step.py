"""The benchmark of a training step: what one row meets does not end the others, and nothing is measured twice."""

import sys
from pathlib import Path

import pytest
import torch

from bench import flux_step
from bench.flux_step import SHAPE, Bench, Row, all_rows, estimated, in_time, main, settings_of, useful_flop
from trainer.settings import OptimizerName

CPU = torch.device("cpu")


def test_the_rows_are_those_asked_for_each_once_and_the_card_of_12_gb_comes_first() -> None:
    rows = all_rows()
    assert len({row.name for row in rows}) == len(rows) == 2 + 3 + 3 * 3 * 2 * 2
    assert {row.card for row in rows[:5]} == {12.0} and rows[2].weights == "nf4" and rows[2].recomputed
    assert {(row.weights, row.side, row.recomputed, row.compiled) for row in rows[5:]} == {
        (weights, side, recomputed, compiled)
        for weights in ("bf16", "fp8", "nf4")
        for side in (512, 768, 1024)
        for recomputed in (True, False)
        for compiled in (True, False)
    }


def test_the_share_counts_what_a_step_needs() -> None:
    assert useful_flop(SHAPE, 512) / 1e12 == pytest.approx(44.6, rel=0.01)
    assert useful_flop(SHAPE, 1024) / 1e12 == pytest.approx(163.6, rel=0.01)
    estimates = [estimated(row, settings_of(row, OptimizerName.adamw)) for row in all_rows()[:5]]
    assert max(estimates) < 12


def test_a_row_that_fails_says_so_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured: list[str] = []

    def seconds(bench: Bench, row: Row) -> float:
        measured.append(row.name)
        if row.side == 768:
            raise torch.OutOfMemoryError("out of memory")
        if row.recomputed:
            raise RuntimeError("a kernel | is missing\nhere")
        return 0.5

    monkeypatch.setattr(Bench, "_seconds", seconds)
    table = tmp_path / "rows.md"
    monkeypatch.setattr(sys, "argv", ["flux_step.py", "--tiny", "--only", "fp8", "--table", str(table)])
    main()
    lines = table.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 + 12 and {line.count("|") for line in lines} == {11}
    assert "| fp8 | 768 | yes | no | all | out of memory |" in lines[3]
    assert "RuntimeError: a kernel / is missing |" in lines[2] and "| 0.500 |" in lines[5]
    main()
    assert len(measured) == 12 and table.read_text(encoding="utf-8").splitlines() == lines


def test_no_row_is_begun_that_would_end_after_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(flux_step.time, "monotonic", lambda: now[0])

    def work(minutes: float) -> str:
        now[0] += 60 * minutes
        return str(minutes)

    assert list(in_time(map(work, [1.0, 4.0, 3.0, 2.0]), 9.0, 0.0)) == ["1.0", "4.0"]


def test_a_tiny_step_is_measured() -> None:
    row = Row("bf16", 256, recomputed=True)
    settings = settings_of(row, OptimizerName.adamw)
    assert flux_step.train_seconds(flux_step.transformer("bf16", True, CPU), 256, settings, CPU) > 0
    assert flux_step.encode_seconds("text", 0, True, CPU) > 0 and flux_step.encode_seconds("vae", 64, True, CPU) > 0
