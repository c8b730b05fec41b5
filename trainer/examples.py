"""Training pictures and what lies beside them: NAME.png with NAME.txt (captions, one a line) and NAME.tags.

Captions may also stand in NAME.caption, as kohya's scripts have them, or in one metadata.jsonl for the folder, as the
Hub's image folders do; what lies nearest to the picture wins: .txt, .caption, metadata.jsonl. A folder is read once and
wholly: every file at fault is listed in one error, before anything costs time.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from trainer.files import file_state
from trainer.seeds import derive_seed

ALPHA = "alpha"  # as the folder of masks: every picture's own transparency
METADATA = "metadata.jsonl"
_NO_PICTURES = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}  # Pillow names them but cannot draw them alone
_COMMON = (".png", ".jpg", ".jpeg")
_TEXTS = (".txt", ".tags", ".caption", ".jsonl")
_FOREIGN = (".heic", ".heif", ".jxl", ".cr2", ".nef", ".arw", ".dng")  # pictures that Pillow cannot open
_CAPTION_KEYS = ("text", "captions", "caption", "prompt")  # of metadata.jsonl
_FAULTS_SHOWN = 10
_SMALLEST = 8  # px; no base has smaller tokens
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class DatasetError(ValueError):
    """A folder of pictures cannot be used; the message lists the files at fault and why.

    Attributes:
        readable: the pictures of the folder without a fault, so that what else is wrong with these can be told at once.
    """

    def __init__(self, message: str, readable: Sequence[Example] = ()) -> None:
        super().__init__(message)
        self.readable = list(readable)


@dataclass(frozen=True)
class Example:
    """One training picture with its sidecar texts."""

    path: Path
    width: int  # px, upright
    height: int  # px, upright
    captions: tuple[str, ...]  # lines of NAME.txt
    tags: tuple[str, ...]  # parts of NAME.tags
    mask: Path | None = None  # white where the loss counts; the picture itself: its alpha channel; None: everywhere
    frames: int = 1  # of an animation the first is trained on
    # captions that a person corrected or a model made, which win: `captions.variant` -> texts
    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


def read_examples(
    folder: str | Path, *, limit: int | None = None, subset_seed: int = 0, masks: str = ""
) -> list[Example]:
    """Read all pictures of a folder, in order of their names.

    Args:
        limit: keep that many, drawn by `subset_seed`; a smaller limit keeps a subset of what a larger one keeps.
        masks: folder with a mask NAME.* for every picture, or "alpha"; empty: none.

    Raises:
        DatasetError: no such folder, no picture in it, fewer than `limit`, or files that cannot be read (all listed).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"no such folder of pictures: {folder}")
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    paths = [file for file in files if is_picture(file)]
    foreign = [file for file in files if file.suffix.lower() in _FOREIGN]
    if not paths and not foreign:
        raise DatasetError(_empty(folder))
    listed, faults = _read_metadata(folder, {path.name for path in paths})
    faults += [f"{file}: Pillow cannot open {file.suffix}, convert it to PNG or JPEG" for file in foreign]
    faults += _shared_stems(paths)
    found, mask_faults = _find_masks(paths, masks)
    faults += mask_faults
    examples = []
    for path in paths:
        try:
            examples.append(_read_example(path, listed.get(path.name, ()), found.get(path)))
        except (OSError, ValueError) as error:
            faults.append(f"{path}: {error}")
    if faults:
        raise DatasetError(list_faults("files that cannot be used", faults), examples)
    if limit is not None and limit > len(paths):
        raise DatasetError(f"`limit` asks for {limit} pictures, {folder} holds {len(paths)}")
    drawn = sorted(examples, key=lambda example: derive_seed(subset_seed, example.path.name))[:limit]
    return sorted(drawn, key=lambda example: example.path)


def is_picture(file: Path) -> bool:
    """Whether Pillow opens files of this ending; its rarer formats are loaded only to be asked for one of theirs."""
    end = file.suffix.lower()
    return end in _COMMON or (end not in _TEXTS and end in picture_suffixes())


@cache
def picture_suffixes() -> frozenset[str]:
    """Lower-case file endings of every format that this Pillow opens."""
    suffixes = Image.registered_extensions()  # first: it loads Pillow's formats
    return frozenset(end for end, kind in suffixes.items() if kind in Image.OPEN and kind not in _NO_PICTURES)


def _empty(folder: Path) -> str:
    inside = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    hint = f"; folders inside it are not read: {', '.join(inside[:3])}" if inside else ""
    return f"no picture (.png, .jpg, .webp, .tif, … any format of Pillow's) in {folder}{hint}"


def _shared_stems(paths: list[Path]) -> list[str]:
    """Pictures that would share their sidecar files."""
    by_stem: dict[str, list[Path]] = {}
    for path in paths:
        by_stem.setdefault(path.stem, []).append(path)
    return [
        f"{same[0]}: shares {stem}.txt with {', '.join(path.name for path in same[1:])}; rename one or remove it"
        for stem, same in by_stem.items()
        if len(same) > 1
    ]


