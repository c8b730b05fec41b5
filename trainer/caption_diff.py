"""What a strategy did to a caption: word by word, with the class of what went; and in numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from trainer.rewriting import subject_noun
from trainer.settings import Strip
from trainer.style_words import marked

_WORD = re.compile(r"[\w'’]+(?:-[\w'’]+)*|[^\w\s]")


@dataclass(frozen=True)
class Span:
    """Words that stayed, went or came."""

    kind: str  # "same", "gone" or "new"
    text: str
    why: str = ""  # class of what went; empty: of none, it went with its neighbours or is not the subject


def differences(original: str, text: str) -> list[Span]:
    """The way from the original to the text, word by word; capitals do not count."""
    before, after = _WORD.findall(original), _WORD.findall(text)
    classes = word_classes(before)
    spans: list[Span] = []
    matcher = SequenceMatcher(None, [word.lower() for word in before], [word.lower() for word in after], autojunk=False)
    for kind, start, end, first, last in matcher.get_opcodes():
        if kind == "equal":
            spans.append(Span("same", _spaced(after[first:last])))
            continue
        spans += _gone(before[start:end], classes[start:end])
        if last > first:
            spans.append(Span("new", _spaced(after[first:last])))
    return spans


def word_classes(words: Sequence[str]) -> list[str]:
    """The class of each word by list and pattern; empty where it has none."""
    sentence = ["," if word in (".", ";", ":") else word for word in words]
    classes = [""] * len(sentence)
    for name in reversed(Strip):
        classes = [name.value if hit else other for hit, other in zip(marked(sentence, [name]), classes, strict=True)]
    return classes


def style_words(text: str) -> int:
    """How many of a text's words belong to a class, by the lists and patterns that the rules use themselves."""
    words = _WORD.findall(text)
    return sum(bool(name) and word[0].isalnum() for word, name in zip(words, word_classes(words), strict=True))


def subject_kept(original: str, text: str) -> float | None:
    """Share of the words of the original's subject that a text has, in [0, 1]; None if no subject is found."""
    wanted = {word.lower() for word in _WORD.findall(subject_noun(original)) if word[0].isalnum()}
    there = {word.lower() for word in _WORD.findall(text)}
    return len(wanted & there) / len(wanted) if wanted else None


def _gone(words: Sequence[str], classes: Sequence[str]) -> list[Span]:
    """Runs of words that went for the same reason."""
    runs: list[tuple[str, list[str]]] = []
    for word, name in zip(words, classes, strict=True):
        if runs and (runs[-1][0] == name or not word[0].isalnum()):
            runs[-1][1].append(word)
        else:
            runs.append((name, [word]))
    said = [(name, run) for name, run in runs if any(word[0].isalnum() for word in run)]
    return [Span("gone", _spaced(run), name) for name, run in said]


def _spaced(words: Sequence[str]) -> str:
    return re.sub(r"\s+([,.;:!?)])", r"\1", " ".join(words))
