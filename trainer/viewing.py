"""Pictures as people and other models are shown them: upright, in colour, transparent parts over white; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from trainer.examples import opened

if TYPE_CHECKING:  # a refused command does without it
    import numpy as np


def view(file: str | Path) -> Image.Image:
    """A picture as RGB of eight bits, upright; of an animation the first frame.

    Raises:
        OSError: it cannot be read, or is no picture.
    """
    with opened(file) as stored:
        picture = ImageOps.exif_transpose(stored)
        if is_deep(picture):
            return Image.fromarray((deep_grey(picture).clip(0, 1) * 255).round().astype("uint8")).convert("RGB")
        return over(picture, "white").convert("RGB")


def over(picture: Image.Image, colour: str) -> Image.Image:
    """The picture with its transparent parts over a colour."""
    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, colour), picture)


def is_deep(picture: Image.Image) -> bool:
    """Whether it is grey of more than 8 bits, which Pillow would clip."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def deep_grey(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Grey of 16 bits (Pillow opens it as I or I;16), of 32 bits, or of floats that end at 1, 255 or 65535."""
    import numpy as np

    grey = np.asarray(picture, dtype=np.float32)
    largest = grey.max()
    floats = (1.0, 255.0, 65535.0) if picture.mode == "F" else (65535.0,)
    return grey / next((end for end in floats if largest <= end), 2.0**32 - 1)
