"""Folders of pictures from any tool, paired by file name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from metrics.images import ScoreError, reduced

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class NamedPrompt:
    """What a picture was asked for with, as far as the folders tell."""

    text: str  # NAME.txt beside the picture or its base image, else NAME
    group: str = "unrelated"


@dataclass(frozen=True)
class PairedFolders:
    """Samples and base images of the same names, in the order of their names."""

    names: list[str]
    samples: list[Tensor]
    base_images: list[Tensor]
    prompts: list[NamedPrompt]
    captioned: bool  # whether every prompt comes from a NAME.txt


def read_folder(folder: Path, *, reduce: bool = False) -> dict[str, Tensor]:
    """Return name without suffix -> (3, H, W) float in [0, 1], by name; transparent pixels lie on white.

    Args:
        reduce: keep large pictures `reduced`, for what is not compared pixel by pixel.

    Raises:
        ScoreError: listing what is wrong: no folder, no pictures, two of one name, or files that cannot be read.
    """
    if not folder.is_dir():
        raise ScoreError(f"no such folder of pictures: {folder}")
    found: dict[str, Tensor] = {}
    faults = []
    for file in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
        if file.stem in found:
            faults.append(f"{file}: there is another picture called {file.stem}")
            continue
        try:
            picture = read_picture(file)
            found[file.stem] = reduced(picture) if reduce else picture
        except (UnidentifiedImageError, OSError) as error:
            faults.append(f"{file}: {error}")
    if faults:
        raise ScoreError(
            f"{len(faults)} picture{'s' * (len(faults) > 1)} cannot be used:\n  " + "\n  ".join(faults[:10])
        )
    if not found:
        raise ScoreError(f"no pictures ({', '.join(SUFFIXES)}) in {folder}")
    return found


def read_pairs(images: Path, base: Path) -> PairedFolders:
    """Return the pictures of two folders side by side; equal names are one prompt and seed.

    Raises:
        ScoreError: listing the names that are in one folder only or differ in size, and what `read_folder` raises.
    """
    samples, before = read_folder(images), read_folder(base)
    alone = [f"{images / name} has no base image in {base}" for name in samples if name not in before]
    alone += [f"{base / name} has no sample in {images}" for name in before if name not in samples]
    if alone:
        raise ScoreError(
            f"pictures are paired by file name, and {len(alone)} have no mate:\n  " + "\n  ".join(alone[:10])
        )
    sizes = {name: (_size(sample), _size(before[name])) for name, sample in samples.items()}
    differ = [f"{name}: {size}, its base image {other}" for name, (size, other) in sizes.items() if size != other]
    if differ:
        raise ScoreError(
            f"a picture and its base image must be of one size, {len(differ)} of {len(samples)} pairs are not:\n  "
            + "\n  ".join(differ[:10])
        )
    texts = [_text(name, images, base) for name in samples]
    prompts = [NamedPrompt(text or name) for name, text in zip(samples, texts, strict=True)]
    return PairedFolders(list(samples), list(samples.values()), [before[name] for name in samples], prompts, all(texts))


def _size(picture: Tensor) -> str:
    return f"{picture.shape[2]}x{picture.shape[1]}"


def _text(name: str, *folders: Path) -> str:
    for folder in folders:
        file = folder / f"{name}.txt"
        if file.is_file():
            return file.read_text(encoding="utf-8").strip()
    return ""


def read_picture(file: Path) -> Tensor:
    """Return (3, H, W) float in [0, 1], upright; transparent pixels lie on white."""
    with Image.open(file) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGBA")
    on_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return torch.from_numpy(np.asarray(on_white, dtype=np.float32) / 255).permute(2, 0, 1).contiguous()
