"""Which study a command is about: its name, its folder, study.name=NAME (with study.folder=FOLDER), or the newest.

One way for every command that looks at a study, whether Hydra reads the rest of its words or argparse does.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from sweep.database import DATABASE, has_study
from sweep.errors import InputError
from sweep.typed import python

STUDIES = "multirun"  # as in conf/config.yaml
NAME, FOLDER = "study.name=", "study.folder="
DECIDES = ("data.path=", "data=", "experiment=")  # what gives a study its name
LOOKS = {"--cfg", "-c", "--info", "-i", "--hydra-help"}  # Hydra's own flags, for which no study is needed
TAKE_A_VALUE = {"-cd", "--config-dir", "-cn", "--config-name", "-cp", "--config-path", "-p", "--package"} | LOOKS


def add_study(parser: argparse.ArgumentParser) -> None:
    """The words that name a study; `find_study` reads them."""
    said = "its name in multirun/, its folder, or study.name=NAME; default: the newest"
    parser.add_argument("study", nargs="*", metavar="STUDY", help=said)


def find_study(words: Sequence[str]) -> Path:
    """The folder of the study that these words name; the newest if there are none.

    Raises:
        InputError: if there is none, or the words name more than one.
    """
    studies = Path(_value(FOLDER, words, STUDIES)).expanduser()
    given = [word.removeprefix(NAME) for word in words if not word.startswith(FOLDER)]
    if not given:
        return newest_study(studies).absolute()
    if len(set(given)) > 1:
        raise InputError(f"name one study, got {', '.join(given)}")
    named = Path(given[0]).expanduser()
    folder = next((f for f in (studies / named, named) if has_study(f)), None)
    if folder is None:
        there = ", ".join(sorted(f.name for f in studies.glob("*") if has_study(f))) or "none"
        raise InputError(f"{given[0]} has no study ({DATABASE}); in {studies}/ there is: {there}")
    return folder.absolute()


def newest_study(folder: Path) -> Path:
    """The study that was written to last.

    Raises:
        InputError: if there is none.
    """
    studies = sorted(filter(has_study, folder.glob("*")), key=_written)
    if not studies:
        raise InputError(f"no study in {folder.absolute()}: make one with {python()} -m sweep -m (or make sweep)")
    return studies[-1]


def with_study(words: Sequence[str]) -> list[str]:
    """A command line for Hydra in which study.name and study.folder name the study.

    Raises:
        InputError: as `find_study`.
    """
    kept: list[str] = []
    named: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        is_name = word.startswith((NAME, FOLDER)) or not ("=" in word or word.startswith(("-", "~")))
        (named if is_name and before not in TAKE_A_VALUE else kept).append(word)
    if all(word.startswith(FOLDER) for word in named) and (
        LOOKS.intersection(words) or any(word.startswith(DECIDES) for word in kept)
    ):
        return list(words)
    folder, here = find_study([_unquoted(word) for word in named]), Path.cwd()
    studies = folder.parent.relative_to(here) if folder.is_relative_to(here) else folder.parent
    return [*kept, f"{NAME}{_quoted(folder.name)}", f"{FOLDER}{_quoted(str(studies))}"]


def _value(key: str, words: Sequence[str], default: str) -> str:
    return next((word.removeprefix(key) for word in reversed(words) if word.startswith(key)), default)


def _unquoted(word: str) -> str:
    """Without the quotes that a value needs for Hydra."""
    key, sign, value = word.rpartition("=")
    return f"{key}{sign}{value[1:-1]}" if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else word


def _quoted(text: str) -> str:
    """As Hydra's grammar takes any text for a value."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.single).with_quotes()


def _written(folder: Path) -> float:
    """When the study was written to last; of one on a server only its folder can tell."""
    file = folder / DATABASE
    return (file if file.is_file() else folder).stat().st_mtime
