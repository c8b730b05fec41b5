"""Rules that take style words out of a caption, or all but the subject.

What belongs to style, medium, technique and emotion is found by `trainer.style_words`. Here it is taken out so that
English is left, and the subject is found: behind "a drawing of", before places and details. The rules are plain on
purpose: a person reads the result in the caption sheet and corrects it there.
"""

import re
from collections.abc import Callable, Iterable

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

_PLACED_BY = frozenset(
    {"in", "at", "on", "along", "near", "by", "over", "under", "from", "to", "across", "toward", "towards", "against"}
)
_LONGEST_INTRODUCTION = 9  # words before "drawing of" that still belong to the picture's name
_TAG_WORDS = 3  # a list of parts no longer than this is a list of tags
_TAGS_AT_LEAST = 2
_NAMES_NOTHING = _PLACED_BY | JOINTS | {"for"}
_SHOWS = frozenset({"showing", "depicting", "featuring", "portraying", "presenting", "illustrating"})
_SAYS = frozenset({"is", "are", "was", "were", "has", "have", "appears", "appear", "looks", "feels"})
_GOES_ON = (GLUE | {"there", "to"}) - ARTICLES
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
    if is_tag_list(text):
        return ", ".join(tag for tag in stripped_tags(text.split(","), classes) if not _layout(tag))
    others = _sorted(set(Strip) - set(classes))
    subject: list[Sentence] = []
    rest: list[Sentence] = []
    for sentence in sentences(text):
        clauses = _stripped(sentence, classes)
        if not subject:
            subject, clauses = _subject(clauses, drop_carrier=Strip.medium in classes)
            if subject and subject[0][0].lower() in _NAMES_NOTHING:  # "[a poster] for an agency": say who in the next
                clauses, subject = subject + clauses, []
        rest += clauses
    if not subject:  # a caption of positions only: better a word too many than none
        subject, rest = rest[:1], rest[1:]
    return _joined(subject + [clause for clause in rest if any(marked(clause, others))])


def subject_noun(text: str) -> str:
    """What a caption is about, without article, size, colour and details: "a large red human heart …" -> "human heart".

    Empty for an empty caption. Of a list of subjects, the first.
    """
    kept = keep_subject(text, list(Strip)).split(",")[0].lower()
    tokens = [token for sentence in sentences(kept) for token in sentence]
    tokens = _without(tokens, phrases("modifiers") | {(article,) for article in ARTICLES})
    ends = _PLACED_BY | {"and", "or", "with", "without", "is", "are"}
    for number, token in enumerate(tokens):
        if number and (_participle(token) or token in ends):
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


def _known(part: list[str]) -> bool:
    """Whether a part is a phrase of the lists, such as "depth of field"."""
    return any(tuple(part) in phrases(name) for name in Strip)


def _is_style(tag: str, classes: tuple[Strip, ...]) -> bool:
    sentence = _words(tag)
    gone = marked(sentence, classes)
    rest = [word for word, dropped in zip(sentence, gone, strict=True) if not dropped]
    return any(gone) and all(_says_nothing(word) or listed(word, "modifiers") for word in rest)


def _layout(tag: str) -> bool:
    sentence = _words(tag)
    return bool(found(sentence, phrases("layout"))) or all(listed(word, "places") for word in sentence)


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
            clauses.append(_stripped_clause(words, marks, later))
            words, marks = [], []
        else:
            words.append(word)
            marks.append(dropped)
    clauses = [clause for clause in clauses if clause]
    if clauses and clauses[0][0].lower() in JOINTS | _SHOWS and sentence[0].lower() not in JOINTS | _SHOWS:
        clauses[0] = clauses[0][1:]  # "[an engraving] with a heart", "[a poster], featuring a heart"
    return [clause for clause in clauses if clause]


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
    if all(_says_nothing(word) or listed(word, "modifiers") or listed(word, "carriers") for word in rest):
        return []
    return _with_articles(rest)


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
    return False


def _says_nothing(word: str) -> bool:
    return word.lower() in GLUE or listed(word, "companions") or listed(word, "made") or not word[0].isalnum()


def _with_articles(tokens: list[str]) -> list[str]:
    """Drop articles left without a noun and agree "a" and "an" with the word that now follows."""
    fixed: list[str] = []
    for here, token in enumerate(tokens):
        following = tokens[here + 1].lower() if here + 1 < len(tokens) else ""
        if token.lower() in ARTICLES and (not following or following in GLUE):
            continue
        if token.lower() in ("a", "an") and here == 0:
            token = token[0] + ("n" if following[0] in "aeiou" else "")
        elif token.lower() in ("a", "an"):
            token = "an" if following[0] in "aeiou" else "a"
        fixed.append(token)
    return fixed


