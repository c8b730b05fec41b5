"""`python -m sweep.captions captions=all`: every picture's captions under every strategy, to read and to correct.

Writes captions.csv and captions.html into the study's folder. Change the column `text` in captions.csv: your words win
in every training from then on, and no re-run overwrites them. Same overrides as `python -m sweep`; captions=NAME makes
one strategy's rows and leaves the others as they are.
"""

import base64
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich import box
from rich.table import Table

from sweep.door import Place, start
from sweep.errors import InputError
from sweep.examples import answers_folder, lacks, sheet_file, sheet_rows
from sweep.lines import StepProgress, console, shown
from sweep.preflight import read_pictures
from sweep.schema import Config
from trainer.answers import CaptionerDown
from trainer.base import BaseError, Family, family_of, find_base
from trainer.caption_diff import Span, differences, style_words, subject_kept
from trainer.captioning import asks_model, fault_list, make_captions
from trainer.captions import made_texts, missing_captions, shortened, variant, with_trigger, words_and_commas
from trainer.examples import DatasetError, Example, read_examples
from trainer.settings import CaptionSettings, Strategy
from trainer.sheet import WORDLESS, Row, merged, picture_name, read_sheet, unknown_pictures, write_sheet
from trainer.tokens import tokenizer_counter

PAGE = ".html"
TEMPLATE = Path(__file__).with_name("captions.html.j2")
THUMBNAIL_PX = 220
CLIP_TOKENS = 77  # of CLIP's text encoder, its two marks counted in
NOTHING_LEFT = "nothing but style words: write what is seen"
NO_TRIGGER = "TRIGGER"  # shown where no trigger word is set


@dataclass(frozen=True)
class Encoder:
    """A text encoder's tokenizer."""

    name: str
    column: str  # of the sheet
    limit: int  # tokens; what is beyond is cut off
    count: Callable[[str], int]


@dataclass(frozen=True)
class Numbers:
    """One strategy in numbers."""

    strategy: str
    by: str
    captions: int
    edited: int
    tokens: list[str]  # per encoder: mean, and how many are cut
    share: str  # of the original's words
    style_left: str
    subject_kept: str


@dataclass(frozen=True)
class Cell:
    """One caption on the page."""

    row: Row
    spans: list[Span]
    trained: str  # with trigger and length, where that differs


def settings_of(config: Config, strategy: Strategy) -> CaptionSettings:
    """The configuration's switches under another strategy, without chance."""
    trigger = {Strategy.none: "", Strategy.trigger: config.captions.trigger or config.data.trigger or NO_TRIGGER}
    calm = replace(config.captions, strategy=Strategy.original, dropout=0.0, shuffle_tags=False)
    return replace(
        calm,
        strategy=strategy,
        trigger=trigger.get(strategy, config.captions.trigger),
        class_phrase="" if strategy == Strategy.none else config.captions.class_phrase,
    )


def write_captions(config: Config, every: bool) -> None:
    """Makes the rows, keeps a person's words, writes the sheet and its page, and says what is wrong at the end.

    Raises:
        InputError: pictures without a caption, all listed; the others are written.
    """
    steps = StepProgress()
    file, folder = sheet_file(config), Path(config.data.path)
    examples = read_examples(folder)
    mine = sheet_rows(config, to_be_written=True)
    new: list[Row] = []
    faults: dict[tuple[str, ...], str] = {}  # by the pictures: edited and subject_only lack what original lacks
    for strategy in Strategy if every else [config.captions.strategy]:
        wanting = lacks(config, strategy, examples) if every else ""
        if wanting:
            steps.say(f"{strategy}: left out, {wanting}")
            continue
        rows, fault = _rows(config, settings_of(config, strategy), examples, mine, steps)
        new += rows
        if fault:
            faults.setdefault(tuple(fault.splitlines()[1:-1]), fault)
    old = read_sheet(file)
    unknown = set(unknown_pictures(folder, old))
    originals = {
        (picture_name(example.path), str(line)): text
        for example in examples
        for line, text in enumerate(example.captions, start=1)
    }
    sheet = Sheet(config, originals, _encoders(config))
    rows = [sheet.counted(row) for row in merged([row for row in old if row.picture not in unknown], new)]
    order = list(Strategy)
    rows.sort(key=lambda row: (row.picture, order.index(Strategy(row.strategy.split(" ")[0])), row.strategy, row.line))
    write_sheet(file, rows)
    page = file.with_suffix(PAGE)
    page.write_text(sheet.page(rows, {picture_name(example.path): example.path for example in examples}), "utf-8")
    console().print(sheet.table(rows))
    if not sheet.encoders:
        steps.say(f"tokens are not counted: {config.base.path} is not on this machine, and its tokenizers come with it")
    steps.say(f"sheet: {shown(file)} ({len(rows)} rows, {sum(row.edited for row in rows)} edited by hand)")
    steps.say(f"page:  {shown(page)}")
    if faults:
        raise InputError("\n".join(faults.values()))


