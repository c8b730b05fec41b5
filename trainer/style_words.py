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
from trainer.style_patterns import IN_A_STYLE, PATTERNS

ARTICLES = frozenset({"a", "an", "the"})
GLUE = ARTICLES | {
    *("and", "or", "with", "in", "on", "of", "by", "as", "for", "using", "its", "his", "her", "like"),
    *("is", "are", "was", "were", "has", "have", "it", "this", "that"),
}
JOINTS = frozenset({"with", "in", "on", "by", "as", "using", "and", "or", "of", "through", "via", "like", "from"})
DETERMINERS = ARTICLES | {"his", "her", "their", "its", "one", "two", "three", "several", "some", "many"}
_AROUND = frozenset(
    {"above", "behind", "below", "beneath", "beside", "near", "under", "inside", "outside", "at", "around"}
    | {"across", "against", "along", "beyond", "into", "onto", "over", "past", "toward", "towards"}
)
_IN_FRONT = frozenset({"front of", "top of", "next to"})
_LONGEST_PHRASE = 6  # words
_LONGEST_NAME = 4  # words of "a large square engraving of" that are not marked
_WORD = re.compile(r"\d+(?:[.:]\d+)+(?!\w)|[\w'’&]+(?:-[\w'’]+)*|[^\w\s]")
_OPTIONS = re.compile(r"\s--\w+(?: +[^\s-]\S*)*")  # of Midjourney: "--ar 2:3 --v 6"
_OPENING = re.compile(
    r"(?:the|this) (?:\w+ ){0,2}(?:figure|subject|focus|focal point|character|object|element|motif)"
    r"(?: (?:of|in) (?:the|this) \w+)? (?:is|are) "
    r"|(?:at|in|on) the (?:very )?(?:cent(?:er|re)|middle|heart|foreground|left|right|top|bottom)(?: side)?"
    r"(?: of (?:the|this) \w+)? (?:is|are|there is|there are|we (?:can )?see|stands|sits) ",
    re.IGNORECASE,
)
_MAKER = re.compile(
    r"(?:the|this) (?:artist|painter|photographer|illustrator|engraver|sculptor|draughtsman|author|image|picture) "
    r"(?:has |here )?(?:painted|drawn|depicted|captured|rendered|sketched|photographed|illustrated|engraved|carved"
    r"|paints|draws|depicts|captures|renders|sketches|illustrates|shows|portrays|portrayed|imagines|imagined) ",
    re.IGNORECASE,
)
_WEIGHT = re.compile(r"\(([^():]+):\d[\d.]*\)")  # of WebUI's prompts: "(ink wash:1.2)"

Sentence = list[str]  # words and commas, without its stop


@cache
def words() -> dict[str, tuple[str, ...]]:
    """The lists of `words.toml` and `grammar.toml`."""
    read: dict[str, tuple[str, ...]] = {}
    for file in ("words.toml", "grammar.toml"):
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        read |= {name: tuple(entries) for name, entries in tomllib.loads(text).items()}
    return read


@cache
def phrases(name: str) -> frozenset[tuple[str, ...]]:
    """The phrases of a list as words, hyphens read as spaces."""
    return frozenset(tuple(phrase.lower().replace("-", " ").split()) for phrase in words()[name])


@lru_cache(maxsize=4096)
def listed(word: str, name: str) -> bool:
    """Whether a word stands in a list, up to its ending."""
    return any(form in phrases(name) for form in _forms(tuple(word.lower().split("-"))))


def sentences(text: str) -> list[Sentence]:
    """The words and commas of each sentence; semicolons, colons and line ends read as commas."""
    text = _WEIGHT.sub(r"\1", _OPTIONS.sub("", text.replace("’", "'")))
    text = re.sub(r"\s*[;\n]\s*|:\s+", ", ", text)
    found = [_WORD.findall(sentence) for sentence in re.split(r"(?<!\b[A-Z])[.!?]+(?:\s+|$)", text)]
    return [sentence for sentence in found if any(word != "," for word in sentence)]


def found(sentence: Sequence[str], wanted: Iterable[tuple[str, ...]]) -> list[tuple[int, int]]:
    """Spans (start, end) of words that match a phrase, up to hyphens and the last word's ending."""
    lowered, wanted, spans = [word.lower() for word in sentence], frozenset(wanted), []
    for start in range(len(lowered)):
        parts: tuple[str, ...] = ()
        for end in range(start + 1, min(len(lowered), start + _LONGEST_PHRASE) + 1):
            parts += tuple(lowered[end - 1].split("-"))
            if any(form in wanted for form in _forms(parts)):
                spans.append((start, end))
    return spans


_ENDINGS = (("s", ""), ("es", ""), ("ly", ""), ("ily", "y"), ("ness", ""), ("iness", "y"))