def _subject(clauses: list[Sentence], *, drop_carrier: bool) -> tuple[list[Sentence], list[Sentence]]:
    """What names the subject, from behind "a drawing of" to where places or details begin; and the other clauses."""
    start, begin = _where_it_begins(clauses, drop_carrier)
    named: list[Sentence] = []
    listing = _is_listing(clauses[start:])
    used = start
    for number, clause in enumerate(clauses[start:]):
        if number and not (listing >= number or _acts(clause)):
            break
        clause = clause[begin:] if number == 0 else clause
        end = min(_ends(clause), default=len(clause))
        named.append(_with_articles(clause[:end]))
        used += 1
        if end < len(clause):
            break
    named = [clause for clause in named if clause]
    return named, clauses[:start] + clauses[used:] if named else clauses


def _where_it_begins(clauses: list[Sentence], drop_carrier: bool) -> tuple[int, int]:
    """Clause and word where the subject begins."""
    for number, clause in enumerate(clauses):
        begin = _after_name(clause, 0 if number else lead_in(clause), drop_carrier)
        if begin:
            return number, begin
    for number, clause in enumerate(clauses):
        if all(_says_nothing(word) or listed(word, "carriers") for word in clause):
            continue
        if len(clause) > 2 or clause[0].lower() in ARTICLES:
            if number and clause[0].lower() not in ARTICLES:
                break
            return number, 0
    return 0, 0


def _after_name(clause: Sentence, begin: int, drop_carrier: bool) -> int:
    """Where the subject begins behind "a drawing of" or "the image shows"; `begin` if the clause names no picture."""
    if not drop_carrier:
        return begin
    for start, end in found(clause, phrases("shows")):
        head = clause[begin:start]
        if not head or head[0].lower() in JOINTS or len(head) > _LONGEST_INTRODUCTION:
            continue
        if any(_participle(word) for word in head):
            continue
        if listed(clause[start - 1], "carriers"):
            begin = end
    return begin


def _is_listing(clauses: list[Sentence]) -> int:
    """How many clauses after the first go on an enumeration ("a hand, a heart, and an eye")."""
    for number, clause in enumerate(clauses[1:], start=1):
        lowered = [word.lower() for word in clause]
        if {"is", "are"} & set(lowered):
            return 0
        if lowered[0] == "and" or (lowered[0] in ARTICLES and "and" in lowered):
            return number
        if lowered[0] not in ARTICLES and len(clause) > 2:
            return 0
    return 0


def _acts(clause: Sentence) -> bool:
    """Whether a clause goes on with what the subject does: "sitting on a mushroom"."""
    return _participle(clause[0].lower()) and not listed(clause[0], "shows") and not listed(clause[0], "made")


def _ends(clause: Sentence) -> list[int]:
    """Where places and details begin."""
    ends = [start for start, _ in found(clause, phrases("details")) if start]
    for here, word in enumerate(clause[:-1]):
        if here and word.lower() in ("is", "are") and not _participle(clause[here + 1].lower()):
            ends.append(here)
    return ends + _places(clause)


def _places(clause: Sentence) -> list[int]:
    """Where phrases like "at the left", "on a grey background" and "with a sunset in the background" begin."""
    lowered = [word.lower() for word in clause]
    starts = []
    for here, token in enumerate(lowered):
        if token not in _PLACED_BY:
            continue
        stop = next((n for n in range(here + 1, len(lowered)) if lowered[n] in _PLACED_BY), len(lowered))
        if any(listed(lowered[n], "places") for n in range(here + 1, stop)):
            behind = any(listed(lowered[n], "behind") for n in range(here + 1, stop))
            starts.append(lowered.index("with") if behind and "with" in lowered[:here] else here)
    if lowered and all(listed(token, "places") or token in ARTICLES | _PLACED_BY for token in lowered):
        starts.append(0)
    return starts


def _without(tokens: list[str], unwanted: Iterable[tuple[str, ...]]) -> list[str]:
    dropped: set[int] = set()
    for start, end in found(tokens, unwanted):
        dropped |= set(range(start, end))
    return [token for number, token in enumerate(tokens) if number not in dropped]


def _participle(word: str) -> bool:
    return word.lower().endswith("ing") and len(word) > 5 and not listed(word, "nouns_in_ing")


def _joined(clauses: list[Sentence]) -> str:
    """Clauses as text."""
    text = ", ".join(" ".join(clause) for clause in clauses)
    return re.sub(r"([(\[]) ", r"\1", re.sub(r"\s+([^\w\s(\[\"'&])", r"\1", text))


def _capital(text: str, wanted: bool) -> str:
    return text[:1].upper() + text[1:] if wanted else text
