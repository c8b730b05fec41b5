"""Rules that take style words out of a caption, or all but the subject.

What belongs to style, medium, technique and emotion is found by `trainer.style_words`. Here it is taken out so that
English is left; `trainer.subject` finds the subject in it. The rules are plain on purpose: a person reads the result
in the caption sheet and corrects it there.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from trainer.settings import Strip
from trainer.style_words import (
    ARTICLES,
    GLUE,
    JOINTS,
    Sentence,
    found,
    lead_in,
    listed,
    mark_hanging,
    marked,
    phrases,
    sentences,
)
from trainer.subject import NAMES_NOTHING, PLACED_BY, SHOWS, find_subject, is_participle, says_nothing, with_articles

_TAG_WORDS = 3  # a list of parts no longer than this is a list of tags
_TAGS_AT_LEAST = 2
_SAYS = frozenset({"is", "are", "was", "were", "has", "have", "appears", "appear", "looks", "feels"})
_GOES_ON = (GLUE | {"there", "to"}) - ARTICLES
_NAMES_A_PICTURE = frozenset({"art", "artwork", "illustration", "image", "picture"})
_IN_NO_TAG = ARTICLES | {"of", "is", "are"}


def strip_words(text: str, strip: Iterable[Strip]) -> str:
    """The caption without words of the given classes, its other words and their order kept; twice changes nothing.

    "An anatomical engraving style drawing of a human heart" -> "A drawing of a human heart". Of a list of tags, the
    tags that say something else.
    """
    classes = _sorted(strip)
    if not classes:
        return text.strip()
    return _settled(text, lambda text: _strip_once(text, classes))


def _strip_once(text: str, classes: tuple[Strip, ...]) -> str:
    if is_tag_list(text):
        return ", ".join(stripped_tags(text.split(","), classes))
    read = [_stripped(sentence, classes, later=number > 0) for number, sentence in enumerate(sentences(text))]
    kept = [clauses for clauses in read if clauses]
    return ". ".join(_capital(_joined(clauses), number > 0) for number, clauses in enumerate(kept))


def _settled(text: str, rule: Callable[[str], str]) -> str:
    """The text when the rule changes no more: what is cut out may bring words together that go as well."""
    seen = [text]
    while (text := rule(text)) not in seen:
        seen.append(text)
    return text


def keep_subject(text: str, strip: Iterable[Strip]) -> str:
    """The subject and nothing else: no positions or background, no second sentence, no words of the given classes.
    Twice changes nothing.

    "an engraving of a large red heart at the left on a grey background, fine hatched lines" -> "a large red heart".
    Clauses with words of a class that is not to be stripped stay. Of a list of tags, those of the subject.
    """
    classes = _sorted(strip)
    return _settled(text, lambda text: _keep_once(text, classes))


def _keep_once(text: str, classes: tuple[Strip, ...]) -> str:
    text = _tags_before_prose(text)
    if is_tag_list(text):
        return ", ".join(
            tag
            for tag in stripped_tags(text.split(","), classes)
            if not _layout(tag, drop_carrier=Strip.medium in classes)
        )
    others = _sorted(set(Strip) - set(classes))
    subject: list[Sentence] = []
    rest: list[Sentence] = []
    for sentence in sentences(text):
        clauses = _stripped(sentence, classes)
        if not subject:
            subject, clauses = find_subject(clauses, _split(sentence), drop_carrier=Strip.medium in classes)
            if subject and subject[0][0].lower() in NAMES_NOTHING:  # "[a poster] for an agency": say who in the next
                clauses, subject = subject + clauses, []
        rest += clauses
    if not subject:  # a caption of positions only: better a word too many than none
        subject, rest = rest[:1], rest[1:]
    return _joined(subject + [clause for clause in rest if any(marked(clause, others))])


@lru_cache(maxsize=4096)  # asked of every training picture in every trial
def subject_noun(text: str) -> str:
    """What a caption is about, without article, size, colour and details: "a large red human heart …" -> "human heart".

    Empty for an empty caption. Of a list of subjects, the first.
    """
    kept = keep_subject(text, list(Strip)).split(",")[0].lower()
    tokens = [token for sentence in sentences(kept) for token in sentence]
    tokens = _without(tokens, phrases("modifiers") | {(article,) for article in ARTICLES})
    ends = PLACED_BY | {"and", "or", "with", "without", "is", "are"}
    for number, token in enumerate(tokens):
        if number and (is_participle(token) or token in ends):
            return " ".join(tokens[:number])
    return " ".join(tokens)


def stripped_tags(tags: Iterable[str], strip: Iterable[Strip]) -> list[str]:
    """The tags that say something besides words of the given classes, each whole."""
    classes = _sorted(strip)
    clean = [tag.strip() for tag in tags if tag.strip()]
    return [tag for tag in clean if not classes or not _is_style(tag, classes)]


def is_tag_list(text: str) -> bool:
    """Whether a caption is a list of booru tags: short parts, none of which reads like a sentence."""
    parts = [part.lower().replace("_", " ").split() for part in text.split(",") if part.strip()]
    if len(parts) < _TAGS_AT_LEAST or re.search(r"\.(?:\s|$)", text):
        return False
    return all(len(part) <= _TAG_WORDS and not _IN_NO_TAG.intersection(part) for part in parts if not _known(part))


def _tags_before_prose(text: str) -> str:
    """The tags of a caption that is tags and then a sentence that says them again; any other caption as it is."""
    tags, _, last = text.rstrip(" .").rpartition(", ")
    prose = last[:1].isupper() and len(last.split()) > _TAG_WORDS and _IN_NO_TAG.intersection(last.lower().split())
    return tags if prose and tags.count(",") >= _TAGS_AT_LEAST and is_tag_list(tags) else text


def _known(part: list[str]) -> bool:
    """Whether a part is a phrase of the lists, such as "depth of field"."""
    return any(tuple(part) in phrases(name) for name in Strip)


def _is_style(tag: str, classes: tuple[Strip, ...]) -> bool:
    sentence = _words(tag)
    gone = marked(sentence, classes)
    rest = [word for word, dropped in zip(sentence, gone, strict=True) if not dropped]
    return any(gone) and all(
        says_nothing(word) or listed(word, "modifiers") or listed(word, "supports") for word in rest
    )


def _layout(tag: str, *, drop_carrier: bool) -> bool:
    sentence = _words(tag)
    names = len(sentence) == 1 and sentence[0].lower() in _NAMES_A_PICTURE
    return (
        (drop_carrier and names)
        or bool(found(sentence, phrases("layout")))
        or all(listed(word, "places") for word in sentence)
    )


def _words(tag: str) -> Sentence:
    """A tag's words without underscores, brackets and weight: "(ink_wash:1.2)" -> "ink", "wash"."""
    plain = re.sub(r"[_\\()]", " ", re.sub(r":\d[\d.]*\)", ")", tag))
    return [word for words in sentences(plain) for word in words]


