"""The notes of the dashboard say what its own pages get wrong."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from sweep.findings import find
from sweep.notes import study_note, trial_note, write_notes
from sweep.record import ARTIFACTS
from tests.sweep.made import add_failed, add_scored, age, new_study

Make = Callable[[optuna.Study, Path], object]


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
    assert "Trial 0001 scores higher but was ruled out by leakage (+0.20 over its limit)." in text
    assert "takes it for a good one" in text and "python -m sweep captions=subject_only" in text


def test_a_trials_note_says_what_was_tried_and_why_it_does_not_count(study: optuna.Study, folder: Path) -> None:
    found = find(study, folder)
    notes = {entry.number: trial_note(entry, found.names) for entry in found.entries}
    assert "| leakage | 0.200 over its limit | ruled out: training subjects" in notes["0001"]
    assert "Ruled out by leakage" in notes["0001"]
    assert "| leakage | 0 of 8 pictures show a training subject, 0 allowed | fine |" in notes["0000"]
    assert "failed: out of memory" in notes["0002"]
    assert "| 96 | 600 | 1 | **0.7" in notes["0000"], "the candidate it stands for"


def test_notes_say_what_was_deleted_and_what_another_version_wrote(study: optuna.Study, folder: Path) -> None:
    from optuna_dashboard._note import get_note_from_system_attrs

    age(folder)
    for file in (folder / ARTIFACTS).glob("0000*"):
        file.unlink()
    write_notes(find(study, folder))
    kept = study._storage.get_study_system_attrs(study._study_id)
    of_study, of_trial = (
        get_note_from_system_attrs(kept, key)["body"] for key in (None, study.get_trials()[0]._trial_id)
    )
    assert "2 trials written by another version of stylesweep (0000, 0001)" in of_study
    assert "no longer in artifacts/" in of_trial and "only its values are shown" in of_trial


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda study, folder: None, "No trial has run yet."),
        (lambda study, folder: study.ask(), "No trial has finished yet."),
        (lambda study, folder: add_failed(study, "out of memory"), "No trial was scored."),
        (lambda study, folder: add_scored(study, folder, 0.7, leakage=0.1), "No trial is usable."),
        (lambda study, folder: add_scored(study, folder, 0.7), "Trial 0000 is the only usable one."),
    ],
)
def test_a_study_without_an_answer_has_a_note_that_says_so(make: Make, said: str, tmp_path: Path) -> None:
    study = new_study(tmp_path / "bare")
    make(study, tmp_path / "bare")
    assert study_note(find(study, tmp_path / "bare")).startswith(f"# {said}")


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
