"""The proofs of `make validate-metrics`, the quick half: few fresh scenes, and only what needs no trained encoder."""

from __future__ import annotations

import proofs
import pytest
import validate
from proof_study import Proofs, Row
from proof_world import DEVELOPMENT, MEDIA
from trained_proofs import Trainings, untrained

from metrics import ScoreSettings


@pytest.fixture(scope="module")
def tested(settings: ScoreSettings) -> Proofs:
    return Proofs(settings, count=10, seed=DEVELOPMENT)


@pytest.mark.parametrize("medium", MEDIA)
def test_composition_ranks_layouts_whatever_the_medium(composition_rank, medium):
    """V5, over all eight media of the world."""
    assert composition_rank[f"V5 composition rank, {medium}"].value >= 0.95


@pytest.fixture(scope="module")
def composition_rank(tested) -> dict[str, Row]:
    return {row.test: row for row in proofs.v5_composition_rank(tested)}


def test_lpips_ssim_and_mse_fail_where_composition_passes(tested):
    found = list(proofs.v5_negative_controls(tested))
    assert len(found) == 3 and all(row.passed and row.value < 0.6 for row in found)


def test_diversity_falls_as_one_picture_takes_over(tested):
    assert all(row.passed for row in proofs.v12_diversity(tested))


def test_the_table_says_what_failed():
    rows = [
        Row("one", 0.5, ">= 0.95", False, "why"),
        Row("two", 1.0, ">= 0.95", True),
        Row("three", 0.1, "reported", None),
    ]
    text = validate.table(rows, "10 scenes", 60)
    assert "**1 of 2 bars missed.**" in text and "| one | 0.500 | >= 0.95 | **FAILED** | why |" in text


def test_a_finished_proof_is_kept_and_not_made_again(tmp_path):
    rows = [Row("one", 0.5, ">= 0.4", True, "why")]
    assert validate.kept(tmp_path / "v1.json", lambda: rows, "1 of 1") == rows
    assert validate.kept(tmp_path / "v1.json", lambda: pytest.fail("made twice"), "1 of 1") == rows


def test_what_is_kept_belongs_to_one_state_of_the_code_and_one_seed():
    assert validate.state(("metrics/*.py",), 1) == validate.state(("metrics/*.py",), 1)
    assert len({validate.state(("metrics/*.py",), 1), validate.state(("metrics/*.py",), 2), validate.state((), 1)}) == 3


def test_trainings_end_when_their_time_is_up_and_say_so_in_the_table(tmp_path):
    (row,) = Trainings(tmp_path, until=0.0).rows(untrained)
    assert row.passed is False and row.test == "untrained" and "the same command goes on" in row.note
