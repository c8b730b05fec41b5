"""`python -m sweep.captions`: the sheet as a person makes, corrects and trains with it; against a real server."""

import csv
import shutil
from pathlib import Path

import pytest
from PIL import Image

from sweep.captions import write_captions
from sweep.errors import InputError
from sweep.examples import captions_line, sheet_rows, with_captions
from sweep.schema import Config, DataNode, MixNode
from sweep.settings import EvalSettings, StudySettings
from tests.chat_server import Reply, chat_server
from tests.sweep.conftest import ROOT, Ran, command
from trainer.captioner_settings import CaptionerKind, CaptionerSettings
from trainer.captions import caption
from trainer.examples import DatasetError, read_examples
from trainer.settings import CaptionSettings, Prompt, Strategy

SAID = {
    "eye": "an engraving of an eye at the left, fine hatched lines",
    "heart": "a vintage chalk drawing of a human heart, eerie mood",
}


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    folder = tmp_path / "plates"
    folder.mkdir()
    for name, text in SAID.items():
        Image.new("RGB", (32, 32), "white").save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(text)
        (folder / f"{name}.tags").write_text(f"{name}, engraving")
    return folder


def captions(plates: Path, *words: str) -> Ran:
    place = [f"data.path={plates}", f"study.folder={plates.parent}/multirun", "data.references=x", "data=folder"]
    return command("-m", "sweep.captions", *place, *words, cwd=ROOT)


def rows(plates: Path) -> list[dict[str, str]]:
    with (plates.parent / "multirun" / "plates" / "captions.csv").open(encoding="utf-8-sig", newline="") as sheet:
        return list(csv.DictReader(sheet))


def change(plates: Path, picture: str, strategy: str, text: str) -> None:
    """What a person does in a spreadsheet."""
    found = rows(plates)
    [row] = [row for row in found if row["picture"] == f"plates/{picture}.png" and row["strategy"] == strategy]
    row["text"] = text
    with (plates.parent / "multirun" / "plates" / "captions.csv").open("w", encoding="utf-8-sig", newline="") as sheet:
        writer = csv.DictWriter(sheet, found[0])
        writer.writeheader()
        writer.writerows(found)


def config(plates: Path, strategy: Strategy, url: str = "") -> Config:
    """A configuration as the door hands it on."""
    captioner = CaptionerSettings(CaptionerKind.endpoint, "tiny", url, attempts=1) if url else CaptionerSettings()
    return Config(
        captions=CaptionSettings(strategy),
        captioner=captioner,
        mix=MixNode({"512": 1}),
        data=DataNode(str(plates), "x"),
        eval=EvalSettings([Prompt("a cat")]),
        study=StudySettings("plates", f"{plates.parent}/multirun"),
    )


