"""Reading a folder: what is found, and that all faults are listed at once."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trainer.examples
from trainer.examples import DatasetError, oddities, picture_suffixes, read_examples
from trainer.pixels import read_mask, read_picture


def _save(path: Path, size: tuple[int, int] = (20, 30), **options: object) -> Path:
    Image.new("RGB", size, (255, 0, 0)).save(path, **options)
    return path


def test_pictures_in_folders_inside_are_said_to_be_left_out(tmp_path):
    for name in ("heart.png", "more/hand.png", "more/skull.png", "masks/heart.png", ".hidden/eye.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), "red").save(tmp_path / name)
    said = [f"2 pictures in {tmp_path / 'more'} are not read: folders inside are left out"]
    assert oddities(read_examples(tmp_path, masks=str(tmp_path / "masks"))) == said


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


def test_captions_come_from_the_nearest_place(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        _save(tmp_path / f"{name}.png")
    rows = [{"file_name": f"{name}.png", "text": f"{name} listed"} for name in "abc"]
    rows.append({"file_name": "c.png", "captions": ["another", " and one more "]})
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    (tmp_path / "a.txt").write_text("a beside")
    (tmp_path / "b.caption").write_text("b of kohya's\n")
    found = {example.path.stem: example.captions for example in read_examples(tmp_path)}
    assert found == {
        "a": ("a beside",),
        "b": ("b of kohya's",),
        "c": ("c listed", "another", "and one more"),
        "d": (),
    }


def test_all_kinds_of_faults_are_in_one_message(tmp_path: Path) -> None:
    _save(tmp_path / "twin.png")
    _save(tmp_path / "twin.jpg")
    _save(tmp_path / "dot.png", (1, 1))
    (tmp_path / "none.webp").write_bytes(b"")
    (tmp_path / "phone.HEIC").write_bytes(b"ftypheic")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "gone.png", "text": "x"}\n{"text": "y"}\nno json\n')
    with pytest.raises(DatasetError) as caught:
        read_examples(tmp_path)
    for part in (
        "7 files",
        "twin.jpg: shares twin.txt with twin.png",
        "dot.png: 1x1 px is too small",
        "none.webp: an empty file (0 bytes)",
        "phone.HEIC: Pillow cannot open .HEIC, convert it",
        "line 1: names gone.png, which is not in the folder",
        'line 2: not an object with "file_name"',
        "line 3: ",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_is_trained_on_and_told(tmp_path: Path, ending: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"moving.{ending}", save_all=True, append_images=frames[1:])
    examples = read_examples(tmp_path)
    assert examples[0].frames == 2
    assert read_picture(examples[0].path)[:, 0, 0].tolist() == pytest.approx([1, 0, 0], abs=0.02)
    assert oddities(examples) == [f"1 of 1 pictures are animated, the first frame is trained on: moving.{ending}"]


def test_a_strip_of_20000_px_is_read_and_told(tmp_path: Path) -> None:
    _save(tmp_path / "strip.png", (20_000, 40))
    examples = read_examples(tmp_path)
    assert "more than four times as long as wide" in oddities(examples)[0]


@pytest.mark.parametrize(
    ("ending", "mode"), [("ppm", "RGB"), ("tga", "RGBA"), ("gif", "P"), ("jp2", "RGB"), ("avif", "RGB")]
)
def test_formats_beyond_the_usual_are_read(tmp_path: Path, ending: str, mode: str) -> None:
    if ending not in {suffix.removeprefix(".") for suffix in picture_suffixes()}:
        pytest.skip(f"this Pillow has no {ending}")
    Image.new("RGB", (32, 24), (0, 255, 0)).convert(mode).save(tmp_path / f"picture.{ending}")
    (example,) = read_examples(tmp_path)
    assert read_picture(example.path).shape == (3, 24, 32)


@pytest.mark.parametrize("largest", [1.0, 255.0, 65535.0])
def test_floats_are_read_in_the_range_they_use(tmp_path: Path, largest: float) -> None:
    pixels = np.full((8, 8), 0.2 * largest, dtype=np.float32)
    pixels[0, 0] = largest
    Image.fromarray(pixels).save(tmp_path / "float.tif")
    assert read_picture(tmp_path / "float.tif")[0, 4, 4].item() == pytest.approx(0.2, abs=1e-3)


def test_masks_come_from_a_folder_or_from_alpha(tmp_path: Path) -> None:
    pictures, masks = tmp_path / "pictures", tmp_path / "masks"
    pictures.mkdir(), masks.mkdir()
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    half.paste((255, 0, 0, 0), (0, 0, 4, 8))
    half.save(pictures / "a.png")
    _save(pictures / "b.png", (8, 8))
    Image.new("L", (16, 16), 255).save(masks / "a.png")
    with pytest.raises(DatasetError, match=r"b\.png: no mask .*masks.b\.png"):
        read_examples(pictures, masks=str(masks))
    Image.new("L", (16, 16), 0).save(masks / "b.jpg")
    from_folder = [read_mask(example) for example in read_examples(pictures, masks=str(masks))]
    assert [mask.mean().item() for mask in from_folder] == [1.0, 0.0]
    from_alpha = [read_mask(example) for example in read_examples(pictures, masks="alpha")]
    assert from_alpha[0][0, :, 0].sum() == 0 and from_alpha[0][0, :, 4:].mean() == 1
    assert from_alpha[1].mean() == 1 and read_mask(read_examples(pictures)[0]).mean() == 1
    Image.new("L", (8, 32), 0).save(masks / "b.jpg")
    with pytest.raises(DatasetError, match="another shape"):
        read_examples(pictures, masks=str(masks))


def test_a_mask_may_be_of_any_depth_or_drawn_by_transparency(tmp_path: Path) -> None:
    pictures, masks = tmp_path / "pictures", tmp_path / "masks"
    pictures.mkdir(), masks.mkdir()
    half = np.zeros((8, 8), dtype=np.float32)
    half[:, 4:] = 0.5
    clear = Image.new("RGBA", (8, 8), "white")
    clear.putalpha(Image.fromarray((half * 255).astype(np.uint8)))
    drawn = {
        "deep.png": Image.fromarray((half * 65535).astype(np.uint16)),
        "float.tif": Image.fromarray(half),
        "clear.png": clear,
        "grey.png": Image.fromarray((half * 255).astype(np.uint8)),
    }
    for name, mask in drawn.items():
        mask.save(masks / name)
        _save((pictures / name).with_suffix(".png"), (8, 8))
    for example in read_examples(pictures, masks=str(masks)):
        found = read_mask(example)[0]
        assert found[:, :4].max() == 0 and found[:, 4:].mean().item() == pytest.approx(0.5, abs=0.01), example.path.name


def test_a_picture_is_decoded_once_while_its_file_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        Image.new("RGB", (32, 48)).save(tmp_path / f"{name}.png")
    decoded: list[str] = []
    really = trainer.examples.opened
    monkeypatch.setattr(trainer.examples, "opened", lambda path: (decoded.append(path.name), really(path))[1])
    first = read_examples(tmp_path)
    (tmp_path / "a.txt").write_text("a heart")
    again = read_examples(tmp_path)
    assert decoded == ["a.png", "b.png"] and [example.width for example in again] == [32, 32]
    assert not first[0].captions and again[0].captions == ("a heart",), "what lies beside it is read every time"
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert read_examples(tmp_path)[0].width == 64
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:40])
    for _ in range(2):
        with pytest.raises(DatasetError, match=r"b\.png"):
            read_examples(tmp_path)
