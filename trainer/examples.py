"""Training pictures and what lies beside them: NAME.png with NAME.txt (captions, one a line) and NAME.tags.

A folder is read once and wholly: every file at fault is listed in one error, before anything costs time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from trainer.seeds import derive_seed

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_FAULTS_SHOWN = 10
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class DatasetError(ValueError):
    """A folder of pictures cannot be used; the message lists the files at fault and why."""


@dataclass(frozen=True)
class Example:
    """One training picture with its sidecar texts."""

    path: Path
    width: int  # px, upright
    height: int  # px, upright
    captions: tuple[str, ...]  # lines of NAME.txt
    tags: tuple[str, ...]  # parts of NAME.tags


def read_examples(folder: str | Path, *, limit: int | None = None, subset_seed: int = 0) -> list[Example]:
    """Read all pictures of a folder, in order of their names.

    Args:
        limit: keep that many, drawn by `subset_seed`; a smaller limit keeps a subset of what a larger one keeps.

    Raises:
        DatasetError: no such folder, no picture in it, fewer than `limit`, or files that cannot be read (all listed).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"no such folder of pictures: {folder}")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise DatasetError(f"no picture ({', '.join(SUFFIXES)}) in {folder}")
    if limit is not None and limit > len(paths):
        raise DatasetError(f"`limit` asks for {limit} pictures, {folder} holds {len(paths)}")
    examples, faults = [], []
    for path in paths:
        try:
            examples.append(_read_example(path))
        except (OSError, ValueError) as error:
            faults.append(f"{path}: {error}")
    if faults:
        raise DatasetError(list_faults("files that cannot be used", faults))
    drawn = sorted(examples, key=lambda example: derive_seed(subset_seed, example.path.name))[:limit]
    return sorted(drawn, key=lambda example: example.path)


def list_faults(what: str, faults: list[str]) -> str:
    """One message for many faults: their count and the first ten."""
    rest = len(faults) - _FAULTS_SHOWN
    return "\n  ".join(
        [f"{len(faults)} {what}:", *faults[:_FAULTS_SHOWN], *([f"… and {rest} more"] if rest > 0 else [])]
    )


def _read_example(path: Path) -> Example:
    width, height = _check_picture(path)
    captions = [line.strip() for line in _read_sidecar(path.with_suffix(".txt")).splitlines()]
    tags = [tag.strip() for tag in _read_sidecar(path.with_suffix(".tags")).replace("\n", ",").split(",")]
    return Example(path, width, height, tuple(filter(None, captions)), tuple(filter(None, tags)))


def _check_picture(path: Path) -> tuple[int, int]:
    """Decode the whole picture, since a truncated one opens without complaint; return its upright size."""
    try:
        with Image.open(path) as picture:
            picture.load()
            width, height = picture.size
            turned = picture.getexif().get(0x0112) in _TURNED
    except Image.UnidentifiedImageError as error:
        raise ValueError("not a picture") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"too many pixels to be opened safely, make it smaller ({error})") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError on some broken PNGs
        raise ValueError(f"cannot be decoded ({error})") from error
    return (height, width) if turned else (width, height)


def _read_sidecar(path: Path) -> str:
    if not path.exists():
        return ""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"its {path.suffix} file is not UTF-8 ({error.reason}, byte {error.start})") from error


def read_picture(path: str | Path) -> Tensor:
    """Read a picture upright, in colour, transparent parts over white.

    Returns:
        (3, H, W) float32 in [0, 1], sRGB values as stored.
    """
    import torch  # here, so that a folder can be checked before torch is loaded

    with Image.open(path) as stored:
        picture = ImageOps.exif_transpose(stored)
        if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
            grey = np.asarray(picture, dtype=np.float32) / 65535.0  # Pillow opens 16-bit grey as I or I;16
            pixels = np.repeat(grey[:, :, None], 3, axis=2)
        else:
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0
    return torch.from_numpy(pixels.clip(0.0, 1.0)).permute(2, 0, 1).contiguous()
