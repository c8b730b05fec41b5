"""Finds the words of style, medium, technique and emotion in a caption.

A caption is read as sentences of words and commas. Three things mark a word: the lists; patterns for what no list can
hold ("in the style of Dürer", "by Claude Monet", "bold black lines"); and hanging on a marked word ("fine", "drawn
in", "mood"). No tagger or parser is used: those worth having bring weights that would have to be downloaded.
"""

import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path

from trainer.settings import Strip

ARTICLES = frozenset({"a", "an", "the"})
GLUE = ARTICLES | {
    *("and", "or", "with", "in", "on", "of", "by", "as", "for", "using", "its", "his", "her", "like"),
    *("is", "are", "was", "were", "has", "have", "it", "this", "that"),
}
JOINTS = frozenset({"with", "in", "on", "by", "as", "using", "and", "or", "of", "through", "via", "like", "from"})
_LONGEST_PHRASE = 6  # words
_LONGEST_NAME = 4  # words of "a large square engraving of" that are not marked
_WORD = re.compile(r"\d+(?:[.:]\d+)+(?!\w)|[\w'’&]+(?:-[\w'’]+)*|[^\w\s]")
_OPTIONS = re.compile(r"\s--\w+(?: +[^\s-]\S*)*")  # of Midjourney: "--ar 2:3 --v 6"
_WEIGHT = re.compile(r"\(([^():]+):\d[\d.]*\)")  # of WebUI's prompts: "(ink wash:1.2)"

Sentence = list[str]  # words and commas, without its stop


@cache
def words() -> dict[str, tuple[str, ...]]:
    """The lists of `words.toml`."""
    text = (Path(__file__).parent / "words.toml").read_text(encoding="utf-8")
    return {name: tuple(entries) for name, entries in tomllib.loads(text).items()}


@cache
def phrases(name: str) -> frozenset[tuple[str, ...]]:
    """The phrases of a list as words, hyphens read as spaces."""
    return frozenset(tuple(phrase.lower().replace("-", " ").split()) for phrase in words()[name])


@lru_cache(maxsize=4096)
def listed(word: str, name: str) -> bool:
    """Whether a word stands in a list, up to plural."""
    return any(form in phrases(name) for form in _singulars(tuple(word.lower().split("-"))))


def sentences(text: str) -> list[Sentence]:
    """The words and commas of each sentence; semicolons, colons and line ends read as commas."""
    text = _WEIGHT.sub(r"\1", _OPTIONS.sub("", text.replace("’", "'")))
    text = re.sub(r"\s*[;\n]\s*|:\s+", ", ", text)
    found = [_WORD.findall(sentence) for sentence in re.split(r"(?<!\b[A-Z])[.!?]+(?:\s+|$)", text)]
    return [sentence for sentence in found if any(word != "," for word in sentence)]


def found(sentence: Sequence[str], wanted: Iterable[tuple[str, ...]]) -> list[tuple[int, int]]:
    """Spans (start, end) of words that match a phrase, up to plural and hyphens."""
    lowered, wanted, spans = [word.lower() for word in sentence], frozenset(wanted), []
    for start in range(len(lowered)):
        parts: tuple[str, ...] = ()
        for end in range(start + 1, min(len(lowered), start + _LONGEST_PHRASE) + 1):
            parts += tuple(lowered[end - 1].split("-"))
            if any(form in wanted for form in _singulars(parts)):
                spans.append((start, end))
    return spans


