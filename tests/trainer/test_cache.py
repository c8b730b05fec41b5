"""The cache: keys follow content, files are whole, damage is repaired."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps
from safetensors import safe_open

import trainer.encoding
from trainer.buckets import Bucket, Fit
from trainer.cache import TensorCache, content_key, file_bytes, write_atomic
from trainer.encoding import Texts, encode_examples, encode_masks, fit_pixels
from trainer.examples import read_examples
from trainer.flux import FluxBase
from trainer.plan import make_plan
from trainer.settings import MixSettings


def test_keys_follow_values_types_and_shapes() -> None:
    x = torch.arange(6.0)
    parts = [("a", 1), ("a", "1"), ("a1",), ("a", x), ("a", x.reshape(2, 3)), ("a", x.bfloat16()), ("a", x + 1)]
    assert len({content_key(*part) for part in parts}) == len(parts)
    assert content_key("a", x) == content_key("a", x.clone())
    assert content_key("a", x.reshape(2, 3).T) != content_key("a", x.reshape(2, 3))


def test_files_of_equal_contents_are_equal_byte_by_byte(tmp_path: Path) -> None:
    metadata = {f"ss_{letter}": f"{letter} ä" for letter in "abcdefgh"}
    tensors = {"x": torch.arange(3).bfloat16(), "y": torch.ones(2, 2)}
    first, again = file_bytes(tensors, metadata), file_bytes(tensors, dict(reversed(metadata.items())))
    assert first == again
    (tmp_path / "file").write_bytes(first)
    with safe_open(tmp_path / "file", framework="pt") as file:
        assert file.metadata() == metadata
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path / "cache")
    assert cache.load("kind", "key") is None
    cache.store("kind", "key", {"x": torch.arange(4).bfloat16()})
    found = cache.load("kind", "key")
    assert found is not None and torch.equal(found["x"], torch.arange(4).bfloat16())
    assert cache.load("other", "key") is None


def test_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    cache = TensorCache(tmp_path)
    cache.store("kind", "key", {"x": torch.ones(100)})
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:50])
    assert cache.load("kind", "key") is None


def test_a_failed_write_leaves_nothing_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    with pytest.raises(OSError, match="place"):
        write_atomic(tmp_path / "place", b"a folder stands here")
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


SHARER = """
import sys, torch
from trainer.cache import TensorCache
cache = TensorCache(sys.argv[1])
for number in range(40):
    value = number % 8
    cache.store("kind", str(value), {"x": torch.full((1000,), float(value))})
    assert cache.load("kind", str(value))["x"].unique().tolist() == [value]
"""


def test_several_processes_may_share_a_folder(tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", SHARER, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 8 and not list(tmp_path.rglob(".part-*"))


def test_pixels_are_resized_and_cut_from_the_middle() -> None:
    picture = torch.linspace(0, 1, 20).expand(3, 10, 20)
    cut = fit_pixels(picture, Fit(Bucket(8, 8), (20, 10), (6, 1)))
    assert torch.equal(cut, picture[:, 1:9, 6:14])
    small = fit_pixels(picture, Fit(Bucket(10, 5), (10, 5), (0, 0)))
    assert small.shape == (3, 5, 10)
    assert torch.allclose(small.mean(), picture.mean(), atol=0.01)


def test_latents_and_texts_are_computed_once(base: FluxBase, picture_folder: Path, tmp_path: Path) -> None:
    examples = read_examples(picture_folder)
    plan = make_plan(examples, MixSettings({256: 1, 512: 1}), scale=base.scale, step=base.step_px, seed=0)
    cache = TensorCache(tmp_path)
    first = encode_examples(base, examples, plan, cache)
    assert set(first) == {(side, index) for side in (256, 512) for index in range(4)}
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(files) == 8
    again = encode_examples(base, examples, plan, cache)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == files
    assert all(torch.equal(first[key], again[key]) for key in first)
    texts = Texts(base, cache)(["a heart", "", "a heart"])
    assert texts.tokens.shape[0] == 3 and torch.equal(texts.tokens[0], texts.tokens[2])
    assert len(list((tmp_path / "texts").iterdir())) == 2
    reread = Texts(base, cache)(["", "a heart"])
    assert torch.equal(reread.pooled[1], texts.pooled[0])


def test_a_picture_whose_latents_are_there_is_not_decoded_and_another_in_its_place_is(
    base: FluxBase, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(picture_folder, tmp_path / "pictures")
    cache = TensorCache(tmp_path / "cache")
    read: list[str] = []
    really = trainer.encoding.read_picture
    monkeypatch.setattr(trainer.encoding, "read_picture", lambda path: (read.append(path.name), really(path))[1])

    def encoded() -> dict[tuple[int, int], torch.Tensor]:
        examples = read_examples(tmp_path / "pictures")
        plan = make_plan(examples, MixSettings({256: 1, 512: 1}), scale=base.scale, step=base.step_px, seed=0)
        return encode_examples(base, examples, plan, cache)

    first = encoded()
    assert len(read) == 4, "once for all sides"
    encoded()
    assert len(read) == 4
    file = min((tmp_path / "pictures").glob("*.png"))
    with Image.open(file) as picture:
        other = ImageOps.invert(picture.convert("RGB"))
    other.save(file)
    again = encoded()
    assert read[4:] == [file.name]
    assert [torch.equal(first[512, index], again[512, index]) for index in range(4)] == [False, True, True, True]


def test_a_mask_is_cut_once_and_is_another_for_another_file_or_as_transparency(
    base: FluxBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "masks").mkdir()
    clear = Image.new("RGBA", (96, 96), (255, 0, 0, 255))
    clear.paste((0, 0, 0, 0), (0, 0, 48, 96))
    clear.save(tmp_path / "a.png")
    clear.save(tmp_path / "masks" / "a.png")
    read: list[str] = []
    really = trainer.encoding.read_mask
    monkeypatch.setattr(trainer.encoding, "read_mask", lambda e: (read.append(str(e.mask)), really(e))[1])

    def mask(masks: str) -> torch.Tensor:
        examples = read_examples(tmp_path, masks=masks)
        plan = make_plan(examples, MixSettings({512: 1}), scale=base.scale, step=base.step_px, seed=0)
        return encode_masks(base, examples, plan, TensorCache(tmp_path / "cache"))[512, 0]

    seen, drawn = mask("alpha"), mask(str(tmp_path / "masks"))
    assert 0.4 < seen.mean() < 0.6 and not torch.equal(seen, drawn), "red is no full white"
    assert torch.equal(mask("alpha"), seen) and len(read) == 2
    Image.new("L", (96, 96), 255).save(tmp_path / "masks" / "a.png")
    assert mask(str(tmp_path / "masks")).min() > 0.99 and len(read) == 3


def test_a_file_can_be_read_by_whoever_reads_other_new_files(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    write_atomic(tmp_path / "deep" / "written", b"x")
    assert (tmp_path / "deep" / "written").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["written"]