def test_a_person_reads_corrects_reruns_and_trains_with_the_correction(
    plates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = captions(plates, "captions=all", "captions.trigger=antmy")
    assert ran.code == 0, ran.text
    assert "vlm: left out, it needs a model" in ran.out
    assert "rules, without a model" in ran.out
    made = {(row["picture"], row["strategy"]): row for row in rows(plates)}
    assert len(made) == 12
    heart = made["plates/heart.png", "subject_only"]
    assert heart["text"] == heart["made"] == "a human heart"
    assert "vintage (style)" in heart["stripped"]
    assert "chalk (medium)" in heart["stripped"] or "chalk drawing (medium)" in heart["stripped"]
    assert int(heart["t5_tokens"]) > 3  # with the trigger
    page = (plates.parent / "multirun" / "plates" / "captions.html").read_text()
    assert page.count("data:image/jpeg") == 2
    assert '<del class="emotion" title="emotion">eerie mood</del>' in page
    assert "http" not in page.replace("http://www.w3.org", "")

    change(plates, "heart", "subject_only", "a heart, großer Fund")
    write_captions(config(plates, Strategy.subject_only), every=False)
    assert "1 edited by hand" in capsys.readouterr().out
    assert len(rows(plates)) == 12
    trained = {
        example.path.stem: caption(example, CaptionSettings(Strategy.subject_only), epoch=0, seed=0)
        for example in with_captions(config(plates, Strategy.subject_only), read_examples(plates))
    }
    assert trained == {"eye": "an eye", "heart": "a heart, großer Fund"}
    assert "1 picture edited" in captions_line(config(plates, Strategy.subject_only), read_examples(plates))

    change(plates, "eye", "none", "an eye")
    with pytest.raises(DatasetError, match="none has no words of its own"):
        write_captions(config(plates, Strategy.subject_only), every=True)


def test_an_edited_sheet_is_part_of_what_a_study_compares(plates: Path) -> None:
    from sweep.contents import sheet_content

    one = config(plates, Strategy.edited)
    assert sheet_content(one) == {}
    sheet = plates.parent / "multirun" / "plates" / "captions.csv"
    sheet.parent.mkdir(parents=True)
    sheet.write_text("picture,strategy,line,text,made\nplates/eye.png,edited,1,an eye,an eye\n")
    assert sheet_content(one) == {}
    sheet.write_text("picture,strategy,line,text,made\nplates/eye.png,edited,1,one eye,an eye\n")
    before = sheet_content(one)
    sheet.write_text("picture,strategy,line,text,made\nplates/eye.png,edited,1,two eyes,an eye\n")
    assert list(before) == list(sheet_content(one)) == [f"content of captions.sheet {sheet}"]
    assert before != sheet_content(one)


def test_a_sheet_with_unknown_pictures_or_another_encoding_is_refused(plates: Path) -> None:
    sheet = plates.parent / "multirun" / "plates" / "captions.csv"
    sheet.parent.mkdir(parents=True)
    sheet.write_text("picture,strategy,text\nplates/lung.png,edited,a lung\nplates/liver.png,edited,a liver\n")
    with pytest.raises(DatasetError, match=r"2 pictures of .*captions\.csv are not in(.|\n)*lung(.|\n)*liver"):
        sheet_rows(config(plates, Strategy.edited))
    sheet.write_bytes("picture,strategy,text\nplates/eye.png,edited,größer".encode("utf-16"))
    with pytest.raises(DatasetError, match="not UTF-8"):
        sheet_rows(config(plates, Strategy.edited))


def test_pictures_without_captions_are_all_listed_and_can_be_written_into_the_sheet(plates: Path) -> None:
    for name in SAID:
        (plates / f"{name}.txt").unlink()
    with pytest.raises(InputError, match=r"2 captions missing(.|\n)*eye\.txt(.|\n)*heart\.txt"):
        write_captions(config(plates, Strategy.original), every=False)
    change(plates, "eye", "original", "an eye")
    change(plates, "heart", "original", "a heart")
    examples = with_captions(config(plates, Strategy.original), read_examples(plates))
    assert [caption(each, CaptionSettings(Strategy.original), epoch=0, seed=0) for each in examples] == [
        "an eye",
        "a heart",
    ]


def test_all_means_what_can_be_made_and_every_lack_is_told_once(
    plates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        Image.new("RGB", (32, 32)).save(plates / f"bare_{number:02}.png")
    for name in SAID:
        (plates / f"{name}.tags").unlink()
    with pytest.raises(InputError) as caught:
        write_captions(config(plates, Strategy.original), every=True)
    for number in range(12):  # each once, although edited and subject_only lack it too
        assert str(caught.value).count(f"bare_{number:02}.txt") == 1
    assert ".tags: no tags" not in str(caught.value)
    assert "tags: left out, no picture has tags" in capsys.readouterr().out
    assert {row["strategy"] for row in rows(plates)} == {"none", "trigger", "original", "edited", "subject_only"}


def test_a_model_fills_the_sheet_and_one_that_is_down_leaves_it_as_it_was(
    plates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with chat_server(lambda asked: Reply("a red eye")) as server:
        asked = ("captioner=endpoint", f"captioner.url={server.url}", "captioner.model=tiny", "captioner.attempts=1")
        write_captions(config(plates, Strategy.vlm, server.url), every=False)
        assert f"model tiny at {server.url}, prompt vlm_v1" in " ".join(capsys.readouterr().out.split())
        assert [row["text"] for row in rows(plates)] == ["a red eye"] * 2
        trained = with_captions(config(plates, Strategy.vlm, server.url), read_examples(plates))
        assert [example.given for example in trained] != [{}, {}]
    before = rows(plates)
    shutil.rmtree(plates.parent / "multirun" / "cache")
    down = captions(plates, "captions=vlm", *asked)
    assert down.code == 2
    assert down.err.count("nobody answers") == 1
    assert "Traceback" not in down.err
    assert rows(plates) == before


def test_a_caption_of_style_words_alone_is_pointed_out_until_a_person_writes_one(
    plates: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plates / "eye.txt").write_text("watercolor, loose brushwork")
    write_captions(config(plates, Strategy.subject_only), every=False)
    assert "1 of 2 captions are nothing but style words" in capsys.readouterr().out
    [row] = [row for row in rows(plates) if row["picture"] == "plates/eye.png"]
    assert (row["text"], row["note"]) == ("", "nothing but style words: write what is seen")
    change(plates, "eye", "subject_only", "an eye")
    write_captions(config(plates, Strategy.subject_only), every=False)
    assert "nothing but style words" not in capsys.readouterr().out
    [row] = [row for row in rows(plates) if row["picture"] == "plates/eye.png"]
    assert (row["text"], row["note"]) == ("an eye", "")