def _read_metadata(folder: Path, names: set[str]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Captions by the picture's file name from metadata.jsonl, and what is wrong with it."""
    file = folder / METADATA
    captions: dict[str, tuple[str, ...]] = {}
    faults: list[str] = []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines() if file.is_file() else []
    except UnicodeDecodeError as error:
        return {}, [f"{file}: not UTF-8 ({error.reason}, byte {error.start})"]
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                name, texts = _metadata_row(json.loads(line))
                if name not in names:
                    raise ValueError(f"names {name}, which is not in the folder")
                captions[name] = captions.get(name, ()) + texts
            except ValueError as error:
                faults.append(f"{file}, line {number}: {error}")
    return captions, faults


def _metadata_row(row: Any) -> tuple[str, tuple[str, ...]]:
    """The picture's file name and its captions."""
    if not isinstance(row, Mapping) or not isinstance(row.get("file_name"), str):
        raise ValueError('not an object with "file_name"')
    key = next((key for key in _CAPTION_KEYS if key in row), None)
    texts = row[key] if key else None
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f'no "text" (or {", ".join(_CAPTION_KEYS[1:])}) with a text or a list of texts')
    return row["file_name"], tuple(text.strip() for text in texts if text.strip())


def _find_masks(paths: list[Path], masks: str) -> tuple[dict[Path, Path], list[str]]:
    """The mask of every picture, and which are missing."""
    if not masks or masks == ALPHA:
        return ({path: path for path in paths} if masks else {}), []
    folder = Path(masks)
    if not folder.is_dir():
        return {}, [f"{folder}: no such folder of masks"]
    by_stem = {path.stem: path for path in sorted(folder.iterdir()) if is_picture(path)}
    missing = [f"{path}: no mask {folder / path.stem}.png" for path in paths if path.stem not in by_stem]
    return {path: by_stem[path.stem] for path in paths if path.stem in by_stem}, missing


def list_faults(what: str, faults: list[str], *, shown: int = _FAULTS_SHOWN) -> str:
    """One message for many faults: their count and the first ten, or as many as asked for."""
    rest = len(faults) - shown
    return "\n  ".join([f"{len(faults)} {what}:", *faults[:shown], *([f"… and {rest} more"] if rest > 0 else [])])


def _read_example(path: Path, listed: tuple[str, ...], mask: Path | None) -> Example:
    width, height, frames = _check_picture(path)
    if mask is not None and mask != path:
        try:
            found = _check_picture(mask)
        except ValueError as error:
            raise ValueError(f"its mask {mask}: {error}") from error
        if abs(found[0] * height - found[1] * width) > max(width, height):
            raise ValueError(f"its mask {mask} has another shape: {found[0]}x{found[1]}, not {width}x{height}")
    text = _read_sidecar(path.with_suffix(".txt")) or _read_sidecar(path.with_suffix(".caption"))
    captions = tuple(filter(None, (line.strip() for line in text.splitlines()))) or listed
    tags = [tag.strip() for tag in _read_sidecar(path.with_suffix(".tags")).replace("\n", ",").split(",")]
    return Example(path, width, height, captions, tuple(filter(None, tags)), mask, frames)


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Pillow warns of pictures of 90 to 179 million px and refuses larger ones; the former are fine here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as picture:
            yield picture


def _check_picture(path: Path) -> tuple[int, int, int]:
    """A picture's upright size and frames, read once while its file stays what it is."""
    return _decoded(*file_state(path))


@lru_cache(maxsize=10_000)  # a folder is looked at several times in every trial, and a photograph takes .2 s
def _decoded(path: Path, changed_ns: int, size: int, inode: int) -> tuple[int, int, int]:
    """Decode the whole picture, since a truncated one opens without complaint."""
    if size == 0:
        raise ValueError("an empty file (0 bytes)")
    try:
        with opened(path) as picture:
            frames = getattr(picture, "n_frames", 1) if picture.format != "MPO" else 1  # a phone's second view
            picture.load()
            width, height = picture.size
            turned = picture.getexif().get(0x0112) in _TURNED
    except Image.UnidentifiedImageError as error:
        raise ValueError("not a picture") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"too many pixels to be opened safely, make it smaller ({error})") from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises SyntaxError on some broken PNGs
        raise ValueError(f"cannot be decoded ({error})") from error
    if min(width, height) < _SMALLEST:
        raise ValueError(f"{width}x{height} px is too small to train on")
    return (height, width, frames) if turned else (width, height, frames)


def _read_sidecar(path: Path) -> str:
    if not path.exists():
        return ""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"its {path.suffix} file is not UTF-8, save it as that ({error.reason}, byte {error.start})"
        ) from error


def oddities(examples: list[Example]) -> list[str]:
    """What is done with unusual pictures, and which are not read, to be told before a training."""
    moving = [example.path.name for example in examples if example.frames > 1]
    long = [e.path.name for e in examples if max(e.width, e.height) > 4 * min(e.width, e.height)]
    masks = {example.mask.parent for example in examples if example.mask is not None}
    places = {place for folder in {example.path.parent for example in examples} for place in folder.iterdir()}
    inside = {place: many for place in sorted(places - masks) if (many := _pictures_in(place))}
    unread = [
        f"{count} picture{'s' * (count > 1)} in {place} {'are' if count > 1 else 'is'} not read:"
        " folders inside are left out"
        for place, count in inside.items()
    ]
    return [
        *unread,
        *(
            f"{len(names)} of {len(examples)} pictures {what}: {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
            for names, what in (
                (moving, "are animated, the first frame is trained on"),
                (long, "are more than four times as long as wide, they make buckets of their own"),
            )
            if names
        ),
    ]


def _pictures_in(place: Path) -> int:
    if not place.is_dir() or place.name.startswith(".") or not os.access(place, os.R_OK | os.X_OK):
        return 0
    return sum(map(is_picture, place.iterdir()))
