"""Rules that take style words out of a caption, or all but the subject.

A caption is split into clauses at commas and full stops. In each, the phrases of `words.toml` are marked, then what
only spoke about them ("fine", "mood", "drawn in", "in the style of …"); a clause of nothing else disappears. The
rules are plain on purpose: a person reads the result in the caption sheet and corrects it there.
"""

import re
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from trainer.settings import Strip

_ARTICLES = frozenset({"a", "an", "the"})
_GLUE = frozenset(
    {
        *_ARTICLES,
        "and",
        "or",
        "with",
        "in",
        "on",
        "of",
        "by",
        "as",
        "for",
        "using",
        "its",
        "his",
        "her",
        "like",
        "is",
        "has",
    }
)
_JOINTS = frozenset({"with", "in", "on", "by", "as", "using", "and", "or", "of", "through", "via", "like"})
_PLACED_BY = frozenset(
    {"in", "at", "on", "along", "near", "by", "over", "under", "from", "to", "across", "toward", "towards"}
)
_LONGEST_INTRODUCTION = 6  # words before "drawing of" that still belong to the picture's name
_TOKEN = re.compile(r"[\w'’]+(?:-[\w'’]+)*|[^\w\s]")


@cache
def words() -> dict[str, tuple[str, ...]]:
    """The lists of `words.toml`."""
    text = (Path(__file__).parent / "words.toml").read_text(encoding="utf-8")
    return {name: tuple(entries) for name, entries in tomllib.loads(text).items()}


def strip_words(text: str, strip: Iterable[Strip]) -> str:
    """The caption without words of the given classes, its other words and their order kept.

    "An anatomical engraving style drawing of a human heart" -> "A drawing of a human heart".
    """
    classes = tuple(sorted(set(strip)))
    if not classes:
        return text.strip()
    clauses = [_strip_clause(clause, classes) for clause in _clauses(text)]
    return _tidy(text, [clause for clause in clauses if clause])


def keep_subject(text: str, strip: Iterable[Strip]) -> str:
    """The subject and nothing else: no positions, background or details, and no words of the given classes.

    "an engraving of a large red heart at the left on a grey background, fine hatched lines" -> "a large red heart".
    Clauses with words of a class that is not to be stripped stay.
    """
    classes = tuple(sorted(set(strip)))
    kept = tuple(sorted(set(Strip) - set(classes)))
    clauses = [stripped for clause in _clauses(text) if (stripped := _strip_clause(clause, classes))]
    subjects: list[list[str]] = []
    others: list[list[str]] = []
    for number, clause in enumerate(clauses):
        if number <= _last_of_list(clauses):
            subject = _subject(clause, drop_carrier=Strip.medium in classes)
            subjects += [subject] if subject else []
        elif any(_marked(clause, kept)):
            others.append(clause)
    if not subjects:  # a caption of positions only: better a word too many than none
        subjects = clauses[:1]
    return _tidy(text, subjects + others)


def subject_noun(text: str) -> str:
    """What a caption is about, without article, size, colour and details: "a large red human heart …" -> "human heart".

    Empty for an empty caption. Of a list of subjects, the first.
    """
    tokens = _tokens(keep_subject(text, list(Strip)).split(",")[0].lower())
    tokens = _without(tokens, [*words()["modifiers"], *_ARTICLES])
    for number, token in enumerate(tokens):
        if number and (_participle(token) or token in _PLACED_BY or token in ("and", "or")):
            return " ".join(tokens[:number])
    return " ".join(tokens)


def stripped_tags(tags: Iterable[str], strip: Iterable[Strip]) -> list[str]:
    """The tags that say something besides words of the given classes, each whole."""
    classes = tuple(sorted(set(strip)))
    return [tag for tag in tags if not classes or _strip_clause(_tokens(tag.replace("_", " ")), classes)]


def _clauses(text: str) -> list[list[str]]:
    """The words of each clause; the last of a sentence keeps its stop."""
    text = re.sub(r"([.!?])+(\s|$)", r" .,", text)
    clauses = [_tokens(clause) for clause in re.split(r"[,;:\n]+(?:\s|$|(?=\w))", text)]
    return [clause for clause in clauses if clause and clause != ["."]]


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text)


