"""Pictures and masks as tensors. `trainer.examples` looks at a folder before torch and numpy are loaded; these are read
when it is trained on.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from trainer.examples import Example, opened
from trainer.viewing import deep_grey, is_deep, over


def read_picture(path: str | Path) -> Tensor:
    """Read a picture upright, in colour, transparent parts over white; of an animation the first frame.

    Returns:
        (3, H, W) float32 in [0, 1], sRGB values as stored.
    """
    with opened(path) as stored:
        picture = ImageOps.exif_transpose(stored)
        if is_deep(picture):
            return torch.from_numpy(deep_grey(picture).clip(0.0, 1.0)).repeat(3, 1, 1)
        pixels = torch.from_numpy(np.array(over(picture, "white").convert("RGB")))
    # As bytes into the order of the channels and in place: a photograph is 70 MB as bytes and 290 MB as floats.
    return pixels.permute(2, 0, 1).contiguous().float().div_(255.0)


def read_mask(example: Example) -> Tensor:
    """Where the loss counts: (1, H, W) float32 in [0, 1] at the picture's own size, upright."""
    whole = torch.ones(1, example.height, example.width)
    if example.mask is None:
        return whole
    with opened(example.mask) as stored:
        picture = ImageOps.exif_transpose(stored)
        if example.mask == example.path:
            if not picture.has_transparency_data:
                return whole
            grey = np.asarray(picture.convert("RGBA").getchannel("A"), dtype=np.float32) / 255.0
        else:
            grey = _mask_values(picture)
    size = (example.width, example.height)
    fitted = Image.fromarray(grey.clip(0.0, 1.0)).resize(size, Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(fitted)[None])


def _mask_values(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A mask's grey values in [0, 1]; what is transparent does not count."""
    if is_deep(picture):
        return deep_grey(picture)
    return np.asarray(over(picture, "black").convert("L"), dtype=np.float32) / 255.0
