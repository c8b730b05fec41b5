"""A contact sheet: every prompt with and without the LoRA, one above the other, to be judged by eye."""

import json
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from textwrap import wrap
from typing import Any

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

CELL = 144  # px, the longer edge of a picture
GAP = 6
LABEL = 54  # px above a picture pair, for the prompt
TITLE = 30  # px at the top, for what was tried and its scores
MARGIN = 76  # px at the left, for the names of the rows
PER_ROW = 8
NOTE = 16  # px below a picture, for its mark
RED = "#c62828"
MARKED = "marked"  # key in the file, for the boxes around marked pictures


def contact_sheet(
    prompts: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Any]]],
    title: str,
    marks: Sequence[Sequence[str]] = (),
) -> Image.Image:
    """Draws prompts × rows in blocks of eight columns; the first row is the base by convention.

    Args:
        prompts: column labels.
        rows: name and pictures, (3, H, W) float tensors in [0, 1], one per prompt.
        marks: for each row a word per picture that the scores hold against it, which gets a red frame with the word
            below; empty for none.

    Returns:
        the sheet; `info` holds the boxes around marked pictures, for `save_sheet`.
    """
    blocks = [range(start, min(start + PER_ROW, len(prompts))) for start in range(0, len(prompts), PER_ROW)]
    columns = min(PER_ROW, len(prompts))
    pitch = CELL + NOTE + GAP  # with marks or without, so that nobody can tell which sheet had any
    height = LABEL + len(rows) * pitch
    sheet = Image.new("RGB", (MARGIN + columns * (CELL + GAP), TITLE + len(blocks) * (height + GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    sheet.info[MARKED] = []
    draw.text((GAP, 8), title, fill="black", font=font)
    for block, columns_of in enumerate(blocks):
        top = TITLE + block * (height + GAP)
        for row, (name, _) in enumerate(rows):
            words = "\n".join(wrap(name, 11))
            draw.text((GAP, top + LABEL + row * pitch + CELL // 2 - 12), words, fill="black", font=font)
        for column, index in enumerate(columns_of):
            left = MARGIN + column * (CELL + GAP)
            words = "\n".join(wrap(prompts[index], 23)[:3])
            draw.text((left, top + 4), words, fill="black", font=font)
            for row, (_, pictures) in enumerate(rows):
                box = _place(sheet, pictures[index], left, top + LABEL + row * pitch)
                if row < len(marks) and marks[row][index]:
                    draw.rectangle(_around(box), outline=RED, width=2)
                    draw.text((left + CELL / 2, box[3] + 2), marks[row][index], fill=RED, font=font, anchor="ma")
                    sheet.info[MARKED].append(box)
    return sheet


def save_sheet(sheet: Image.Image, file: Path) -> None:
    """Writes a sheet with what `plain_sheet` needs to take its marks off again."""
    noted = PngImagePlugin.PngInfo()
    noted.add_text(MARKED, json.dumps(sheet.info.get(MARKED, [])))
    sheet.save(file, "PNG", pnginfo=noted, compress_level=4)  # half the time of 6, and a thirtieth larger


def _around(box: Sequence[int]) -> tuple[int, int, int, int]:
    """The frame of a picture, in the gap around it."""
    return box[0] - 2, box[1] - 2, box[2] + 1, box[3] + 1


def _place(sheet: Image.Image, picture: Any, left: int, top: int) -> tuple[int, int, int, int]:
    """Pastes a picture into its cell; returns the box it fills, right and bottom outside of it."""
    image = as_image(picture)
    scale = CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Sandbox pixels are shown as they are, so that hatching can be told from blur.
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    corner = (left + (CELL - size[0]) // 2, top + (CELL - size[1]) // 2)
    sheet.paste(image.resize(size, method), corner)
    return (*corner, corner[0] + size[0], corner[1] + size[1])


def plain_sheet(file: Path) -> Image.Image:
    """A sheet from which nobody can tell what it is of and how it scored: no title, no marks."""
    with Image.open(file) as opened:
        boxes = json.loads(opened.info.get(MARKED, "[]"))
        sheet = opened.convert("RGB")
    draw = ImageDraw.Draw(sheet)
    for box in boxes:
        picture = sheet.crop(tuple(box))
        draw.rectangle(_around(box), fill="white")
        middle = (box[0] + box[2] - CELL) // 2
        draw.rectangle((middle, box[3] + 2, middle + CELL, box[3] + 1 + NOTE), fill="white")
        sheet.paste(picture, (box[0], box[1]))
    return sheet.crop((0, TITLE, sheet.width, sheet.height))


def as_image(picture: Any) -> Image.Image:
    """A (3, H, W) float tensor in [0, 1] as an 8-bit picture."""
    pixels = (picture.detach().float().cpu().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def save_pictures(folder: Path, pictures: Sequence[Any]) -> list[str]:
    """Writes 00.png, 01.png, … and returns their names, relative to the folder's parent."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{index:02d}.png" for index in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        as_image(picture).save(folder / name)
    return [f"{folder.name}/{name}" for name in names]


def save_once(folder: Path, pictures: Sequence[Any]) -> list[str]:
    """Writes pictures under names made from their content, so that trials share them; returns the names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for picture in pictures:
        image = as_image(picture)
        name = blake2b(repr(image.size).encode() + image.tobytes(), digest_size=8).hexdigest() + ".png"
        if not (folder / name).is_file():
            draft = folder / f".{os.getpid()}.{name}"
            image.save(draft, "PNG")
            draft.replace(folder / name)
        names.append(name)
    return names
