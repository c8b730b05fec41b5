"""What is best in a study: feasibility, front, rectangle, area; and how one is found."""

from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweep.database import DATABASE, storage
from sweep.errors import InputError
from sweep.study import best, front, hypervolume, is_feasible, load_study, rectangle, why_not
from tests.sweep.made import new_study

unit = st.floats(0, 1)


def trial(number: int, style: float, composition: float, **constraints: float) -> FrozenTrial:
    made = create_trial(values=[style, composition], constraints=constraints or None)
    made.number = number
    return made


def test_an_infeasible_trial_is_never_on_the_front() -> None:
    trials = [trial(0, 0.9, 0.9, leakage=0.1), trial(1, 0.5, 0.5, leakage=-0.1)]
    assert [t.number for t in front(trials)] == [1]
    assert why_not(trials[0]) == "no: leakage"
    assert why_not(trials[1]) == "yes"


def test_the_front_keeps_what_nothing_beats_in_everything() -> None:
    trials = [trial(0, 0.9, 0.1), trial(1, 0.5, 0.5), trial(2, 0.4, 0.4), trial(3, 0.1, 0.9)]
    assert [t.number for t in front(trials)] == [0, 1, 3]


def test_the_best_has_the_largest_rectangle_and_the_earlier_wins_a_tie() -> None:
    top = best([trial(0, 0.9, 0.1), trial(1, 0.5, 0.5), trial(2, 0.5, 0.5), trial(3, -1.0, 0.9)])
    assert top is not None and top.number == 1


def test_without_a_feasible_trial_nothing_is_best() -> None:
    failed = create_trial(state=TrialState.FAIL, user_attrs={"reason": "it broke"})
    assert best([failed, trial(1, 1.0, 1.0, leakage=1.0)]) is None
    assert not is_feasible(failed)
    assert why_not(failed) == "failed: it broke"


@pytest.mark.parametrize(
    ("points", "area"), [([], 0.0), ([(0.5, 0.5)], 0.25), ([(1, 0.5), (0.5, 1)], 0.75), ([(-1, 1)], 0.0)]
)
def test_the_area_under_a_front(points: list[tuple[float, float]], area: float) -> None:
    assert hypervolume(points) == pytest.approx(area)


@given(st.lists(st.tuples(unit, unit), max_size=8), st.tuples(unit, unit))
def test_the_area_never_shrinks_and_holds_every_rectangle(
    points: list[tuple[float, float]], more: tuple[float, float]
) -> None:
    before, after = hypervolume(points), hypervolume([*points, more])
    assert after >= before - 1e-12
    assert after >= rectangle(more) - 1e-12
    assert after <= 1 + 1e-12


@given(st.lists(st.tuples(unit, unit), min_size=1, max_size=12))
def test_the_front_is_optunas_own(points: list[tuple[float, float]]) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize"] * 2)
    study.add_trials([create_trial(values=list(point)) for point in points])
    assert {t.number for t in front(study.trials)} == {t.number for t in study.best_trials}


def test_a_renamed_folder_is_told_its_old_name(tmp_path: Path) -> None:
    made = new_study(tmp_path / "night", on_disk=True)
    optuna.create_study(study_name="night-rating", storage=made._storage)
    (tmp_path / "night").rename(tmp_path / "night_1")
    with pytest.raises(InputError, match="night_1 holds the study night: give the folder that name again"):
        load_study(tmp_path / "night_1")


def test_a_database_that_is_damaged_or_made_anew_after_it_was_opened_is_read_as_it_is_now(tmp_path: Path) -> None:
    made = optuna.create_study(study_name=tmp_path.name, storage=storage(tmp_path))
    assert load_study(tmp_path).trials == made.trials == []
    (tmp_path / DATABASE).write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match=f"{DATABASE} cannot be used"):
        load_study(tmp_path)
    (tmp_path / DATABASE).unlink()
    optuna.create_study(study_name=tmp_path.name, storage=storage(tmp_path))
    assert load_study(tmp_path).trials == []
