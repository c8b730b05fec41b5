"""The notes of the dashboard say what its own pages get wrong."""

from pathlib import Path

import optuna
import pytest

from sweep.findings import find
from sweep.notes import study_note, trial_note, write_notes
from tests.sweep.made import add_failed, add_scored, new_study


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "made"


@pytest.fixture
def study(folder: Path) -> optuna.Study:
    made = new_study(folder)
    add_scored(made, folder, 0.7)
    add_scored(made, folder, 0.9, leakage=0.2)
    add_failed(made, "out of memory")
    return made


def test_the_studys_note_answers_the_questions_and_names_the_feasible_best(study: optuna.Study, folder: Path) -> None:
    text = study_note(find(study, folder))
    assert "**What is best?** Trial 0000" in text, "0001 has better values and was ruled out"
    assert "do not know that" in text and "python -m sweep captions=subject_only" in text


def test_a_trials_note_says_what_was_tried_and_why_it_does_not_count(study: optuna.Study, folder: Path) -> None:
    found = find(study, folder)
    notes = {entry.number: trial_note(entry, found.names) for entry in found.entries}
    assert "| leakage | 0.200 above | ruled out: training subjects" in notes["0001"]
    assert "Ruled out by leakage" in notes["0001"] and "| leakage | 0.050 below | fine |" in notes["0000"]
    assert "failed: out of memory" in notes["0002"]
    assert "| 96 | 600 | 1 | **0.7" in notes["0000"], "the candidate it stands for"


def test_notes_are_written_once_and_read_back(study: optuna.Study, folder: Path) -> None:
    from optuna_dashboard._note import get_note_from_system_attrs, note_ver_key

    def attributes() -> dict[str, object]:
        return study._storage.get_study_system_attrs(study._study_id)

    (folder / "captions.csv").write_text("picture,text\nheart.png,a human heart\n", encoding="utf-8")
    write_notes(find(study, folder))
    first = attributes()
    write_notes(find(study, folder))
    failed = study.get_trials()[2]._trial_id
    assert "out of memory" in get_note_from_system_attrs(attributes(), failed)["body"]
    assert attributes()[note_ver_key(None)] == first[note_ver_key(None)] == 1, "an unchanged note is left alone"
    sheets = [value for key, value in attributes().items() if key.startswith("artifacts:")]
    assert len(sheets) == 1 and "captions.csv" in str(sheets[0]), "the caption sheet, once"
    assert any("feasible-front" in key for key in first), "the chart that knows feasibility"
