"""The report on studies of every shape: page, text and table say the same, and say what is missing."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import optuna
import pyarrow.parquet
import pytest
from optuna.trial import TrialState, create_trial
from PIL import Image

from sweep.answers import CAPTIONS
from sweep.findings import find
from sweep.report import TABLE, TEXT, TYPED_TABLE, write_report
from sweep.report_pictures import Album, sheets
from sweep.study import LOCK, study_lock
from tests.sweep.made import add_failed, add_scored, age, new_study
from trainer.settings import Strategy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "multirun" / "made"


@pytest.fixture
def study(folder: Path) -> optuna.Study:
    return new_study(folder)


def page(study: optuna.Study, folder: Path) -> str:
    return write_report(study, folder).read_text(encoding="utf-8")


def test_a_study_without_a_trial_gives_a_page_that_says_so(study: optuna.Study, folder: Path) -> None:
    assert "No trial has run yet" in page(study, folder)
    assert "No trial has run yet" in (folder / TEXT).read_text(encoding="utf-8")
    assert (folder / TABLE).read_text(encoding="utf-8").startswith("trial")


def test_a_study_whose_trials_all_run_says_so(study: optuna.Study, folder: Path) -> None:
    study.ask()
    with study_lock(folder):
        text = page(study, folder)
    assert "No trial has finished yet" in text and "1 trial: 1 running" in text
    (folder / LOCK).unlink()  # else this process counts as its holder still
    assert "1 trial: 1 interrupted" in page(study, folder)
    assert "No trial has finished yet" in (folder / TEXT).read_text(encoding="utf-8")


def test_all_failed_says_the_reasons(study: optuna.Study, folder: Path) -> None:
    add_failed(study, "<it> broke")
    text = page(study, folder)
    assert "No trial was scored" in text and "failed: &lt;it&gt; broke" in text


def test_all_infeasible_says_what_each_broke_and_by_how_much(study: optuna.Study, folder: Path) -> None:
    add_scored(study, folder, 0.7, leakage=0.1375)
    text = page(study, folder)
    assert "No trial is usable." in text and "Ruled out by leakage (1 trial): training subjects" in text
    assert "The nearest is trial 0000, ruled out by leakage (+0.14 over its limit)." in text
    assert "ruled out by leakage (+0.14 over its limit)" in text


def test_one_feasible_trial_is_compared_with_nothing(study: optuna.Study, folder: Path) -> None:
    add_scored(study, folder, 0.7)
    assert "the only usable trial, so there is nothing to compare it with" in page(study, folder)


def test_the_page_answers_the_six_questions(study: optuna.Study, folder: Path) -> None:
    study.set_user_attr("sandbox", True)
    for level in (0.7, 0.71, 0.4):
        add_scored(study, folder, level)
    text = page(study, folder)
    assert (
        "Trial 0001 leads, but trial 0000 may be as good." in text
        and "captions subject_only, mix 512x3 + 768x2" in text
    )
    assert "Against trial 0000, the next:" in text
    assert "trial 0000 cannot be told from it (1 of 2 compared)" in text, "0002 is clearly behind"
    assert "The style is weakest on" in text
    assert "0001/training/lora.safetensors" in text
    assert "python -m sweep captions=subject_only mix=512x3_768x2" in text, "without the study's name"
    assert "no promise for FLUX.1-dev" in text


def test_what_captions_and_mixes_are_called_is_explained(study: optuna.Study, folder: Path) -> None:
    assert set(CAPTIONS) == set(Strategy)
    add_scored(study, folder, 0.7)
    text = page(study, folder)
    assert "Captions subject_only: the subject and nothing else." in text and "no text" not in text
    assert "every picture is shown twice at 256 px" in text


def test_a_searched_setting_is_named_as_one_says_it(study: optuna.Study, folder: Path) -> None:
    rate = {"train.optimizer.learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e10)}
    study.add_trial(create_trial(state=TrialState.FAIL, params={next(iter(rate)): 3e9}, distributions=rate))
    assert "learning rate 3e+09" in page(study, folder)


def test_ties_share_a_rank_in_page_text_and_table(study: optuna.Study, folder: Path) -> None:
    for level in (0.7, 0.71, 0.4):
        add_scored(study, folder, level)
    page(study, folder)
    with (folder / TABLE).open(encoding="utf-8") as lines:
        ranks = {line["trial"]: line["rank"] for line in csv.DictReader(lines)}
    assert ranks == {"0000": "1", "0001": "1", "0002": "3"}
    read = pyarrow.parquet.read_table(folder / TYPED_TABLE).to_pylist()
    assert [line["rank"] for line in read] == [1, 1, 3] and read[0]["style"] > 0.7 and read[0]["recipe"] is None
    assert "| 1 = | 0000 |" in (folder / TEXT).read_text(encoding="utf-8")


def test_rungs_are_compared_with_the_end_and_shown_where_a_trial_was_stopped(study: optuna.Study, folder: Path) -> None:
    for i, level in enumerate((0.4, 0.5, 0.6, 0.7, 0.8, 0.9)):
        rung = {"part": 9, "step": 10, "values": [level / 2, 0.5 - i / 10], "constraints": {}}
        study.add_trial(create_trial(values=[level, level], user_attrs={"rungs": [rung]}))
    stopped = {"stopped": "at 1/9 of the budget behind 5 of 6 other trials", "rungs": [rung]}
    study.add_trial(create_trial(state=TrialState.PRUNED, user_attrs=stopped))
    text = page(study, folder)
    style, composition = (text.partition(f'<td data-name="value">{name}</td>')[2] for name in ("style", "composition"))
    assert ">+1.00</td>" in style[:80] and ">6</td>" in style[:130] and ">−1.00</td>" in composition[:80]
    assert "behind 5 of 6 other trials" in text and "at 1/9 of the budget style 0.45, composition 0.00" in text


def test_the_page_needs_no_network_and_stays_small(study: optuna.Study, folder: Path) -> None:
    add_scored(study, folder, 0.7)
    text = page(study, folder)
    assert "<script src=" not in text and 'rel="stylesheet"' not in text
    assert text.count('class="pixels">') == 16 + 8, "eight prompts without and with the LoRA, four of them on top"
    assert len(text.encode()) < 15e6


def test_references_show_what_the_style_is(
    study: optuna.Study, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    add_scored(study, folder, 0.7)
    assert "The style: references" not in page(study, folder), "they are on another machine"
    (tmp_path / "references").mkdir()
    for index in range(9):
        Image.new("RGB", (64, 64), (index, 0, 0)).save(tmp_path / "references" / f"{index}.png")
    text = page(study, folder)
    assert "The style: references" in text
    assert [name for name in range(9) if f'alt="Reference {name}.png"' in text] == [0, 1, 3, 4, 6, 7]


def test_pictures_that_were_deleted_are_counted_and_left_out(study: optuna.Study, folder: Path) -> None:
    add_scored(study, folder, 0.7)
    for file in folder.glob("0000/samples/*.png"):
        file.unlink()
    text = page(study, folder)
    assert "no longer where their trials wrote them: 8 pictures." in text
    assert text.count('class="pixels">') == 8, "the base's are still there"


def test_sheets_are_opened_no_longer_than_there_is_room(study: optuna.Study, folder: Path) -> None:
    for level in (0.7, 0.6, 0.5):
        add_scored(study, folder, level)
    for number in (1, 2):
        (folder / f"{number:04d}" / "contact_sheet.png").unlink()
    album = Album()
    album.left = 0
    assert sheets(find(study, folder), [], album) == []
    assert album.refused == 3 and album.missing == set(), "the first had no room, the others were not looked for"


def test_a_study_of_another_version_shows_its_values_and_says_so(study: optuna.Study, folder: Path) -> None:
    add_scored(study, folder, 0.7)
    age(folder)
    text = page(study, folder)
    for told in (text, (folder / TEXT).read_text(encoding="utf-8")):
        assert "1 trial written by another version of stylesweep (0000)" in told and "Trial 0000" in told


def test_a_thousand_trials_fit_one_page(study: optuna.Study, folder: Path) -> None:
    study.add_trials(
        [
            create_trial(values=[i / 1000, 0.5], constraints={"leakage": -0.1}, user_attrs={"captions": "none"})
            for i in range(1000)
        ]
    )
    text = page(study, folder)
    assert "In trials.csv: 940 more trials." in text and "Trial 0999" in text
    assert len(text.encode()) < 15e6
    assert len((folder / TABLE).read_text(encoding="utf-8").splitlines()) == 1001


def test_a_study_with_one_objective_has_a_page(tmp_path: Path) -> None:
    made = optuna.create_study(study_name="one", direction="maximize")
    made.add_trial(create_trial(value=0.5))
    assert "Trial 0000" in write_report(made, tmp_path).read_text(encoding="utf-8")


def test_a_final_decides_what_is_best(study: optuna.Study, folder: Path) -> None:
    for level in (0.7, 0.75, 0.4):
        add_scored(study, folder, level)
    row = {
        "values": {"style": 0.71, "composition": 0.61},
        "intervals": {"style": [0.6, 0.8], "composition": [0.5, 0.7]},
    }
    row |= {"searched": {"style": 0.7, "composition": 0.6}, "feasible": [True, True, True], "behind": {}}
    rows = [row | {"number": 0, "relation": "first"}, row | {"number": 1, "relation": "behind"}]
    (folder / "finalists").mkdir()
    stored = json.dumps({"verdict": "Trial 0000 is best: ahead of every other finalist.", "finalists": rows})
    (folder / "finalists" / "finalists.json").write_text(stored, encoding="utf-8")
    text = page(study, folder)
    assert "Trial 0000 is best." in text, "0001 had the larger values in the search"
    assert "2 recipes, 3 new trainings of each" in text and "3 of 3 trainings" in text
    assert "0.710 (0.60 to 0.80), 0.700 in the search" in (folder / TEXT).read_text(encoding="utf-8")


def test_a_final_that_nobody_passed_is_one_story_on_page_text_and_exports(study: optuna.Study, folder: Path) -> None:
    for level in (0.7, 0.4):
        add_scored(study, folder, level)
    row = {name: {"style": 0.7, "composition": 0.6} for name in ("values", "searched")}
    row |= {"intervals": {"style": [0.6, 0.8], "composition": [0.5, 0.7]}, "relation": "first", "number": 0}
    row |= {"feasible": [True, False, False], "broken": {"failures": 2}}
    (folder / "finalists").mkdir()
    said = "No finalist keeps every constraint: nothing is called best."
    (folder / "finalists" / "finalists.json").write_text(json.dumps({"verdict": said, "finalists": [row]}))
    for text in (page(study, folder), (folder / TEXT).read_text(encoding="utf-8")):
        assert "it passes every check" not in text and "the best" not in text.split("## ")[0].split("<h2>")[0]
        assert "None is recommended." in text and "trial 0000 (failures in 2 of 3)" in text
    assert "its final did not confirm" in (folder / "export" / "ai_toolkit.yaml").read_text()


def test_what_has_not_learned_the_style_is_neither_best_nor_exported(study: optuna.Study, folder: Path) -> None:
    for level in (0.02, 0.01):
        add_scored(study, folder, level)
    text = page(study, folder)
    assert "<h1>No usable LoRA has learned the style yet.</h1>" in text and "Train longer (train.budget)." in text
    assert "There is none worth taking yet." in text
    assert not (folder / "export").exists()


def test_a_marked_picture_has_a_frame_and_a_word_and_stands_among_the_first(study: optuna.Study, folder: Path) -> None:
    found = add_scored(study, folder, 0.7)
    flags = [0.0] * 7 + [1.0]
    best = replace(found.best, per_image=found.best.per_image | {"failed": flags})
    replace(found, candidates=[best]).write(folder / "0000")
    text = page(study, folder)
    assert "a star, with the LoRA of trial 0000, marked: failed" in text and 'class="mark">failed</small>' in text
    grid = text.partition("Pictures at the same prompts")[2]
    assert grid.index("a star, with the LoRA") < grid.index("a girl, with the LoRA"), "not folded away below others"
    assert "0000: failed: “a star”" in (folder / TEXT).read_text(encoding="utf-8")
