"""References and training pictures on our pages: ink on a transparent ground is on white, a phone's picture upright."""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from sweep.captions import _thumbnail
from sweep.report_pictures import Album


@pytest.mark.parametrize("url", [lambda file: Album().pack(file, "").url, _thumbnail], ids=["report", "sheet"])
def test_pages_show_pictures_upright_and_over_white(url: Callable[[Path], str], tmp_path: Path) -> None:
    ink = Image.new("RGBA", (400, 200), (0, 0, 0, 0))
    ink.paste((0, 0, 0, 255), (0, 0, 40, 40))
    lying = Image.Exif()
    lying[0x0112] = 6  # its top is on the right
    ink.save(tmp_path / "ink.png", exif=lying)
    shown = Image.open(io.BytesIO(base64.b64decode(url(tmp_path / "ink.png").split(",")[1]))).convert("L")
    width, height = shown.size
    assert height == 2 * width
    assert shown.getpixel((width - 4, 4)) < 60 and shown.getpixel((width // 2, height // 2)) > 240
