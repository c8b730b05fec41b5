"""The caption sheet: a CSV of picture x strategy that a person reads and corrects.

A row whose `text` differs from what was `made` is a person's: it wins wherever captions are used, and no re-run
overwrites it. Everything else in the sheet is written anew each time.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from trainer.captions import made_texts, variant
from trainer.examples import DatasetError, Example, list_faults
from trainer.files import write_atomic
from trainer.settings import CaptionSettings, Strategy

_NEEDED = ("picture", "strategy", "text")
WORDLESS = (Strategy.none.value, Strategy.trigger.value)  # the same for every picture: nothing to correct


@dataclass(frozen=True)
class Row:
    """One text of one picture under one strategy."""

    picture: str  # name of its folder / name of the file
    strategy: str  # `captions.variant`
    line: str = "1"  # which of the picture's captions, from 1
    text: str = ""  # what is trained with; yours to change
    made: str = ""  # what the strategy made; leave it, a difference tells your words from the machine's
    by: str = ""  # "rules", "sidecar" or the model
    clip_tokens: str = ""
    t5_tokens: str = ""  # of the encoder that reads most of it, if that is not T5
    stripped: str = ""  # words that went, each with its class
    note: str = ""

    @property
    def edited(self) -> bool:
        """Whether these are a person's words."""
        return self.text != self.made

    @property
    def key(self) -> tuple[str, str, str]:
        """What a row is about."""
        return self.picture, self.strategy, self.line


def read_sheet(path: Path) -> list[Row]:
    """The rows of a sheet; none if there is no such file. Commas, semicolons and tabs separate, as spreadsheets do.

    Raises:
        DatasetError: wrong encoding, columns missing, or rows that cannot be meant (all listed).
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: not UTF-8 ({error.reason}, byte {error.start}); save it as CSV UTF-8 in your spreadsheet"
        ) from error
    header = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=header.count))
    missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise DatasetError(f"{path}: the first line must name the columns, {', '.join(missing)} is missing")
    names = {column.name for column in fields(Row)}
    rows, faults = [], []
    for number, cells in enumerate(reader, start=2):
        row = Row(**{name: _one_line(cell) for name, cell in cells.items() if name in names and isinstance(cell, str)})
        faults += [f"row {number}: {fault}" for fault in _faults(row)]
        rows.append(row)
    faults += _twice(rows)
    if faults:
        raise DatasetError(list_faults(f"rows of {path} that cannot be used", faults))
    return rows


def write_sheet(path: Path, rows: Iterable[Row]) -> None:
    """Write the sheet whole or not at all, with the mark by which spreadsheets know UTF-8."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [column.name for column in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_atomic(path, text.getvalue().encode("utf-8-sig"))


def merged(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """New rows with a person's words of the old ones, then what the old sheet had besides."""
    mine = {row.key: row.text for row in old if row.edited}
    rows = [replace(row, text=mine[row.key], note="") if row.key in mine else row for row in new]
    made = {row.key for row in new}
    return rows + [row for row in old if row.key not in made]


def corrected(example: Example, settings: CaptionSettings, rows: Iterable[Row]) -> Example:
    """The example with a person's words for this strategy, beside what it makes of the other lines."""
    name = variant(settings)
    mine = [row for row in rows if row.edited and row.strategy == name and row.picture == picture_name(example.path)]
    if not mine:
        return example
    try:
        made = list(made_texts(example, settings))
    except DatasetError:
        made = []  # a person wrote what no sidecar or model has
    for row in sorted(mine, key=lambda row: int(row.line)):
        place = int(row.line) - 1
        made[place : place + 1] = [row.text]
    return replace(example, given={**example.given, name: tuple(made)})


def picture_name(path: Path) -> str:
    """How a sheet names a picture: the folder's name and the file's."""
    return f"{path.absolute().parent.name}/{path.name}"


def unknown_pictures(folder: Path, rows: Iterable[Row]) -> list[str]:
    """The pictures of this folder that rows name and the folder lacks."""
    name = folder.absolute().name
    named = dict.fromkeys(row.picture for row in rows if row.picture.startswith(f"{name}/"))
    return [picture for picture in named if not (folder / picture.removeprefix(f"{name}/")).is_file()]


def _faults(row: Row) -> list[str]:
    faults = []
    if "/" not in row.picture:
        faults.append(f"picture must be FOLDER/FILE, got {row.picture!r}")
    if row.strategy.split(" ")[0] not in set(Strategy):
        faults.append(f"no such strategy: {row.strategy!r}; there are {', '.join(Strategy)}")
    if not row.line.isdecimal() or int(row.line) < 1:
        faults.append(f"line must be a number from 1, got {row.line!r}")
    if row.edited and row.strategy in WORDLESS:
        faults.append(
            f"{row.strategy} has no words of its own to correct, got {row.text!r}; use another strategy's row"
        )
    return faults


def _twice(rows: Sequence[Row]) -> list[str]:
    texts: dict[tuple[str, str, str], set[str]] = {}
    for row in rows:
        texts.setdefault(row.key, set()).add(row.text)
    return [f"two texts for {' '.join(key)}" for key, found in texts.items() if len(found) > 1]


def _one_line(cell: str) -> str:
    return " ".join(cell.split())