def _sorted(strip: Iterable[Strip]) -> tuple[Strip, ...]:
    return tuple(sorted(set(strip)))


def _stripped(sentence: Sentence, classes: tuple[Strip, ...], later: bool = False) -> list[Sentence]:
    """The clauses that are left of a sentence; of one after the first, none that lost what it speaks about."""
    gone = marked(sentence, classes)
    clauses: list[Sentence] = []
    words: list[str] = []
    marks: list[bool] = []
    for word, dropped in [*zip(sentence, gone, strict=True), (",", False)]:
        if word == "," and not dropped:
            rest = _stripped_clause(words, marks, later)
            named = marks[:1] == [True] and rest and tuple(_before(words, rest)) in phrases("shows")
            if named and len(clauses) == 1 and _is_adjective(clauses[0]):
                clauses.pop()  # "a lush, [detailed painting of] a garden"
            if not rest and any(marks) and clauses:
                clauses[-1] = _without_waiting(clauses[-1])
            clauses.append(rest)
            words, marks = [], []
        else:
            words.append(word)
            marks.append(dropped)
    clauses = [clause for clause in clauses if clause]
    if clauses and clauses[0][0].lower() in JOINTS | SHOWS and sentence[0].lower() not in JOINTS | SHOWS:
        clauses[0] = clauses[0][1:]  # "[an engraving] with a heart", "[a poster], featuring a heart"
    return [clause for clause in clauses if clause]


