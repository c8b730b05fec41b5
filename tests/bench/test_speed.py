"""The benchmark's list, gates and arithmetic; its runs are `make bench`."""

import os
import time
from itertools import combinations, pairwise
from pathlib import Path

import pytest

from bench import kept
from bench.flat import processor_s, resident_mb
from bench.kept import Measured, fallen, figures_before, read_row, write_figures, write_row, write_table
from bench.physics import flop_of
from bench.speed import peer_words, ratios
from bench.table import gates, heading, show
from bench.trials import LENGTHS, RATES, choices, lists, points

NAMES = [point.name for point in points()]
STYLES = {name: 0.1 * i for i, name in enumerate(NAMES)}


def row(side: str, styles: dict[str, float] | None = None, cpu: float = 100.0) -> Measured:
    styles = STYLES if styles is None else styles
    return Measured(side, cpu, cpu, 1.0, 100.0, styles, dict.fromkeys(styles, 0.5), {"train": 50.0}, 1e12, 10)


def test_the_trials_are_told_apart_by_rate_times_length() -> None:
    products = sorted(point.rate * point.images for point in points())
    assert len(products) == 12
    assert all(b / a > 1.3 for a, b in pairwise(products))


def test_every_side_is_told_the_same_trials() -> None:
    point = points()[5]
    words = peer_words(point, "pictures", "out")  # type: ignore[arg-type]
    assert f"--learning_rate={point.rate}" in words and f"--max_train_steps={round(point.images * 4 / 30)}" in words
    assert lists(points()) == [
        "train.optimizer.learning_rate=2.5e-05,6e-05,0.000144,0.000346",
        "train.budget.images_seen=335,450,600",
    ]
    assert "train.budget.images_seen=choice(335,450,600)" in choices(points())


def test_equal_scores_pass_the_gates() -> None:
    assert gates([row("P1"), row("P2"), row("ours"), row("ours, stopping")]) == []


def test_other_scores_of_the_same_work_make_the_ratio_void() -> None:
    other = {**STYLES, NAMES[3]: STYLES[NAMES[3]] + 0.002}
    assert "scores differ by 0.002" in gates([row("P2", other), row("ours")])[0]


def test_another_ranking_makes_the_ratio_void() -> None:
    for i, j in combinations(range(len(NAMES)), 2):
        swapped = {**STYLES, NAMES[i]: STYLES[NAMES[j]], NAMES[j]: STYLES[NAMES[i]]}
        assert bool(gates([row("P1", swapped), row("ours")])) == (j - i > 1)  # neighbours are one pair of 66


def test_early_stopping_that_loses_the_best_makes_the_ratio_void() -> None:
    early = {name: STYLES[name] for name in NAMES[:-1]}
    assert "early stopping lost 0.100" in gates([row("ours"), row("ours, stopping", early)])[0]


def test_ratios_are_of_medians_and_a_fall_of_a_fifth_is_told() -> None:
    found = [row("P2", cpu=cpu) for cpu in (300, 200, 900)] + [row("ours", cpu=cpu) for cpu in (100, 110, 90)]
    assert ratios(found) == {"P2 / ours": 3.0}
    assert fallen({"P2 / ours": 3.0}, {"P2 / ours": 3.7}) == []
    assert fallen({"P2 / ours": 3.0}, {"P2 / ours": 3.8}) == ["P2 / ours: 3.80 before, 3.00 now"]
    assert "3.00" in show(found, ratios(found), 1e11)


def test_work_grows_with_pictures_and_drawings() -> None:
    once = flop_of(points())
    assert flop_of(points(), drawings=2) > once > flop_of(points(), images=1)
    assert once == pytest.approx(
        12 * flop_of(points()[:1], images=0)
        + (len(RATES) * sum(LENGTHS)) * (flop_of(points()[:1], images=1) - flop_of(points()[:1], images=0))
    )


def test_a_trial_without_scores_makes_the_ratio_void_and_the_table_is_still_printed() -> None:
    fewer = row("ours", {name: STYLES[name] for name in NAMES[:-1]})
    found = [row("P1"), row("P2"), fewer]
    assert gates(found) == [f"ours: no scores of {NAMES[-1]}"]
    assert "nan" in show(found, ratios(found), 1e11)


def test_a_side_that_is_done_is_not_run_again_and_one_of_other_trials_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "round1-ours.json"
    assert read_row(file, NAMES) is None
    write_row(file, row("ours"), NAMES)
    assert read_row(file, NAMES) == row("ours")
    with pytest.raises(SystemExit, match="of other trials"):
        read_row(file, NAMES[:-1])


def test_the_table_takes_the_place_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{kept.BEGIN}{kept.END}after\n", encoding="utf-8")
    monkeypatch.setattr(kept, "README", page)
    for text in ("one", heading(1, 12)):
        write_table(text)
        assert page.read_text(encoding="utf-8") == f"before\n{kept.BEGIN}{text}\n{kept.END}after\n"


def test_figures_are_compared_with_those_of_the_same_trials_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "FIGURES", tmp_path / "speed.json")
    with pytest.raises(SystemExit, match="nothing to compare with"):
        figures_before(NAMES)
    write_figures([row("ours")], NAMES, ratios={"P2 / ours": 3.0})
    assert figures_before(NAMES) == {"P2 / ours": 3.0}
    with pytest.raises(SystemExit, match="of other trials"):
        figures_before(NAMES[:2])


def test_the_page_has_a_place_for_the_table() -> None:
    text = kept.README.read_text(encoding="utf-8")
    assert text.index(kept.BEGIN) < text.index(kept.END)


def test_memory_and_processors_time_of_a_process_are_read() -> None:
    assert 0.5 * time.process_time() < processor_s(os.getpid()) < time.process_time() + 0.5
    assert 10 < resident_mb(os.getpid()) < 100_000
