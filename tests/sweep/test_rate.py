"""A person's preferences, kept in the dashboard's own way, against the scores."""

from pathlib import Path

import pytest
from optuna_dashboard._preferential_history import NewHistory, report_history
from PIL import Image

from sweep.contact_sheet import TITLE
from sweep.errors import InputError
from sweep.findings import find
from sweep.rate import agreement, count, rating_study
from tests.sweep.made import add_scored, new_study


def test_clicks_on_the_dashboards_page_are_compared_with_the_scores(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    study = new_study(folder, on_disk=True)
    for level in (0.5, 0.7, 0.6):
        add_scored(study, folder, level)
    rating = rating_study(find(study, folder))
    place = {trial.user_attrs["trial"]: trial.number for trial in rating.get_trials()}
    assert set(place) == {0, 1, 2}
    with Image.open(folder / "artifacts" / rating.get_trials()[0].user_attrs["sheet"]) as sheet:
        assert sheet.size == (600, 300 - TITLE), "the title holds the scores and is cut off"
    assert all((folder / "artifacts" / trial.user_attrs["sheet"]).is_file() for trial in rating.get_trials())
    # What the page sends for a click on the worst of three, here the scores' best, and then of the two left.
    best, middle, worst = (place[number] for number in (1, 2, 0))
    for candidates, clicked in (([best, middle, worst], best), ([middle, worst], worst)):
        report_history(rating._study_id, rating._storage, NewHistory("ChooseWorst", candidates, clicked))
    found = agreement(rating_study(find(study, folder)))
    assert (found.agreed, found.pairs) == (1, 3)
    assert "1 of 3 pairs (33%" in str(found)
    assert len(rating.get_trials()) == 3, "opened again, nothing is added"


def test_no_pair_says_so_and_an_interval_holds_the_share() -> None:
    assert "No pair" in str(count([], []))
    found = count([(0, 1)] * 8 + [(1, 0)] * 2, [2.0, 1.0])
    assert (found.agreed, found.pairs) == (8, 10) and found.low < 0.8 < found.high


def test_one_sheet_is_too_few(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    study = new_study(folder, on_disk=True)
    add_scored(study, folder, 0.5)
    with pytest.raises(InputError, match="two are needed"):
        rating_study(find(study, folder))
