"""The sandbox's picture folders are what `python -m sandbox.data` writes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sandbox import data

COMMITTED = Path("sandbox/data")
FOLDERS = {
    "anatomy_engraving": 30,
    "anatomy_chalk": 30,
    "varied_engraving": 30,
    "references_engraving": 24,
    "references_chalk": 24,
    "other_styles": 48,
}


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture, dtype=int)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    data.write_all(out, 0)
    return out


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_holds_its_pictures_with_captions_and_tags(name: str) -> None:
    pictures = sorted((COMMITTED / name).glob("*.png"))
    assert len(pictures) == FOLDERS[name]
    for picture in pictures:
        assert picture.with_suffix(".txt").read_text(encoding="utf-8").strip()
        assert "," in picture.with_suffix(".tags").read_text(encoding="utf-8")


def test_the_committed_folders_are_what_the_command_writes(written: Path) -> None:
    for path in sorted(written.rglob("*.*")):
        committed = COMMITTED / path.relative_to(written)
        if path.suffix == ".png":  # pixels, not bytes: compression may differ between Pillow versions
            assert np.abs(_pixels(path) - _pixels(committed)).max() <= 1, path.name
        else:
            assert path.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8")


def test_training_and_reference_pictures_differ_in_subject() -> None:
    trained = {p.stem.rsplit("_", 1)[0] for p in (COMMITTED / "anatomy_engraving").glob("*.png")}
    held_out = {p.stem.rsplit("_", 1)[0] for p in (COMMITTED / "references_engraving").glob("*.png")}
    assert not trained & held_out


def test_pictures_differ_in_size_and_aspect_ratio() -> None:
    sizes = {_pixels(p).shape[1::-1] for p in (COMMITTED / "anatomy_engraving").glob("*.png")}
    assert len(sizes) >= 6
    assert min(w / h for w, h in sizes) < 0.8 and max(w / h for w, h in sizes) > 1.3
