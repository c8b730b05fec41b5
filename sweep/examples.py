"""The training pictures of a configuration with their captions ready, the caption sheet and the models asked."""

from collections.abc import Callable, Sequence
from pathlib import Path

from sweep.numbers import plural
from sweep.schema import Config
from sweep.settings import study_folder
from trainer.answers import CaptionerDown
from trainer.captioner_settings import CaptionerKind
from trainer.captioning import fault_list, made_by, make_captions
from trainer.captions import BY_MODEL, variant
from trainer.examples import DatasetError, Example, list_faults
from trainer.settings import Strategy
from trainer.sheet import Row, picture_name, read_sheet, unknown_pictures

SHEET = "captions.csv"
Say = Callable[[str, int, int], None]


def sheet_file(config: Config) -> Path:
    """Where the caption sheet is, or would be: `captions.sheet`, or captions.csv in the study's folder."""
    named = config.captions.sheet.strip()
    return Path(named).expanduser() if named else study_folder(config.study) / SHEET


def answers_folder(config: Config) -> Path:
    """Where models' answers are kept, for all studies."""
    return Path(config.study.folder).absolute() / "cache" / "answers"


def sheet_rows(config: Config, *, to_be_written: bool = False) -> list[Row]:
    """A person's rows of the caption sheet; it need not be there if it is to be written.

    Raises:
        DatasetError: no such sheet though one is named, one that cannot be read, or rows of pictures that do not exist.
    """
    file = sheet_file(config)
    if config.captions.sheet and not to_be_written and not file.is_file():
        raise DatasetError(f"`captions.sheet`: no such file: {file}")
    rows = [row for row in read_sheet(file) if row.edited]
    unknown = unknown_pictures(Path(config.data.path), rows)
    if unknown:
        raise DatasetError(
            list_faults(f"pictures of {file} are not in {config.data.path}", unknown)
            + "\n  Put them back, correct their names, or remove their rows."
        )
    return rows


def with_captions(config: Config, examples: list[Example], say: Say = lambda what, done, of: None) -> list[Example]:
    """The examples with the words of the configuration's strategy.

    Raises:
        DatasetError: pictures without an answer (all listed), no model where one is needed, a sheet with faults.
    """
    try:
        made = make_captions(
            examples,
            config.captions,
            config.captioner,
            config.tagger,
            rows=sheet_rows(config),
            kept=answers_folder(config),
            say=say,
        )
    except CaptionerDown as fault:
        raise DatasetError(str(fault)) from fault
    if made.faults:
        raise DatasetError(fault_list(made, config.captions))
    return made.examples


def captions_line(config: Config, examples: list[Example]) -> str:
    """Who made the captions, and how many are a person's."""
    name = variant(config.captions)
    mine = {row.picture for row in sheet_rows(config) if row.strategy == name}
    edited = sum(picture_name(example.path) in mine for example in examples)
    by = made_by(config.captions, config.captioner, config.tagger)
    return f"captions {name}: {by}" + (
        f"; {plural(edited, 'picture')} edited in {sheet_file(config)}" if edited else ""
    )


def lacks(config: Config, strategy: Strategy, examples: Sequence[Example]) -> str:
    """What a strategy would need to make a single caption; empty where it can."""
    if strategy in BY_MODEL and config.captioner.kind == CaptionerKind.rules:
        return "it needs a model: choose one with captioner=NAME"
    tagged = bool(config.tagger.model) or any(example.tags for example in examples)
    if strategy in (Strategy.tags, Strategy.tags_vlm) and not tagged:
        return "no picture has tags: write NAME.tags beside them, or have them found with tagger=wd14"
    return ""
