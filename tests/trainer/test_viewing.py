"""Ink on a transparent ground, a phone's picture on its side and a scan of 16 bits are shown as they are trained on."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.endpoint import _data_url
from trainer.local_captioner import _upright
from trainer.pixels import read_picture
from trainer.viewing import view


def _ink() -> Image.Image:
    ink = Image.new("RGBA", (48, 32), (0, 0, 0, 0))  # black and not to be seen
    ink.paste((0, 0, 0, 255), (8, 8, 16, 24))
    return ink


def _save(kind: str, folder: Path) -> Path:
    file = folder / "picture.png"
    if kind == "deep":
        ramp = np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.uint16)
        Image.fromarray(ramp).save(file)
    elif kind == "turned":
        lying = Image.Exif()
        lying[0x0112] = 6
        Image.effect_noise((48, 32), 90).convert("RGB").save(file, exif=lying)
    else:
        _ink().convert(kind).save(file)
    return file


@pytest.mark.parametrize("kind", ["RGBA", "LA", "deep", "turned"])
def test_what_is_shown_is_what_is_trained_on(kind: str, tmp_path: Path) -> None:
    file = _save(kind, tmp_path)
    seen = np.asarray(view(file), dtype=np.float32) / 255
    trained = read_picture(file).permute(1, 2, 0).numpy()
    assert seen.shape == trained.shape
    assert np.abs(seen - trained).max() <= 0.5 / 255 + 1e-6


def _of_url(file: Path, longest_px: int) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(_data_url(file, longest_px).split(",")[1])))


@pytest.mark.parametrize("shown", [_upright, _of_url])
def test_a_captioner_sees_ink_on_white(shown: Callable[[Path, int], Image.Image], tmp_path: Path) -> None:
    seen = np.asarray(shown(_save("RGBA", tmp_path), 32).convert("L"))
    assert seen.shape[1] == 32 and seen.max() > 250 and np.median(seen) > 250 and seen.min() < 60
