"""A command line, made into what Hydra is to read; refused where it takes no configuration to know that it is wrong."""

import re
import sys
from argparse import ArgumentError, ArgumentParser
from dataclasses import dataclass
from pathlib import Path

from sweep.errors import InputError
from sweep.typed import python, refuse

OVERRIDE = re.compile(r"~|[\w+./@]+=")
OTHER_PLACE = re.compile(r"[+~]*hydra\.sweep\.(sub)?dir\b")
NO_FOLDER = ["hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]


@dataclass(frozen=True)
class Command:
    """A command line without the program."""

    overrides: list[str]
    sweeps: bool = False  # with -m, or in Hydra's other way
    folder: str | None = None  # of more configurations, with -cd
    hydras: bool = False  # whether it is left to hydra.main, with flags such as --cfg
    asks_help: bool = False


def read_command(*, keeps_folder: bool, of_study: bool) -> Command:
    """What is typed, which also becomes what hydra.main would read; what is wrong already ends the command."""
    asks_help = not {"--help", "-h"}.isdisjoint(sys.argv[1:])
    words = _words(keeps_folder, asks_help, of_study)
    sys.argv[1:] = [*(["--run"] if asks_help else []), *words]
    flags = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    flags.add_argument("-m", "--multirun", action="store_true")
    flags.add_argument("-cd", "--config-dir")
    try:
        asked, others = flags.parse_known_args(words)
    except ArgumentError:  # -cd without a folder
        return Command(words, hydras=True, asks_help=asks_help)
    if any(word.startswith("-") for word in others):
        return Command(words, asked.multirun, hydras=True, asks_help=asks_help)
    if asked.config_dir is not None and not Path(asked.config_dir).is_dir():
        refuse(f"-cd: no such folder: {asked.config_dir}")
    return Command(others, asked.multirun or "hydra.mode=MULTIRUN" in others, asked.config_dir, asks_help=asks_help)


def _words(keeps_folder: bool, asks_help: bool, of_study: bool) -> list[str]:
    # A shell expands ~ in HOME=~/x but not in data.path=~/x
    words = [re.sub(r"^([\w.]+=)~(?=/|$)", lambda key: f"{key[1]}{Path.home()}", word) for word in sys.argv[1:]]
    if asks_help:
        words = [word for word in words if word not in ("--help", "-h", "--multirun", "-m", "--run", "-r")]
    elif not keeps_folder:
        _refuse_multirun()
        words = _with_study(words) if of_study else words
    if other := [word for word in words if word.startswith("hydra/sweeper=") and not word.endswith("=stylesweep")]:
        refuse(f"trials live in a study, which no other sweeper keeps: leave out {other[0]}")
    if other := [word for word in words if OTHER_PLACE.match(word)]:
        refuse(
            f"trials live in their study's folder, where every command looks for them: leave out {' and '.join(other)};"
            " study.folder=FOLDER study.name=NAME puts the study elsewhere"
        )
    words.sort(key=lambda word: bool(OVERRIDE.match(word)))  # Hydra refuses those on both sides of a flag such as -m
    return [*words, *(NO_FOLDER if asks_help or not keeps_folder else [])]


def _with_study(words: list[str]) -> list[str]:
    from sweep.naming import with_study

    try:
        return with_study(words)
    except InputError as fault:
        refuse(fault)


def _refuse_multirun() -> None:
    """Ends a command that looks at one configuration and was asked for a sweep, before the study is touched."""
    asked = [word for word in sys.argv[1:] if word in ("-m", "--multirun") or word.startswith("hydra.mode=")]
    if asked:
        refuse(f"this command takes one configuration, without {asked[0]}; a sweep is {python()} -m sweep -m")
