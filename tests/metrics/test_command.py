"""`python -m metrics`: folders of pictures from any tool, no LoRA involved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import other_styles, pictures
from torch import Tensor

from metrics.__main__ import main
from metrics.folders import read_folder, read_pairs
from metrics.images import ScoreError


def save(folder: Path, images: list[Tensor], suffix: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        pixels = (image.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"picture_{i:02d}{suffix}")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path, lpips_file: Path) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    save(root / "base", pictures("flat", range(8)))
    save(root / "hatch", pictures("hatch", range(8)))
    save(root / "references", pictures("hatch", range(500, 508)))
    save(root / "training", pictures("hatch", range(900, 908)))
    save(root / "others", other_styles("hatch"))
    (root / "score.yaml").write_text(
        f"encoder: {encoder_folder}\nlpips_weights: {lpips_file}\nbootstrap_samples: 100\n"
    )
    return root


def command(folders: Path, *more: str, images: str = "hatch", references: str = "references") -> list[str]:
    named = {"--base": "base", "--references": references, "--others": "others", "--settings": "score.yaml"}
    return [str(folders / images), *[part for k, v in named.items() for part in (k, str(folders / v))], *more]


def test_folders_of_pictures_are_scored_into_a_table_and_a_file(folders, tmp_path, capsys):
    out = tmp_path / "new" / "scores.json"
    more = ["--training", str(folders / "training"), "--nouns", "heart", "--json", str(out)]
    assert main(command(folders, *more)) == 0
    said = capsys.readouterr().out
    assert "composition" in said and "0 unrelated, 1 kept" in said and str(out) in said
    found = json.loads(out.read_text())
    assert found["style"] > 0.4 and found["composition"] > 0.6
    assert found["names"] == [f"picture_{i:02d}" for i in range(8)] and len(found["per_image"]["style"]) == 8
    assert found["versions"]["torch"] and found["settings"]["references_at_least"] == 4


def test_what_was_not_measured_is_said_with_what_to_give(folders, capsys):
    assert main(command(folders)) == 0
    said = capsys.readouterr().out
    assert "give --nouns" in said and "give --training" in said and "NAME.txt" in said


def test_unchanged_pictures_score_nothing_and_everything(folders, tmp_path):
    out = tmp_path / "scores.json"
    assert main(command(folders, "--json", str(out), images="base")) == 0
    found = json.loads(out.read_text())
    assert (found["style"], found["composition"]) == (0.0, 1.0)


def test_every_number_shown_has_an_interval_around_it(folders, tmp_path, capsys):
    assert main(command(folders)) == 0
    lines = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    shown = {cells[1].strip(): (cells[2].strip(), cells[3].strip()) for cells in lines}
    assert {"style", "composition", "failures", "lines"} <= set(shown)
    for name, (value, interval) in shown.items():
        if " to " in interval:
            low, high = (float(bound) for bound in interval.split(" to "))
            assert low <= float(value) <= high, name
        else:
            assert name in ("diversity", "leakage", "memorisation")  # the first has none, the others are not measured


def test_prompts_beside_the_pictures_are_read_and_those_with_training_subjects_listed(folders, tmp_path, capsys):
    images = save(tmp_path / "images", pictures("hatch", range(8)))
    for i in range(8):
        (images / f"picture_{i:02d}.txt").write_text("a heart on a table" if i == 3 else f"scene {i}")
    assert main(command(folders, "--nouns", "heart", images=str(images))) == 0
    said = capsys.readouterr().out
    assert "1 prompt asks for training subjects" in said and "a heart on a table (heart)" in said


WRONG = {
    "pictures are paired by file name, and 2 have no mate": {"images": "references_of_10"},
    "at least 4 references are needed": {"references": "few"},
    "no such folder of pictures": {"images": "nowhere"},
    "no pictures": {"images": "empty"},
    "1 picture cannot be used": {"images": "broken"},
    "references must never be trained on, but 8 show": {"references": "training"},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_input_ends_with_one_sentence_and_no_traceback(folders, message, capsys):
    save(folders / "references_of_10", pictures("hatch", range(10)))
    save(folders / "few", pictures("hatch", range(3)))
    (folders / "empty").mkdir(exist_ok=True)
    (save(folders / "broken", pictures("hatch", range(2))) / "bad.png").write_text("no picture")
    assert main(command(folders, "--training", str(folders / "training"), **WRONG[message])) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and "Traceback" not in said


def test_settings_with_an_unknown_key_are_refused(folders, capsys):
    (folders / "typo.yaml").write_text("encodr: somewhere\n")
    assert main([*command(folders), "--settings", str(folders / "typo.yaml")]) == 2
    assert "unknown keys encodr" in " ".join(capsys.readouterr().err.split())


def test_transparent_pictures_lie_on_white_and_any_format_is_read(tmp_path):
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("L", (32, 48), 0).save(tmp_path / "grey.JPG")
    found = read_folder(tmp_path)
    assert found["clear"].min() == 1 and found["grey"].shape == (3, 48, 32) and found["grey"].max() < 0.1


def test_a_photograph_is_upright_and_reduced_where_that_is_asked_for(tmp_path):
    lying = Image.Exif()
    lying[0x0112] = 6
    Image.new("RGB", (1600, 800)).save(tmp_path / "photo.jpg", exif=lying)
    assert read_folder(tmp_path)["photo"].shape == (3, 1600, 800)
    assert read_folder(tmp_path, reduce=True)["photo"].shape == (3, 1448, 724)


def test_two_pictures_of_one_name_cannot_be_paired(tmp_path):
    for suffix in (".png", ".jpg"):
        save(tmp_path / "images", pictures("flat", range(1)), suffix)
    with pytest.raises(ScoreError, match="another picture called picture_00"):
        read_pairs(tmp_path / "images", tmp_path / "images")