def _strip_clause(clause: list[str], classes: tuple[str, ...]) -> list[str]:
    """The clause without marked words and what hangs on them; empty when nothing else is left."""
    gone = _marked(clause, classes)
    _mark_named_ways(clause, classes, gone)
    if not any(gone):
        return clause
    _mark_companions(clause, gone)
    _mark_joints(clause, gone)
    _mark_name(clause, gone)
    rest = [token for token, dropped in zip(clause, gone, strict=True) if not dropped]
    empty = _GLUE.union(*_phrases("companions"), *_phrases("made"))
    if all(token.lower() in empty or not token[0].isalnum() for token in rest):
        return []
    return _with_articles(rest)


def _marked(clause: list[str], classes: tuple[str, ...]) -> list[bool]:
    """Which words of the clause belong to a phrase of the classes, longest phrases first."""
    lowered = [token.lower() for token in clause]
    gone = [False] * len(clause)
    phrases = [phrase for name in classes for phrase in _phrases(name)]
    for start, end in _found(lowered, phrases):
        gone[start:end] = [True] * (end - start)
    return gone


@cache
def _phrases(name: str) -> tuple[tuple[str, ...], ...]:
    """The phrases of a list as words, hyphens read as spaces."""
    return tuple(tuple(phrase.lower().replace("-", " ").split()) for phrase in words()[name])


def _found(lowered: list[str], phrases: Iterable[tuple[str, ...]]) -> list[tuple[int, int]]:
    """Spans (start, end) of tokens that match a phrase, up to plural and hyphens."""
    wanted = set(phrases)
    spans = []
    for start in range(len(lowered)):
        parts: tuple[str, ...] = ()
        for end in range(start + 1, min(len(lowered), start + 5) + 1):
            parts += tuple(lowered[end - 1].split("-"))
            if any(form in wanted for form in _singulars(parts)):
                spans.append((start, end))
    return spans


