"""The caption rules measured on captions they were not made for: `style_captions.toml`, `unseen_captions.toml` and the
sandbox's own."""

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from trainer.rewriting import keep_subject, strip_words
from trainer.settings import Strip

ALL = list(Strip)
SETS = {"tuning": 40, "held_out": 60, "fresh": 30, "second_fresh": 30} | {f"unseen_{name}": 40 for name in "abcdefgh"}
SETS |= {"unseen_i": 100, "unseen_j": 100}
SANDBOX = Path(__file__).parents[2] / "sandbox" / "data"
SMALL_WORDS = frozenset(
    {"a", "an", "the", "of", "on", "in", "at", "by", "to", "from", "with", "and", "is", "her", "its", "his"}
)
# What is left when a phrase was cut in the wrong place: "a of a heart", "with and", ", ,", a hanging "in the".
LEFTOVERS = re.compile(
    r"\b(an?|the) (of|in|on|at|by|with|and|is|an?|the|that|which)\b|\b(of|with|by|in|at) (of|by|with|and|is|are)\b"
    r"|,\s*,|^\W|^(of|with|by|and|in the)\b|\W$(?<!\))"
    r"|\b(a|an|the|of|in|on|at|by|with|and|or|is|are|from|to|style|its)$"
    r"|\ba [aeio]\w+|\ban [^aeiouh\W]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Measured:
    """Shares over a set of captions."""

    style_left: float  # of the words that must go
    subject_lost: float  # of the words a person kept
    tokens: float  # of the original's words

    def __str__(self) -> str:
        return (
            f"style words left {self.style_left:.1%} (at most 2 %), subject words lost {self.subject_lost:.1%}"
            f" (at most 5 %), words {self.tokens:.0%} of the original's (at most 60 %)"
        )


def read(name: str) -> list[dict[str, str]]:
    return list(captions()[name])


@cache
def captions() -> dict[str, list[dict[str, str]]]:
    files = ("style_captions.toml", "unseen_captions.toml")
    tables = [tomllib.loads((Path(__file__).parent / file).read_text(encoding="utf-8")) for file in files]
    return tables[0] | tables[1]


def measured(rows: list[dict[str, str]]) -> Measured:
    """What `keep_subject` does to the captions, in shares of all their words."""
    gone = left = wanted = lost = before = after = 0
    for row in rows:
        result = words(keep_subject(row["text"], ALL))
        style = set(words(row["gone"])) - SMALL_WORDS
        subject = set(words(row["expected"])) - SMALL_WORDS
        gone, left = gone + len(style), left + len(style & set(result))
        wanted, lost = wanted + len(subject), lost + len(subject - set(result))
        before, after = before + len(words(row["text"])), after + len(result)
    return Measured(left / gone, lost / wanted, after / before)


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower().replace("_", " "))


@pytest.mark.parametrize(("name", "at_least"), SETS.items())
def test_style_goes_the_subject_stays_and_little_is_left(
    name: str, at_least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read(name)
    assert len(rows) >= at_least
    found = measured(rows)
    with capsys.disabled():
        print(f"\nsubject_only on {len(rows)} captions ({name}): {found}")
    assert found.style_left <= 0.02
    assert found.subject_lost <= 0.05
    assert found.tokens <= 0.60


def test_the_sandboxs_captions_meet_the_same_bars() -> None:
    rows = []
    for file in sorted(SANDBOX.glob("*/*.txt")):
        text = file.read_text(encoding="utf-8").strip()
        medium, _, said = text.partition(" of ")
        subject, *ways = said.split(", ")
        gone = set(words(f"{medium} {' '.join(ways)}")) - set(words(subject))
        noun = re.sub(r"_\d+$", "", file.stem)
        rows.append({"text": text, "expected": noun if noun in words(subject) else "", "gone": " ".join(gone)})
    found = measured(rows)
    assert len(rows) > 60
    assert (found.style_left, found.subject_lost) == (0.0, 0.0)
    assert found.tokens <= 0.60


@pytest.mark.parametrize("rule", [keep_subject, strip_words], ids=["subject_only", "edited"])
@pytest.mark.parametrize("name", SETS)
def test_what_is_left_reads_as_english_and_stays_when_stripped_again(name: str, rule: Callable[..., str]) -> None:
    for row in read(name):
        once = rule(row["text"], ALL)
        broken = LEFTOVERS.search(once)
        assert not broken or (once.startswith("In the") and once in row["text"]), f"{row['text']!r} -> {once!r}"
        for classes in (ALL, [Strip.style], [Strip.medium, Strip.technique]):
            once = rule(row["text"], classes)
            assert rule(once, classes) == once


def test_captions_without_style_keep_their_words() -> None:
    plain = tomllib.loads((Path(__file__).parent / "unseen_captions.toml").read_text(encoding="utf-8"))["plain"]
    assert len(plain) >= 60
    for rule in (keep_subject, strip_words):
        kept = lost = 0
        for text in plain:
            said = set(words(text)) - SMALL_WORDS
            kept, lost = kept + len(said), lost + len(said - set(words(rule(text, ALL))))
            assert not LEFTOVERS.search(rule(text, ALL))
        assert lost / kept <= 0.05


def test_the_measure_sees_style_left_subject_lost_and_leftovers() -> None:
    row = {"text": "an engraving of a heart", "expected": "an engraving of a lung", "gone": "heart"}
    found = measured([row])
    assert (found.style_left, found.subject_lost) == (1.0, 1.0)
    for broken in ("a of a heart", "a heart with", "a heart, , red", "an heart in the", "a eye", "of a heart,"):
        assert LEFTOVERS.search(broken), broken


def test_the_articles_own_example() -> None:
    assert keep_subject("An anatomical engraving style drawing of a human heart", ALL) == "a human heart"