def _rows(
    config: Config, settings: CaptionSettings, examples: list[Example], mine: Sequence[Row], steps: StepProgress
) -> tuple[list[Row], str]:
    """The rows of one strategy, and what is wrong with it; no model is asked about what a person has written."""
    name = variant(settings)
    written = {row.picture for row in mine if row.strategy == name} if asks_model(settings, config.captioner) else set()
    asked = [example for example in examples if picture_name(example.path) not in written]
    made = make_captions(asked, settings, config.captioner, config.tagger, kept=answers_folder(config), say=steps)
    rows: list[Row] = []
    missing: list[str] = []
    for example in made.examples:
        picture = picture_name(example.path)
        try:
            texts = made_texts(example, settings)
        except DatasetError as fault:
            if example.path not in made.faults:
                missing.append(str(fault))
            rows.append(Row(picture, name, by=made.by, note=made.faults.get(example.path, "nothing to make it from")))
            continue
        plain = [" ".join(text.split()) for text in texts]
        notes = ["" if text or settings.strategy in WORDLESS else NOTHING_LEFT for text in plain]
        lines = enumerate(zip(plain, notes, strict=True), start=1)
        rows += [Row(picture, name, str(line), text, text, made.by, note=note) for line, (text, note) in lines]
    corrected = {row.key for row in mine}
    empty = sum(row.note == NOTHING_LEFT and row.key not in corrected for row in rows)
    if empty:
        steps.say(
            f"{name}: {empty} of {len(rows)} captions are nothing but style words and now empty: write what is seen"
        )
    if missing:
        return rows, missing_captions(settings, missing)
    return rows, fault_list(made, settings)


