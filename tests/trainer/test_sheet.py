"""The caption sheet: what a person writes wins, survives re-runs, and is refused where it cannot be meant."""

from dataclasses import replace
from pathlib import Path

import pytest

from trainer.captions import texts
from trainer.examples import DatasetError, Example
from trainer.settings import CaptionSettings, Strategy, Strip
from trainer.sheet import Row, corrected, merged, picture_name, read_sheet, unknown_pictures, write_sheet

MADE = Row("plates/heart.png", "edited", "1", "a heart", "a heart", "rules")
EDITED = CaptionSettings(Strategy.edited)


@pytest.fixture
def heart(tmp_path: Path) -> Example:
    return Example(tmp_path / "plates" / "heart.png", 80, 80, ("an engraving of a heart", "a chalk drawing of it"), ())


def test_a_sheet_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [MADE, replace(MADE, line="2", text='a "red" heart, großer Fund; ✓'), replace(MADE, strategy="original")]
    write_sheet(tmp_path / "captions.csv", rows)
    assert read_sheet(tmp_path / "captions.csv") == rows
    assert read_sheet(tmp_path / "none.csv") == []


@pytest.mark.parametrize("mark", [";", "\t", ","])
def test_spreadsheets_of_other_countries_are_read(tmp_path: Path, mark: str) -> None:
    file = tmp_path / "captions.csv"
    file.write_text(
        mark.join(["picture", "strategy", "line", "text"]) + "\n" + mark.join(["a/b.png", "vlm", "1", "x y"])
    )
    assert [(row.text, row.edited) for row in read_sheet(file)] == [("x y", True)]


def test_a_persons_words_survive_a_rerun_and_the_rest_is_new() -> None:
    mine = replace(MADE, text="a human heart")
    other = replace(MADE, picture="plates/lung.png")
    left = replace(MADE, strategy="vlm", text="mine", made="its")
    new = [replace(MADE, text="the heart", made="the heart"), replace(other, text="the lung", made="the lung")]
    found = merged([mine, other, left], new)
    assert [(row.picture, row.strategy, row.text) for row in found] == [
        ("plates/heart.png", "edited", "a human heart"),
        ("plates/lung.png", "edited", "the lung"),
        ("plates/heart.png", "vlm", "mine"),
    ]
    assert found[0].made == "the heart"
    assert merged(found, new) == found


def test_edited_rows_win_line_by_line_and_for_their_strategy_alone(heart: Example) -> None:
    mine = Row(picture_name(heart.path), "edited", "2", "an old heart", "a drawing of it")
    example = corrected(heart, EDITED, [mine, replace(mine, text=mine.made, line="1")])
    assert texts(example, EDITED) == ("a heart", "an old heart")
    assert texts(example, CaptionSettings(Strategy.original)) == heart.captions
    assert texts(example, CaptionSettings(Strategy.edited, strip=[Strip.style])) == heart.captions


def test_a_row_stands_in_for_a_sidecar_or_a_model_that_is_not_there(heart: Example) -> None:
    bare = replace(heart, captions=())
    for strategy in (Strategy.original, Strategy.vlm):
        row = Row(picture_name(heart.path), strategy.value, "1", "a heart")
        assert texts(corrected(bare, CaptionSettings(strategy), [row]), CaptionSettings(strategy)) == ("a heart",)


def test_an_emptied_row_is_the_empty_caption(heart: Example) -> None:
    row = Row(picture_name(heart.path), "original", "1", "", "an engraving of a heart")
    one = replace(heart, captions=heart.captions[:1])
    assert texts(corrected(one, CaptionSettings(Strategy.original), [row]), CaptionSettings(Strategy.original)) == ("",)


def test_rows_that_cannot_be_meant_are_all_listed(tmp_path: Path) -> None:
    wrong = [
        Row("heart.png", "edited", text="x"),
        Row("a/heart.png", "edted", text="x"),
        Row("a/heart.png", "none", text="a heart"),
        Row("a/heart.png", "vlm", "zero", text="x"),
        Row("a/lung.png", "vlm", text="x"),
        Row("a/lung.png", "vlm", text="y"),
    ]
    write_sheet(tmp_path / "captions.csv", wrong)
    with pytest.raises(DatasetError) as error:
        read_sheet(tmp_path / "captions.csv")
    for named in ("5 rows", "row 2", "FOLDER/FILE", "edted", "row 4", "none", "'zero'", "two texts for a/lung.png"):
        assert named in str(error.value)


def test_a_sheet_in_another_encoding_or_without_columns_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "captions.csv"
    file.write_bytes("picture,strategy,text\na/b.png,vlm,größer".encode("cp1252"))
    with pytest.raises(DatasetError, match=r"captions\.csv: not UTF-8.*CSV UTF-8"):
        read_sheet(file)
    file.write_text("picture,words\na/b.png,x\n")
    with pytest.raises(DatasetError, match="strategy, text is missing"):
        read_sheet(file)


def test_pictures_that_the_folder_lacks_are_named_and_those_of_other_folders_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "plates"
    folder.mkdir()
    (folder / "heart.png").touch()
    rows = [MADE, replace(MADE, picture="plates/lung.png"), replace(MADE, picture="elsewhere/eye.png")]
    assert unknown_pictures(folder, rows) == ["plates/lung.png"]