@lru_cache(maxsize=4096)
def _singulars(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    last = parts[-1] if parts else ""
    forms = [last, *([last[:-1]] if last.endswith("s") else []), *([last[:-2]] if last.endswith("es") else [])]
    return [(*parts[:-1], form) for form in forms]


def lead_in(sentence: Sequence[str]) -> int:
    """How many words at the start only say that something is to be seen: "there is", "the image shows"."""
    return max((end for start, end in found(sentence[:_LONGEST_PHRASE], phrases("lead_in")) if start == 0), default=0)


def marked(sentence: Sentence, classes: Iterable[str]) -> list[bool]:
    """Which words belong to the classes, by list or by pattern."""
    gone = [False] * len(sentence)
    for name in classes:
        for start, end in found(sentence, phrases(name)):
            gone[start:end] = [True] * (end - start)
    line = " ".join(sentence)
    for name in classes:
        for pattern in _PATTERNS[Strip(name)]:
            for match in pattern.finditer(line):
                start, end = (len(line[:place].split()) for place in match.span("gone"))
                gone[start:end] = [True] * (end - start)
    return gone


# What no list can hold.
_PARTS = {
    "BEGIN": r"(?:^|(?<=, ))",  # of a clause
    "END": r"(?= ,|$)",
    "REST": r"[^,]*?(?= ,|$)",  # of a clause
    "PHRASE": r"(?:(?! (?:sitting|standing|holding|wearing|walking|riding|running|looking|playing|dancing|reading"
    r"|lying|flying|carrying|eating|sleeping|with)\b)[^,])*",  # up to what the subject does
    "ART": r"(?:(?:an?|the|its) )?",
    "WORD": r"[\w'&.-]+",
    "NAME": r"(?:[A-Z][\w'.-]*|van|von|de|der|da|di|le|la)",
    "STYLES": r"(?:styles?|manner|aesthetics?|artstyle|tradition|fashion)",
    "BOOKS": r"(?:atlas|textbook|book|manuscript|encyclopa?edia|comics?|magazine|journal|treatise|herbal)",
    "MOODS": r"(?:mood|atmosphere|feel|feeling|vibes?|ambience|emotion|sense)",
    "LINES": r"(?:lines?|lineart|linework|outlines?|contours?|strokes?|brushwork|shading|palette|tones?|textures?"
    r"|lighting|colou?rs|focus|contrast|hatching|stippling|grain|dots|washes|gradients?|shadows|typography)",
}


def _pattern(text: str, flags: int = re.IGNORECASE) -> re.Pattern[str]:
    """A pattern on the words of a sentence joined by spaces, commas among them; its group `gone` is what it marks."""
    for name, meaning in _PARTS.items():
        text = text.replace(f"<{name}>", meaning)
    return re.compile(text, flags)


_PATTERNS: dict[Strip, tuple[re.Pattern[str], ...]] = {
    Strip.style: (
        _pattern(
            r"(?P<gone>\b(?:in (?:the )?(?:style|manner|fashion|tradition|spirit) of|inspired by|reminiscent of"
            r"|typical of|recalling|reminding of) <PHRASE>)"
        ),
        _pattern(r"(?P<gone>\bstyle of <NAME>(?: <NAME>)*)(?= |$)", 0),
        _pattern(r"(?P<gone>\bin <ART>(?:(?!(?:in|on|at|with) )<WORD>(?: ,)? ){1,6}?<STYLES>)(?= |$)"),
        _pattern(r"<BEGIN>(?P<gone><ART>(?:<WORD> ){1,4}(?:<STYLES>|inspired))<END>"),
        _pattern(r"(?P<gone>\b[\w']+-(?:style|styled|inspired|esque)\b)"),
        _pattern(r"(?P<gone>\b(?:\d{4}s|\d{1,2}(?:st|nd|rd|th)[- ]century|\d+-?bit|(?:circa|dated) \d{4})\b)"),
        _pattern(r"(?P<gone>\b[Bb]y <NAME>(?: (?:and |& )?<NAME>)*)(?= |$)", 0),
        _pattern(r"(?<=, )(?P<gone><NAME>(?: <NAME>){1,2})<END>", 0),
        _pattern(r"(?P<gone>\bfrom <ART>(?:<WORD> ){0,4}<BOOKS>)<END>"),
        _pattern(r"<BEGIN>(?P<gone>(?:score[_ ]\d+(?:[_ ]up)?|(?:source|rating)[_ ]\w+|year \d{4}))<END>"),
    ),
    Strip.medium: (
        _pattern(r"<BEGIN>(?P<gone>(?:plate|fig|figure|pl)(?: \.)? [ivxlcdm\d]+)<END>"),
        _pattern(r"<BEGIN>(?P<gone>(?:(?:first|second|third|final|only) state(?: of \w+)?|signed(?: <REST>)?))<END>"),
        _pattern(
            r"\b(?:draw\w*|paint\w*|made|sketch\w*|art|illustration|picture) (?P<gone>by <ART>(?:<WORD> )?"
            r"(?:child|children|artists?|students?|painter|engraver))(?= |$)"
        ),
        _pattern(r"<BEGIN>(?P<gone>(?:f / [\d.]+|\d+ ?mm(?: lens)?|iso \d+))<END>"),
    ),
    Strip.technique: (
        _pattern(
            r"<BEGIN>(?P<gone>(?:with |using |in )?(?:(?!(?:an?|the|of|and|with|in) )<WORD> ){0,4}<LINES>"
            r"(?: (?:and|on) <WORD>)?)<END>"
        ),
        _pattern(
            r"(?P<gone>\b(?:with|using|in|through|and) <ART>(?:(?!(?:an?|the|of|on|at|with|in|and) )<WORD> ){0,4}"
            r"<LINES>)(?= |$)"
        ),
        _pattern(r"<BEGIN>(?P<gone>(?:the |its |overall )+(?:<WORD> )?<LINES> (?:of [^,]*)?(?:is|are) <REST>)"),
    ),
    Strip.emotion: (
        _pattern(r"<BEGIN>(?P<gone>(?:with |in )?<ART>(?:<WORD> ){1,3}<MOODS>)<END>"),
        _pattern(r"<BEGIN>(?P<gone>(?:and )?(?:the |its |overall )+<MOODS> (?:of [^,]*)?(?:is|feels) <REST>)"),
        _pattern(
            r"(?P<gone>\b(?:(?:that|which|and) )?(?:giv|lend|add|creat|evok|convey)\w* (?:an? <WORD> , )?[^,]*"
            r"\b<MOODS>\b <REST>)"
        ),
    ),
}


def mark_hanging(clause: list[str], gone: list[bool]) -> None:
    """Mark what only spoke of marked words: companions beside them, the joint before them, and "engraving of"."""
    _mark_companions(clause, gone)
    _mark_joints(clause, gone)
    _mark_name(clause, gone)
    _mark_tail(clause, gone)


def _mark_companions(clause: list[str], gone: list[bool]) -> None:
    """Companions next to a marked word, and next to a companion that is, go as well; so does "and" between marked."""
    changed = True
    while changed:
        changed = False
        for here, token in enumerate(clause):
            if gone[here]:
                continue
            before, after = here > 0 and gone[here - 1], here + 1 < len(gone) and gone[here + 1]
            plain = listed(token, "companions")
            if (plain and (before or after)) or (token.lower() in ("and", "-", "&") and before and after):
                gone[here] = changed = True


def _mark_joints(clause: list[str], gone: list[bool]) -> None:
    """Mark "with", "drawn in", "by the" before words that all go, to the next joint or the end."""
    stops = JOINTS | {phrase[0] for phrase in phrases("shows")}
    for here in reversed(range(len(clause))):
        if clause[here].lower() not in JOINTS or gone[here] or clause[here].lower() == "of":
            continue
        ends = [n for n in range(here + 1, len(clause)) if clause[n].lower() in stops and not gone[n]]
        end = min(ends, default=len(clause))
        objects = [n for n in range(here + 1, end) if clause[n].lower() not in ARTICLES]
        if objects and all(gone[n] for n in objects):
            gone[here:end] = [True] * (end - here)
    for here in reversed(range(len(clause) - 1)):  # "drawn" before "in ink", "is" before "drawn"
        if gone[here + 1] and not gone[here] and listed(clause[here], "made"):
            gone[here] = True


def _mark_name(clause: list[str], gone: list[bool]) -> None:
    """Mark "a large engraving of" whole once "engraving" is marked; "a vintage drawing of" stays "a drawing of"."""
    nothing = begin = lead_in(clause)
    for start, end in found(clause, phrases("shows")):
        if gone[start]:
            continue
        head = [n for n in range(begin, start) if not gone[n] and clause[n].lower() not in ARTICLES]
        if start == 0 or not gone[start - 1] or any(listed(clause[n], "carriers") for n in head):
            begin = end
            continue
        gone[start:end] = [True] * (end - start)
        if len(head) <= _LONGEST_NAME and not any(clause[n].lower() in JOINTS or _acts(clause[n]) for n in head):
            first = 0 if begin == nothing else begin
            gone[first:end] = [True] * (end - first)


def _acts(word: str) -> bool:
    return word.lower().endswith("ing") and not listed(word, "nouns_in_ing")


def _mark_tail(clause: list[str], gone: list[bool]) -> None:
    """Mark the words that wait for a marked end: "the drawing is", "a heart with"."""
    for here in reversed(range(len(clause))):
        if gone[here]:
            continue
        word = clause[here].lower()
        if not any(gone[here + 1 :]) or not (word in GLUE or listed(word, "made")):
            return
        gone[here] = True