def _singulars(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    last = parts[-1] if parts else ""
    forms = [last, *([last[:-1]] if last.endswith("s") else []), *([last[:-2]] if last.endswith("es") else [])]
    return [(*parts[:-1], form) for form in forms]


# Ways to name what no list can hold: "in the style of Dürer", "school blackboard style", "stormy mood".
_NAMED_WAYS = {
    Strip.style: (
        r"\b(in the (style|manner) of|inspired by|reminiscent of|style of)\b.*",
        r"\bin (an? |the )?(\S+ ){1,4}(style|manner)$",
        r"^(an? |the )?(\S+ ){1,3}(style|aesthetic)$",
    ),
    Strip.emotion: (r"^(with |in )?(an? |the )?(\S+ ){1,3}(mood|atmosphere|feel|feeling|vibe|ambience)$",),
}


def _mark_named_ways(clause: list[str], classes: tuple[str, ...], gone: list[bool]) -> None:
    lowered = " ".join(token.lower() for token in clause if token != ".")
    for name in classes:
        for pattern in _NAMED_WAYS.get(Strip(name), ()):
            if found := re.search(pattern, lowered):
                start, end = (len(lowered[:place].split()) for place in found.span())
                gone[start:end] = [True] * (end - start)


def _mark_companions(clause: list[str], gone: list[bool]) -> None:
    """Companions next to a marked word, and next to a companion that is, go as well; so does "and" between marked."""
    companions = {phrase[0] for phrase in _phrases("companions")}
    changed = True
    while changed:
        changed = False
        for here, token in enumerate(clause):
            if gone[here]:
                continue
            before, after = here > 0 and gone[here - 1], here + 1 < len(gone) and gone[here + 1]
            plain = any(form[0] in companions for form in _singulars((token.lower(),)))
            if (plain and (before or after)) or (token.lower() in ("and", "-", "&") and before and after):
                gone[here] = changed = True


def _mark_joints(clause: list[str], gone: list[bool]) -> None:
    """ "with", "drawn in", "by the" before words that all go, to the next joint or the end, go as well."""
    made = {phrase[0] for phrase in _phrases("made")}
    stops = {".", *_JOINTS, *(phrase[0] for phrase in _phrases("shows"))}
    for here in reversed(range(len(clause))):
        if clause[here].lower() not in _JOINTS or gone[here] or clause[here].lower() == "of":
            continue
        ends = [n for n in range(here + 1, len(clause)) if clause[n].lower() in stops and not gone[n]]
        end = min(ends, default=len(clause))
        objects = [n for n in range(here + 1, end) if clause[n].lower() not in _ARTICLES]
        if objects and all(gone[n] for n in objects):
            gone[here:end] = [True] * (end - here)
            if here and clause[here - 1].lower() in made:
                gone[here - 1] = True


def _mark_name(clause: list[str], gone: list[bool]) -> None:
    """Drop "an engraving of" whole when only articles are left of it; "a vintage drawing of" stays "a drawing of"."""
    lowered = [token.lower() for token in clause]
    for start, end in _found(lowered, _phrases("shows")):
        head = range(start)
        if any(gone[n] for n in head) and all(gone[n] or lowered[n] in _ARTICLES for n in head):
            gone[:end] = [True] * end
            return


def _with_articles(tokens: list[str]) -> list[str]:
    """Drop articles left without a noun and agree "a" and "an" with the word that now follows."""
    fixed: list[str] = []
    for here, token in enumerate(tokens):
        following = tokens[here + 1].lower() if here + 1 < len(tokens) else ""
        if token.lower() in _ARTICLES and (not following or following in _GLUE):
            continue
        if token.lower() in ("a", "an"):
            token = token[0] + ("n" if following[0] in "aeiou" else "")
        fixed.append(token)
    return fixed


def _subject(clause: list[str], *, drop_carrier: bool) -> list[str]:
    """The clause from its subject to where places or details begin."""
    lowered = [token.lower() for token in clause]
    if drop_carrier:
        start = _after_name(lowered)
        clause, lowered = clause[start:], lowered[start:]
    ends = [start for start, _ in _found(lowered, (*_phrases("details"), (".",)))] + _places(lowered)
    return clause[: min(ends, default=len(clause))]


def _after_name(lowered: list[str]) -> int:
    """Where the subject begins behind "a drawing of"; 0 if the clause does not name the picture."""
    carriers = {phrase[0] for phrase in _phrases("carriers")}
    for start, end in _found(lowered, _phrases("shows")):
        named = any(form[0] in carriers for form in _singulars((lowered[start - 1],))) if start else False
        if named and start <= _LONGEST_INTRODUCTION:
            return end
    return 0


def _places(lowered: list[str]) -> list[int]:
    """Where phrases like "at the left" and "on a grey background" begin."""
    places = {phrase[0] for phrase in _phrases("places")}
    starts = []
    for here, token in enumerate(lowered):
        if token in _PLACED_BY:
            stop = next((n for n in range(here + 1, len(lowered)) if lowered[n] in _PLACED_BY), len(lowered))
            if any(form[0] in places for n in range(here + 1, stop) for form in _singulars((lowered[n],))):
                starts.append(here)
    if lowered and all(token in places or token in _ARTICLES | _PLACED_BY for token in lowered):
        starts.append(0)
    return starts


def _last_of_list(clauses: list[list[str]]) -> int:
    """The number of the clause that ends an enumeration of subjects ("a hand, a heart, and an eye"), else 0."""
    ends = [number for number, clause in enumerate(clauses) if number and clause[0].lower() == "and"]
    return ends[0] if ends else 0


def _without(tokens: list[str], phrases: Iterable[str]) -> list[str]:
    dropped: set[int] = set()
    for start, end in _found(tokens, [tuple(phrase.replace("-", " ").split()) for phrase in phrases]):
        dropped |= set(range(start, end))
    return [token for number, token in enumerate(tokens) if number not in dropped]


def _participle(word: str) -> bool:
    return word.endswith("ing") and len(word) > 5 and word not in words()["nouns_in_ing"]


def _tidy(original: str, clauses: list[list[str]]) -> str:
    """Join clauses, with a capital where the original had one."""
    text = ", ".join(" ".join(clause) for clause in clauses)
    text = re.sub(r"\s+([^\w\s(\[\"'&])", r"\1", text).replace(".,", ".").removesuffix(".")
    if original.strip()[:1].isupper() and text:
        text = text[0].upper() + text[1:]
    return text
