"""What is said of a wrong command: messages of Hydra and OmegaConf made readable, and the words they speak of."""

import errno
import re
import shlex
from collections.abc import Sequence

from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf.errors import KeyValidationError, OmegaConfBaseException

from sweep.errors import Faults
from sweep.manual import nearest

NO_PLACE = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT)  # of a file that is to be written


class Told:
    """Everything that is wrong with a command, found by leaving out what was, and looking at the rest."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.keys: set[str] = set()  # that they speak of

    def add(self, fault: Exception, words: Sequence[str]) -> list[str]:
        """Takes what is new in the fault, and returns the words without those that it speaks of."""
        blamed: set[str] = set()
        before = set(self.keys)
        for text in each(fault):
            key = about(text)
            if key in before:  # what a key is without the word that was left out
                continue
            self.faults.append(text)
            own = _spoken_of(text, key, words)
            self.keys |= {key, *map(_key, own)} - {""}
            blamed |= {*own}
        return [word for word in words if word not in blamed]


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def about(text: str) -> str:
    """The key that a message is about; empty where it names none."""
    found = re.search(r"`([\w./]+)|Could not override '([^']+)'", text)
    return (found[1] or found[2]) if found else ""


def _spoken_of(text: str, key: str, words: Sequence[str]) -> list[str]:
    """The words of a command that a message is about: its key's, else those around it, else those that it repeats."""
    if own := [word for word in words if key and f"{_key(word)}.".startswith(f"{key}.")]:
        return own
    if above := [word for word in words if key.startswith(f"{_key(word)}.")]:
        return above
    group, _, option = (
        found[1].rpartition("/") if (found := re.search(r"Could not find '([^']+)'", text)) else ("",) * 3
    )
    return [w for w in words if w in text or (option and _key(w) == group and option in w.partition("=")[2])]


def each(fault: Exception) -> list[str]:
    """What to print of an error that may be several."""
    return fault.each if isinstance(fault, Faults) else [message(fault)]


def message(fault: BaseException) -> str:
    """What to print of an error: Hydra's and OmegaConf's own without their inner workings."""
    if isinstance(fault, InstantiationException) and fault.__cause__ is not None:
        return message(fault.__cause__)
    if isinstance(fault, OverrideParseException):
        return _unreadable(fault)
    if isinstance(fault, OSError) and fault.errno in NO_PLACE:
        place = fault.filename or "the disk"
        return f"{place}: {fault.strerror}. Put it right, or name another folder for the results with study.folder="
    if isinstance(fault, MissingConfigException) and fault.options:
        return f"Could not find '{fault.missing_cfg_file}'; there are {', '.join(fault.options)}"
    lines = [str(fault)]
    if isinstance(fault, HydraException) and isinstance(fault.__cause__, OmegaConfBaseException):
        lines.append(str(fault.__cause__))
    unknown = re.search(r"Could not override '([^']+)'", str(fault))
    if unknown is not None:
        lines.append(nearest(unknown[1]))
    by_side = re.search(r"merging override (mix\.\w+)=", str(fault))
    if by_side is not None and isinstance(fault.__cause__, KeyValidationError):
        lines.append(f"Sides are set one by one: {by_side[1]}.512=1, with a + in front where it is not there yet")
    noise: tuple[str, ...] = ("full_key:", "reference_type=", "object_type=", "Config search path", "provider=")
    if "not in struct" not in str(fault.__cause__):  # only there would the + that Hydra proposes be taken
        noise += ("To append to your",)
    kept = [line.rstrip() for line in "\n".join(lines).splitlines() if not line.strip().startswith(noise)]
    return "\n".join(line for i, line in enumerate(kept) if line or (0 < i < len(kept) - 1))


def _unreadable(fault: OverrideParseException) -> str:
    """An override outside of Hydra's grammar, and how to write it."""
    key, given, value = fault.override.partition("=")
    if not given:
        return f"`{fault.override}` is no setting: one is written KEY=VALUE, without spaces around the ="
    why = str(fault).splitlines()[0]  # a lexer's is a mark below the line, which does not outlive the folding
    said = f"`{fault.override}` cannot be read" + ("" if "LexerNoViableAlt" in why else f": {why}")
    if value.startswith(("[", "{")):
        return f"{said}\nInside of [] and {{}} a text with spaces or signs stands in quotes: 'KEY=[\"a >= b\"]'"
    quoted = shlex.quote(f'{key}="{value}"')
    return f"{said}\nIf the value is meant as it stands, quote it for Hydra and for the shell: {quoted}"