@lru_cache(maxsize=4096)
def _forms(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The words as they are, and without the ending of a plural, an adverb or a noun in -ness."""
    last = parts[-1] if parts else ""
    stems = [last.removesuffix(ending) + new for ending, new in _ENDINGS if last.endswith(ending)]
    return [(*parts[:-1], form) for form in (last, *stems)]


def lead_in(sentence: Sequence[str]) -> int:
    """How many words at the start only say that something is to be seen: "there is", "at the centre is"."""
    line = " ".join(sentence) + " "
    opening = _OPENING.match(line) or _MAKER.match(line)
    spans = found(sentence[:_LONGEST_PHRASE], phrases("lead_in"))
    return max([len(opening[0].split()) if opening else 0, *(end for start, end in spans if start == 0)])


def marked(sentence: Sentence, classes: Iterable[str]) -> list[bool]:
    """Which words belong to the classes, by list or by pattern."""
    gone = _of_classes(sentence, classes)
    if any(mark and listed(word, "eras") for word, mark in zip(sentence, gone, strict=True)):
        gone = [a and b for a, b in zip(gone, _without_eras(sentence, _of_classes(sentence, Strip)), strict=True)]
    return gone


def _of_classes(sentence: Sentence, classes: Iterable[str]) -> list[bool]:
    gone = [False] * len(sentence)
    for name in classes:
        for start, end in _runs(found(sentence, phrases(name))):
            if name == Strip.emotion or not _is_a_thing(sentence, start, end, alone=name != Strip.medium):
                gone[start:end] = [True] * (end - start)
    line = " ".join(sentence)
    for name in classes:
        if name == Strip.medium and (maker := _MAKER.match(f"{line} ")):
            gone[: len(maker[0].split())] = [True] * len(maker[0].split())
        for pattern in PATTERNS[Strip(name)]:
            for match in pattern.finditer(line):
                if pattern is IN_A_STYLE and not _describes(match["gone"]):
                    continue
                start, end = (len(line[:place].split()) for place in match.span("gone"))
                gone[start:end] = [True] * (end - start)
        for here, word in enumerate(sentence):
            gone[here] |= "-" in word and _is_compound(word, name)
    return gone


def _is_compound(word: str, name: str) -> bool:
    """Whether a word with hyphens is made of a class's word and how it is used: "ink-drawn", "collage-like"."""
    parts = [part for part in word.lower().split("-") if part]
    own = [listed(part, name) for part in parts]
    used = [part in ("like", "based") or listed(part, "made") or listed(part, "companions") for part in parts]
    return any(own) and all(map(max, own, used))


def _describes(text: str) -> bool:
    """Whether what stands before a comma is of a style: "in a soft, [loose style]", not "in a room, [retro style]"."""
    told = text.split()[1 : text.split().index(",")] if "," in text.split() else []
    lists = ("companions", "modifiers", *Strip)
    return all(word.lower() in ARTICLES or any(listed(word, name) for name in lists) for word in told)


def _runs(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that overlap or touch as one."""
    runs: list[tuple[int, int]] = []
    for start, end in spans:
        if runs and start <= runs[-1][1]:
            start, end = runs[-1][0], max(end, runs.pop()[1])
        runs.append((start, end))
    return runs


def _is_a_thing(sentence: Sentence, start: int, end: int, *, alone: bool) -> bool:
    """Whether listed words name a thing in the picture: "reading a comic book", "a neon sign above the door".

    `alone`: only where no other word follows, as in "reading a comic" but not in "wearing a comic mask".
    """
    after = sentence[end].lower() if end < len(sentence) else ","
    if after in DETERMINERS and does(sentence[end - 1]):  # "an artist painting a wall"
        return True
    if after in ("from", "out") and does(sentence[end - 1]) and not listed(sentence[end - 1], "carriers"):
        return True  # "a dragon hatching from an egg"
    if end - start > 1 and start and acts(sentence[start]) and sentence[start - 1].lower() not in DETERMINERS | {","}:
        return True  # "men playing cards"
    if alone and after[0].isalnum() and not (after in GLUE | JOINTS | _AROUND or does(after)):
        return False
    begin = start
    while begin and sentence[begin - 1] != "," and start - begin < _LONGEST_NAME:
        begin -= 1
        if sentence[begin].lower() in DETERMINERS:
            break
    if sentence[begin].lower() not in DETERMINERS:
        return start > 0 and acts(sentence[start - 1])
    if begin and sentence[begin - 1] != ",":
        before = sentence[begin - 1].lower()
        if before == "with" and after == "of" and begin > 1:  # "a plate with a painting of"
            return True
        return does(before) or before in _AROUND or " ".join(sentence[begin - 2 : begin]).lower() in _IN_FRONT
    tail = sentence[end : [*sentence, ","].index(",", end)]
    return (
        bool(tail) and (tail[0].lower() in _AROUND or acts(tail[0])) and not found(tail, phrases("shows") - {("of",)})
    )


def acts(word: str) -> bool:
    """Whether a word says what a subject does: "sitting", not "painting" and not "showing"."""
    return does(word) and not listed(word, "nouns_in_ing")


def does(word: str) -> bool:
    """Whether a word before a thing says what is done with it: "painting [a wall]", not "using" or "showing"."""
    return word.lower().endswith("ing") and len(word) > 5 and not listed(word, "made") and not listed(word, "shows")


def _without_eras(sentence: Sentence, gone: list[bool]) -> list[bool]:
    """The marks of all classes, but for eras of things: "a vintage car" keeps its era, "a vintage drawing" does not."""
    for here in reversed(range(len(sentence) - 1)):
        after = sentence[here + 1]
        if not gone[here] or gone[here + 1] or not listed(sentence[here], "eras"):
            continue
        plain = after[0].isalnum() and after.lower() not in GLUE | JOINTS
        gone[here] = not plain or any(listed(after, name) for name in ("companions", "carriers", "made", "shows"))
    return gone


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
            plain = listed(token, "companions") and not _is_verb(clause, here)
            if (plain and (before or after)) or (token.lower() in ("and", "-", "&") and before and after):
                gone[here] = changed = True


def _is_verb(clause: Sentence, here: int) -> bool:
    """Whether a word shows what follows: "this design features [a mushroom]", not "with bold features"."""
    following = clause[here + 1].lower() if here + 1 < len(clause) else ""
    return (clause[here].lower(),) in phrases("shows") and following in DETERMINERS


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
    _mark_name_before_with(clause, gone, begin)
    _mark_name_on_ground(clause, gone, begin)
    for start, end in found(clause, phrases("shows")):
        if gone[start]:
            continue
        head = [n for n in range(begin, start) if not gone[n] and clause[n].lower() not in ARTICLES]
        if start and listed(clause[start - 1], "supports") and any(gone[begin:start]):
            gone[start - 1] = True
        if start == 0 or not gone[start - 1] or any(listed(clause[n], "carriers") for n in head):
            begin = end
            continue
        gone[start:end] = [True] * (end - start)
        if len(head) <= _LONGEST_NAME and not any(clause[n].lower() in JOINTS or acts(clause[n]) for n in head):
            first = 0 if begin == nothing else begin
            gone[first:end] = [True] * (end - first)
        begin = end


def _mark_name_before_with(clause: list[str], gone: list[bool], begin: int) -> None:
    """Mark "a concert [poster]" whole before "with a cat", "a [stained glass] window" before "with a picture of"."""
    end = next((n for n in range(begin + 1, len(clause)) if clause[n].lower() == "with"), 0)
    named = [after for of, after in found(clause[:end], phrases("shows")) if of and listed(clause[of - 1], "carriers")]
    begin = max([begin, *named])
    head = [clause[n] for n in range(begin, end) if not gone[n] and clause[n].lower() not in ARTICLES]
    is_named = end and gone[end - 1] and listed(clause[end - 1], "carriers")
    bears = end and listed(clause[end - 1], "supports") and any(gone[begin:end]) and _is_picture(clause[end + 1 :])
    says_more = len(head) > _LONGEST_NAME or any(word.lower() in JOINTS or acts(word) for word in head)
    if (is_named or bears) and not says_more:
        gone[:end] = [True] * end


def _mark_name_on_ground(clause: list[str], gone: list[bool], begin: int) -> None:
    """Mark "[embroidery] on dark linen of" whole."""
    for on, word in enumerate(clause):
        if word.lower() not in ("on", "in", "over") or not any(gone[begin:on]):
            continue
        ground = [other.lower() for other in clause[on + 1 : on + 1 + _LONGEST_NAME]]
        bare = "of" in ground[1:] and not DETERMINERS.intersection(ground[: ground.index("of")])
        if bare and all(gone[n] or clause[n].lower() in ARTICLES for n in range(begin, on)):
            end = on + ground.index("of") + 2
            gone[:end] = [True] * end


def _is_picture(words: Sentence) -> bool:
    """Whether words are the name of a picture: "a picture of [a ship]"."""
    named = [word for word in words[:3] if word.lower() not in ARTICLES]
    return len(named) > 1 and listed(named[0], "carriers") and (named[1].lower(),) in phrases("shows")


def _mark_tail(clause: list[str], gone: list[bool]) -> None:
    """Mark the words that wait for a marked end: "the drawing is", "a heart with"."""
    for here in reversed(range(len(clause))):
        if gone[here]:
            continue
        word = clause[here].lower()
        if not any(gone[here + 1 :]) or not (word in GLUE or listed(word, "made")):
            return
        gone[here] = True