def _without_waiting(clause: Sentence) -> Sentence:
    """A clause without an adjective at its end whose noun went with the next one: "a hut with [quick], [strokes]"."""
    end = len(clause) - 1
    while end > 0 and clause[end - 1].lower() in ARTICLES:
        end -= 1
    waits = end > 1 and listed(clause[-1], "companions") and clause[end - 1].lower() in JOINTS
    return clause[: end - 1] if waits else clause


def _is_adjective(clause: Sentence) -> bool:
    """Whether a clause is the first of two adjectives: "a lush", "this is a crisp"."""
    said = clause[lead_in(clause) :]
    return len(said) == 2 and said[0].lower() in ARTICLES


def _split(sentence: Sentence) -> list[Sentence]:
    """The clauses between the commas."""
    clauses: list[Sentence] = [[]]
    for word in sentence:
        if word == ",":
            clauses.append([])
        else:
            clauses[-1].append(word)
    return clauses


def _before(clause: Sentence, rest: Sentence) -> Sentence:
    """The word before the end of a clause that is left, two where that is "in which"."""
    dropped = [word.lower() for word in clause[: len(clause) - len(rest)]]
    return dropped[-2:] if dropped[-1:] == ["which"] else dropped[-1:]


def _stripped_clause(clause: list[str], gone: list[bool], later: bool) -> list[str]:
    """The clause without marked words and what hangs on them; empty when nothing else is left."""
    if not any(gone):
        return clause
    mark_hanging(clause, gone)
    if later and _broken(clause, gone):
        return []
    rest = [word for word, dropped in zip(clause, gone, strict=True) if not dropped]
    if gone[0] and rest and rest[0].lower() in ("and", "or"):  # "[with engraved detail] and labels"
        rest = rest[1:]
    if all(says_nothing(word) or listed(word, "modifiers") or listed(word, "carriers") for word in rest):
        return []
    return with_articles(rest)


def _broken(clause: list[str], gone: list[bool]) -> bool:
    """Whether an article lost its noun ("the [engraving] uses") or "is" what it says ("is [faded] with age")."""
    for here in range(1, len(clause)):
        if not gone[here] or gone[here - 1]:
            continue
        before = clause[here - 1].lower()
        after = next((clause[n].lower() for n in range(here, len(clause)) if not gone[n]), "")
        ends = not after or after in _GOES_ON or listed(after, "made") or listed(after, "shows")
        if ends and (before in ARTICLES or before in _SAYS):
            return True
    kept = [word.lower() for word, dropped in zip(clause, gone, strict=True) if not dropped]
    return bool(kept) and (kept[-1] in GLUE | {"to"} or (gone[0] and listed(kept[0], "made")))


def _without(tokens: list[str], unwanted: Iterable[tuple[str, ...]]) -> list[str]:
    dropped: set[int] = set()
    for start, end in found(tokens, unwanted):
        dropped |= set(range(start, end))
    return [token for number, token in enumerate(tokens) if number not in dropped]


def _joined(clauses: list[Sentence]) -> str:
    """Clauses as text."""
    text = ", ".join(" ".join(clause) for clause in clauses)
    return re.sub(r"([(\[]) ", r"\1", re.sub(r"\s+([^\w\s(\[\"'&])", r"\1", text))


def _capital(text: str, wanted: bool) -> str:
    return text[:1].upper() + text[1:] if wanted else text
