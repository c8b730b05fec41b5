"""The pictures of a report as data URLs, within what a page may weigh."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sweep.checks import marks
from sweep.findings import OBJECTIVES, Entry, Findings
from sweep.numbers import number
from sweep.outcome import unrelated
from sweep.study import rectangle
from trainer.examples import is_picture
from trainer.viewing import view

EDGE = 256  # px, the longer edge of a sample on the page
SHEET_EDGE = 1200  # px, the longer edge of a contact sheet
QUALITY = 82  # JPEG
BUDGET = 6_500_000  # bytes before base64 adds a third: with Plotly's 4.7 MB the page stays below 15 MB
HIGHLIGHTS = 4  # prompts on the first screen
REFERENCES = 6  # of the style, to compare by eye
SIDE_BY_SIDE = 5  # trials next to the base
PIXELS = 128  # a sample no larger than this is the sandbox's and is shown with its pixels


@dataclass(frozen=True)
class Picture:
    """A picture on the page."""

    url: str  # empty: the file is gone or there was no room
    alt: str
    mark: str = ""  # what the scores hold against it
    pixels: bool = False  # enlarged without smoothing, so that hatching can be told from blur


@dataclass(frozen=True)
class PromptRow:
    """One prompt: the base image, then every compared trial's."""

    text: str
    group: str
    pictures: list[Picture]
    values: list[str]  # style and composition on this picture, as the trials' columns go; empty for the base


class Album:
    """Packs pictures until the page is full."""

    def __init__(self) -> None:
        self.left = BUDGET
        self.missing: set[Path] = set()  # files that should be there
        self.refused = 0  # pictures without room

    def pack(self, file: Path, alt: str, edge: int = EDGE, mark: str = "") -> Picture:
        """The picture in the page's format; without a URL when the file is gone or the page is full."""
        try:
            picture = view(file)
        except OSError:
            self.missing.add(file)
            return Picture("", alt, mark)
        small = max(picture.size) <= PIXELS
        if not small:
            picture.thumbnail((edge, edge), Image.Resampling.LANCZOS)
        packed = io.BytesIO()
        picture.save(packed, "PNG" if small else "JPEG", quality=QUALITY)
        if packed.tell() > self.left:
            self.refused += 1
            return Picture("", alt, mark)
        self.left -= packed.tell()
        kind = "png" if small else "jpeg"
        return Picture(f"data:image/{kind};base64,{base64.b64encode(packed.getvalue()).decode()}", alt, mark, small)


def highlights(found: Findings, album: Album) -> list[PromptRow]:
    """The best trial on four unrelated prompts from the one it does best to the one it does worst, evenly between."""
    top = found.best
    if top is None or top.outcome is None or len(top.outcome.samples) < HIGHLIGHTS:
        return []
    values = top.outcome.best.per_image
    if not set(OBJECTIVES) <= set(values):
        return []
    order = sorted(unrelated(top.outcome), key=lambda i: -rectangle([values[name][i] for name in OBJECTIVES]))
    if len(order) < HIGHLIGHTS:
        return []
    chosen = [order[round(i * (len(order) - 1) / (HIGHLIGHTS - 1))] for i in range(HIGHLIGHTS)]
    rows = [_row(found, [top], index, album) for index in chosen]
    return rows if all(picture.url for row in rows for picture in row.pictures) else []


def references(found: Findings, album: Album) -> list[Picture]:
    """Some held-out pictures of the style, evenly among all; none where their folder is not on this machine."""
    known = next((entry.outcome for entry in found.entries if entry.outcome is not None), None)
    folder = Path(str(known.config.get("data", {}).get("references", ""))) if known is not None else Path()
    if known is None or not folder.is_dir():
        return []
    files = sorted(file for file in folder.iterdir() if is_picture(file))
    count = min(REFERENCES, len(files))
    chosen = [files[i * len(files) // count] for i in range(count)]
    return [picture for file in chosen if (picture := album.pack(file, f"Reference {file.name}")).url]


def compared(found: Findings) -> list[Entry]:
    """The trials shown side by side: best first, and infeasible ones only where there is room."""
    with_pictures = [entry for entry in found.entries if entry.outcome is not None and entry.outcome.samples]
    if not with_pictures:
        return []
    prompts = _prompts(with_pictures[0])
    return [entry for entry in with_pictures if _prompts(entry) == prompts][:SIDE_BY_SIDE]


def side_by_side(found: Findings, entries: list[Entry], album: Album) -> list[PromptRow]:
    """Every prompt of the compared trials, at the same seeds; those with a marked picture first."""
    if not entries:
        return []
    rows = [_row(found, entries, index, album) for index in range(len(_prompts(entries[0])))]
    return sorted(rows, key=lambda row: not any(picture.mark for picture in row.pictures))


def _row(found: Findings, entries: list[Entry], index: int, album: Album) -> PromptRow:
    prompt = _prompts(entries[0])[index]
    text = str(prompt["text"])
    pictures = [_base(found, entries, index, text, album)]
    for entry in entries:
        assert entry.outcome is not None
        file = found.folder / entry.number / entry.outcome.samples[index]
        mark = marks(entry.outcome.best.per_image, len(entry.outcome.samples))[index]
        pictures.append(album.pack(file, f"{text}, with the LoRA of trial {entry.number}", mark=mark))
    return PromptRow(text, str(prompt.get("group", "")), pictures, [_values(entry, index) for entry in entries])


def _prompts(entry: Entry) -> list[dict[str, object]]:
    assert entry.outcome is not None
    return list(entry.outcome.config.get("eval", {}).get("prompts", []))[: len(entry.outcome.samples)]


def _base(found: Findings, entries: list[Entry], index: int, text: str, album: Album) -> Picture:
    alt = f"{text}, without a LoRA"
    for entry in entries:
        assert entry.outcome is not None
        if index < len(entry.outcome.base_images):
            return album.pack(found.folder / entry.number / entry.outcome.base_images[index], alt)
    return Picture("", alt)


def _values(entry: Entry, index: int) -> str:
    assert entry.outcome is not None
    values = entry.outcome.best.per_image
    if "style" not in values or "composition" not in values:
        return ""
    return f"{number(values['style'][index])} · {number(values['composition'][index])}"


def sheets(found: Findings, shown: list[Entry], album: Album) -> list[tuple[Entry, Picture]]:
    """The contact sheets of the trials that are not shown side by side, best first, as far as there is room."""
    numbers = {entry.number for entry in shown}
    others = [e for e in found.entries if e.number not in numbers and "sheet" in e.trial.user_attrs]
    packed = []
    for entry in others:
        if album.refused:  # a thousand sheets are not to be opened to find that the page is full
            album.refused += 1
            continue
        alt = f"Contact sheet of trial {entry.number}: every prompt without the LoRA, and below with it"
        packed.append((entry, album.pack(found.folder / str(entry.trial.user_attrs["sheet"]), alt, SHEET_EDGE)))
    return [(entry, picture) for entry, picture in packed if picture.url]
