"""Reading a folder: what is found, and that all faults are listed at once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.examples import DatasetError, read_examples, read_picture


def _save(path: Path, size: tuple[int, int] = (20, 30), **options: object) -> Path:
    Image.new("RGB", size, (255, 0, 0)).save(path, **options)
    return path


def test_pictures_come_with_their_captions_and_tags(tmp_path: Path) -> None:
    _save(tmp_path / "b.png")
    _save(tmp_path / "a.JPG", (40, 10))
    (tmp_path / "b.txt").write_text("\ufeffa heart\n\na red heart \n", encoding="utf-8")
    (tmp_path / "b.tags").write_text("heart, red,, left side\n")
    (tmp_path / "notes.md").write_text("not a picture, not read")
    first, second = read_examples(tmp_path)
    assert (first.path.name, first.width, first.height, first.captions) == ("a.JPG", 40, 10, ())
    assert second.captions == ("a heart", "a red heart")
    assert second.tags == ("heart", "red", "left side")


def test_a_missing_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no such folder.*nowhere"):
        read_examples(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="no picture"):
        read_examples(tmp_path)


def test_all_faults_are_listed_in_one_error(tmp_path: Path) -> None:
    whole = _save(tmp_path / "whole.png", (200, 200)).read_bytes()
    (tmp_path / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("I am no picture")
    (tmp_path / "empty.webp").write_bytes(b"")
    _save(tmp_path / "latin.png")
    (tmp_path / "latin.txt").write_bytes("ein Schädel".encode("latin-1"))
    with pytest.raises(DatasetError) as caught:
        read_examples(tmp_path)
    message = str(caught.value)
    assert message.startswith("4 files")
    assert "text.jpg: not a picture" in message and "truncated.png: cannot be decoded" in message
    assert "latin.png: its .txt file is not UTF-8" in message
    assert "whole.png" not in message


def test_long_lists_of_faults_are_cut_with_their_count(tmp_path: Path) -> None:
    for number in range(13):
        (tmp_path / f"{number:02}.png").write_text("no")
    with pytest.raises(DatasetError, match=r"13 files(.|\n)*… and 3 more"):
        read_examples(tmp_path)


def test_a_subset_is_seeded_and_part_of_a_larger_one(tmp_path: Path) -> None:
    for number in range(10):
        _save(tmp_path / f"{number}.png")
    small, large = (read_examples(tmp_path, limit=limit, subset_seed=3) for limit in (4, 7))
    assert len(small) == 4 and set(small) < set(large)
    assert small == read_examples(tmp_path, limit=4, subset_seed=3)
    assert small != read_examples(tmp_path, limit=4, subset_seed=4)
    with pytest.raises(DatasetError, match=r"asks for 11 pictures.*holds 10"):
        read_examples(tmp_path, limit=11)


def test_orientation_is_applied_to_size_and_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = _save(tmp_path / "turned.jpg", (40, 10), exif=exif)
    (example,) = read_examples(tmp_path)
    assert (example.width, example.height) == (10, 40)
    assert read_picture(path).shape == (3, 40, 10)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_becomes_three_channels_in_0_1(tmp_path: Path, mode: str) -> None:
    grey = np.full((8, 6), 51 * 257, dtype=np.uint16) if mode == "I;16" else None
    picture = Image.fromarray(grey) if grey is not None else Image.new("L", (6, 8), 51).convert(mode)
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    picture.save(path)
    pixels = read_picture(path)
    assert pixels.shape == (3, 8, 6) and pixels.dtype == torch.float32
    assert pixels.min() >= 0 and pixels.max() <= 1
    if mode not in ("1",):
        assert torch.allclose(pixels, torch.full_like(pixels, 0.2), atol=0.01)


def test_transparent_parts_lie_over_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 255))
    picture.save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png")[:, 0].T.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_a_picture_of_too_many_pixels_is_listed_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path / "huge.png", (40, 40))
    (tmp_path / "text.png").write_text("no picture")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)  # Pillow refuses from twice that on
    with pytest.raises(DatasetError, match=r"2 files(.|\n)*huge\.png: too many pixels(.|\n)*text\.png: not a picture"):
        read_examples(tmp_path)