@dataclass(frozen=True)
class Sheet:
    """What the numbers and the page are made from."""

    config: Config
    originals: Mapping[tuple[str, str], str]  # picture and line -> the sidecar's text
    encoders: list[Encoder]

    def trained(self, row: Row) -> str:
        """The text as it is trained with: at its length, with the trigger."""
        settings = settings_of(self.config, Strategy(row.strategy.split(" ")[0]))
        count = self.encoders[-1].count if self.encoders else words_and_commas
        return with_trigger(shortened(row.text, settings.length, settings.max_tokens, count), settings)

    def original(self, row: Row) -> str:
        """The sidecar's text of the row's picture; empty if there is none."""
        return self.originals.get((row.picture, row.line), "")

    def counted(self, row: Row) -> Row:
        """The row with its token counts and what was stripped."""
        counts = {encoder.column: str(encoder.count(self.trained(row))) for encoder in self.encoders}
        compared = self.original(row) and row.strategy not in (Strategy.none, Strategy.trigger, Strategy.tags)
        gone = [span for span in differences(self.original(row), row.text) if span.kind == "gone"] if compared else []
        said = "; ".join(f"{span.text} ({span.why or 'hangs on it, or not the subject'})" for span in gone)
        return replace(row, stripped=said, **counts)

    def numbers(self, rows: Sequence[Row]) -> list[Numbers]:
        """Every strategy's numbers."""
        names = dict.fromkeys(row.strategy for row in rows)
        return [self._numbers(name, [row for row in rows if row.strategy == name]) for name in names]

    def _numbers(self, name: str, rows: Sequence[Row]) -> Numbers:
        whole = [row for row in rows if self.original(row)]
        before = sum(len(self.original(row).split()) for row in whole)
        style = sum(style_words(self.original(row)) for row in whole)
        kept = [share for row in whole if (share := subject_kept(self.original(row), row.text)) is not None]
        tokens = []
        for encoder in self.encoders:
            counts = [encoder.count(self.trained(row)) for row in rows]
            cut = sum(count > encoder.limit for count in counts)
            tokens.append(f"{sum(counts) / len(counts):.1f}" + (f", {cut} cut at {encoder.limit}" if cut else ""))
        return Numbers(
            strategy=name,
            by=", ".join(dict.fromkeys(row.by for row in rows)),
            captions=len(rows),
            edited=sum(row.edited for row in rows),
            tokens=tokens,
            share=_percent(sum(len(row.text.split()) for row in whole), before),
            style_left=_percent(sum(style_words(row.text) for row in whole), style),
            subject_kept=_percent(sum(kept), len(kept)),
        )

    def table(self, rows: Sequence[Row]) -> Table:
        """The numbers; fits 80 columns."""
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
        made.add_column("strategy", no_wrap=True)
        for name in (
            "words",
            "style\nleft",
            "subject\nkept",
            *(f"{encoder.name}\ntokens" for encoder in self.encoders),
        ):
            made.add_column(name, justify="right")
        made.add_column("by")
        for each in self.numbers(rows):
            made.add_row(each.strategy, each.share, each.style_left, each.subject_kept, *each.tokens, each.by)
        return made

    def page(self, rows: Sequence[Row], paths: Mapping[str, Path]) -> str:
        """The sheet as a page that opens without a network."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        pictures = {
            name: (_thumbnail(path), [self._cell(row) for row in rows if row.picture == name])
            for name, path in paths.items()
        }
        pages = Environment(loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined)
        return pages.get_template(TEMPLATE.name).render(
            data=self.config.data.path,
            sheet=str(sheet_file(self.config)),
            numbers=self.numbers(rows),
            encoders=self.encoders,
            pictures=pictures,
            others=sum(row.picture not in paths for row in rows),
        )

    def _cell(self, row: Row) -> Cell:
        spans = differences(self.original(row), row.text) if row.stripped else [Span("same", row.text)]
        trained = self.trained(row)
        return Cell(row, spans, trained if trained != row.text else "")


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "–"


def _encoders(config: Config) -> list[Encoder]:
    """The base's tokenizers; none where the base is not on this machine, captions need no weights."""
    try:
        folder = find_base(config.base)
    except BaseError:
        return []
    longest = config.base.max_text_tokens
    if family_of(folder) == Family.klein:
        return [Encoder("qwen3", "t5_tokens", longest, tokenizer_counter(folder / "tokenizer"))]
    return [
        Encoder("clip", "clip_tokens", CLIP_TOKENS, tokenizer_counter(folder / "tokenizer")),
        Encoder("t5", "t5_tokens", longest, tokenizer_counter(folder / "tokenizer_2")),
    ]


def _thumbnail(path: Path) -> str:
    from trainer.viewing import view

    picture = view(path)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(packed.getvalue()).decode()


def main(arguments: list[str]) -> None:
    """Takes captions=all out of the command line; Hydra gets the rest."""
    every = "captions=all" in arguments
    sys.argv[1:] = [word for word in arguments if word != "captions=all"]

    def write(config: Config, place: Place) -> None:
        try:
            write_captions(config, every)
        except CaptionerDown as fault:
            raise InputError(f"{fault}\n  The sheet is as it was; answers so far are kept.") from fault

    start(write, check=check, keeps_folder=False)


def check(configs: Mapping[str, Config]) -> None:
    """Sees that pictures and sheet can be read."""
    for config in configs.values():
        read_pictures("data.path", config.data.path)
        sheet_rows(config, to_be_written=True)


if __name__ == "__main__":
    main(sys.argv[1:])
