"""Finds the subject of a caption: behind "a drawing of", before places and details, with what the subject does.

English of captions is regular enough for plain rules on words and commas; what they take for a subject is read and
corrected by a person in the caption sheet.
"""

import re
from itertools import pairwise

from trainer.settings import Strip
from trainer.style_words import (
    ARTICLES,
    DETERMINERS,
    GLUE,
    JOINTS,
    Sentence,
    acts,
    does,
    found,
    lead_in,
    listed,
    marked,
    phrases,
)

PLACED_BY = frozenset(
    {"in", "at", "on", "along", "near", "by", "over", "under", "from", "to", "across", "toward", "towards", "against"}
)
NAMES_NOTHING = PLACED_BY | JOINTS | {"for"}
SHOWS = frozenset({"showing", "depicting", "featuring", "portraying", "presenting", "illustrating"})
_LONGEST_INTRODUCTION = 9  # words before "drawing of" that still belong to the picture's name
_LONGEST_ASIDE = 3  # words of a clause before ", showing a heart" that says nothing of the subject
_OF_PICTURES = ("carriers", "places", "shows")
_DONE = frozenset({"surrounded", "dressed", "covered", "seated", "perched", "wrapped", "followed", "armed", "filled"})
_POSSESSIVES = frozenset({"his", "her", "its", "their"})
_OF_A_BODY = frozenset({"back", "side", "left", "right", "upper", "lower"})
_PUT = frozenset({"carved", "drawn", "engraved", "etched", "painted", "printed", "sketched", "sprayed", "stencilled"})
_AFTER_A_COMMA = frozenset({("of",), ("in", "which")} | {(word,) for word in SHOWS})
_SAYS_OF_A_PICTURE = frozenset({"shows", "depicts", "portrays", "features", "illustrates"})
_WAITS = frozenset(
    {"that", "which", "who", "is", "are", "and", "while", "where", "with", "has", "have", "as", "it"}
    | {"arranged", "shown", "seen", "displayed", "set"}
)
_AN = re.compile(r"(?!eu|ewe|on(?:e|ce)\b|one-|uni(?![mn])|u[kst][aeiou]|ufo)[aeiou]|hour|honest|heir")  # by sound
_ADJECTIVE = re.compile(r"(?:[iy]ng|ed|ful|ous|ish|less|ive|al|ic|ant|ent)$")


def find_subject(
    clauses: list[Sentence], whole: list[Sentence], *, drop_carrier: bool
) -> tuple[list[Sentence], list[Sentence]]:
    """What names the subject, from behind "a drawing of" to where places or details begin; and the other clauses.

    `whole` are the clauses as they were written: what is said of the subject stays if nothing in it was of a style.
    """
    start, begin = _where_it_begins(clauses, drop_carrier)
    if len(clauses) > start + 1 and _waits_for_noun(clauses[start][begin:], clauses[start + 1]):
        clauses = [*clauses[:start], [*clauses[start], ",", *clauses[start + 1]], *clauses[start + 2 :]]
    named: list[Sentence] = []
    listing = _is_listing(clauses[start:])
    used = start
    for number, clause in enumerate(clauses[start:]):
        if number and number > listing:
            if not (_acts(clause) or (clause in whole and _says_more(clause))):
                break
            listing = number + _is_listing(clauses[start + number :])
        clause = clause[begin:] if number == 0 else clause
        end = min(_ends(clause), default=len(clause))
        if number == 0 and begin and [word.lower() for word in clause[-2:]] in (["on", "it"], ["in", "it"]):
            end = min(end, len(clause) - 2)  # "a picture of a ship [on it]"
        named.append(with_articles(_finished(clause[:end]) if end < len(clause) else clause))
        used += 1
        if end < len(clause) and not _is_made(clause[end:]):
            break
    named = [clause for clause in named if clause]
    return named, clauses[:start] + clauses[used:] if named else clauses


def _waits_for_noun(clause: Sentence, following: Sentence) -> bool:
    """Whether a clause is the first of two adjectives: "a round, [green frog]"."""
    if len(clause) != 2 or clause[0].lower() not in ARTICLES or len(following) < 2:
        return False
    if following[0].lower() in DETERMINERS | JOINTS | PLACED_BY or is_participle(following[0]):
        return False
    return bool(_ADJECTIVE.search(clause[1])) or listed(clause[1], "modifiers") or listed(following[0], "modifiers")


def _finished(clause: Sentence) -> Sentence:
    """The clause without the words that waited for what was cut off: "a skull that is"."""
    end = len(clause)
    while end and clause[end - 1].lower() in _WAITS:
        end -= 1
    return clause[:end]


def _where_it_begins(clauses: list[Sentence], drop_carrier: bool) -> tuple[int, int]:
    """Clause and word where the subject begins."""
    for number, clause in enumerate(clauses):
        shows = max((end for start, end in found(clause[:2], _AFTER_A_COMMA) if start == 0), default=0)
        if shows and all(_is_aside(earlier) for earlier in clauses[:number]):
            return number, shows
    said = False
    for number, clause in enumerate(clauses):
        begin = _after_name(clause, 0 if number else lead_in(clause), drop_carrier)
        if 0 < begin < len(clause):
            return number, begin
    for number, clause in enumerate(clauses):
        if all(says_nothing(word) or any(listed(word, name) for name in _OF_PICTURES) for word in clause):
            continue
        if _only_tells_how(clause, clauses[number + 1 :]):
            continue
        if len(clause) > 2 or clause[0].lower() in ARTICLES:
            if said and clause[0].lower() not in ARTICLES:
                break
            return number, 0
        said = True
    return 0, 0


def _is_aside(clause: Sentence) -> bool:
    """Whether a clause before ", showing a heart" says nothing of the subject, as "a human hand" would."""
    tells = (*_OF_PICTURES, "companions", "modifiers")
    names = clause[0].lower() in ARTICLES and not any(listed(clause[-1], name) for name in tells)
    return len(clause) <= _LONGEST_ASIDE and not names


def _only_tells_how(clause: Sentence, later: list[Sentence]) -> bool:
    """Whether a clause is before the subject and about the picture: "Rendered in voxels", "Neo-Tokyo haze"."""
    how = listed(clause[0], "made") or clause[0].lower() in JOINTS - {"and", "or"}
    if how:
        return any(other[0].lower() in DETERMINERS for other in later)
    bare = len(clause) <= _LONGEST_ASIDE and clause[0].lower() not in DETERMINERS
    return bare and any(other[0].lower() in ARTICLES and len(other) > _LONGEST_ASIDE for other in later)


def _after_name(clause: Sentence, begin: int, drop_carrier: bool) -> int:
    """Where the subject begins behind "a drawing of" or "the image shows"; `begin` if the clause names no picture."""
    if not drop_carrier:
        return begin
    for start, end in found(clause, phrases("shows")):
        head = clause[begin:start]
        if not head or head[0].lower() in JOINTS or len(head) > _LONGEST_INTRODUCTION:
            continue
        if any(is_participle(word) for word in head) or any(
            does(word) and after.lower() in DETERMINERS for word, after in pairwise(head)
        ):
            continue
        if any(word == "with" and not _bears_pictures(bearer) for bearer, word in pairwise(head)):
            continue  # "a man with a portrait of his wife"
        told = len(head) == 2 and head[0].lower() == "the" and clause[start].lower() in _SAYS_OF_A_PICTURE
        if told or listed(clause[start - 1], "carriers"):
            begin = end
    return begin


def _bears_pictures(word: str) -> bool:
    return listed(word, "supports") or listed(word, "carriers")


def _is_listing(clauses: list[Sentence]) -> int:
    """How many clauses after the first go on an enumeration ("a hand, a heart, and an eye")."""
    for number, clause in enumerate(clauses[1:], start=1):
        lowered = [word.lower() for word in clause]
        if {"is", "are"} & set(lowered) or lowered[0] in NAMES_NOTHING - {"and"}:
            return 0
        if "and" in (lowered if lowered[0] in DETERMINERS else lowered[:_LONGEST_ASIDE]):
            return number
        if lowered[0] not in DETERMINERS and len(clause) > 2:
            return 0
    return 0


def _acts(clause: Sentence) -> bool:
    """Whether a clause goes on with what the subject does: "sitting on a mushroom", "with villagers dancing"."""
    first = clause[0].lower()
    if first in _DONE or (first == "with" and any(is_participle(word) for word in clause[2:4])):
        return True
    if first in _POSSESSIVES:  # "its neck passing through the ceiling"
        return any(acts(word) and not listed(word, "shows") for word in clause[2:4])
    return is_participle(first) and first not in SHOWS - {"showing"} and not listed(first, "made")


def _says_more(clause: Sentence) -> bool:
    """Whether a clause tells more of what was named: "with its organs exposed", "while it rains"."""
    first = clause[0].lower()
    if first in _POSSESSIVES | {"with", "while", "whose", "who"}:
        return len(clause) > 1
    following = clause[1].lower() if len(clause) > 1 else ""
    return _suffers(first) and following in PLACED_BY | {"with", "into", "inside", "as"}


def _is_made(words: Sentence) -> bool:
    """Whether words tell how the picture was made: "[a room] is shown in cutaway"."""
    told = [word for word in words if word.lower() not in GLUE]
    return bool(told) and listed(told[0], "made")


def _ends(clause: Sentence) -> list[int]:
    """Where places and details begin."""
    ends = [start for start, _ in found(clause, phrases("details")) if start]
    for here, word in enumerate(clause[:-1]):
        if here and word.lower() in _PUT and clause[here + 1].lower() in ("on", "onto", "in", "into", "with"):
            ends.append(here)  # "a boy [painted on a wall]"
        said_of = here and word.lower() in ("is", "are") and clause[here - 1].lower() not in ("that", "which", "who")
        if said_of and not is_participle(clause[here + 1].lower()) and not _suffers(clause[here + 1].lower()):
            ends.append(here)
    return ends + _places(clause)


def _places(clause: Sentence) -> list[int]:
    """Where phrases like "at the left", "on a grey background" and "with a sunset in the background" begin."""
    lowered = [word.lower() for word in clause]
    starts = []
    for here, token in enumerate(lowered[:-1]):
        if token not in PLACED_BY:
            continue
        stop = next((n for n in range(here + 1, len(lowered)) if lowered[n] in PLACED_BY), len(lowered))
        if token == "to" and "the" not in lowered[here + 1 : here + 2]:
            continue  # "pinned to a board"
        if lowered[here + 1] in _POSSESSIVES and lowered[here + 2 : here + 3] and lowered[here + 2] in _OF_A_BODY:
            continue  # "people on its back"
        named = [n for n in range(here + 1, stop) if listed(lowered[n], "places") and not _before_a_noun(lowered, n)]
        if named and not _of_a_thing(lowered, named[-1]):
            behind = any(listed(lowered[n], "behind") for n in range(here + 1, stop))
            starts.append(lowered.index("with") if behind and "with" in lowered[:here] else here)
    if lowered and all(listed(token, "places") or token in ARTICLES | PLACED_BY for token in lowered):
        starts.append(0)
    return starts


def _before_a_noun(clause: Sentence, here: int) -> bool:
    """Whether a word only tells which thing is meant: "in a top [hat]", not "at the top left" or "at the top"."""
    after = clause[here + 1] if here + 1 < len(clause) else ""
    if not after[:1].isalnum() or after in GLUE | JOINTS | PLACED_BY or listed(after, "places"):
        return False
    return not is_participle(after) and not listed(after, "made")


def _of_a_thing(clause: Sentence, place: int) -> bool:
    """Whether a place is one of the scene, not of the picture: "in the middle of a lake"."""
    after = [word for word in clause[place + 1 : place + 4] if word not in ARTICLES]
    if len(after) < 2 or after[0] != "of":
        return False
    return after[1] == "it" or not (listed(after[1], "places") or listed(after[1], "carriers"))


def _suffers(word: str) -> bool:
    """Whether a word says what is done to a subject: "[is] replaced", not "[is] rendered"."""
    return word.endswith("ed") and len(word) > 4 and not listed(word, "made") and not marked([word], list(Strip))[0]


def is_participle(word: str) -> bool:
    named = listed(word, "nouns_in_ing") or listed(word, "carriers")
    return word.lower().endswith("ing") and len(word) > 5 and not named


def says_nothing(word: str) -> bool:
    return word.lower() in GLUE or listed(word, "companions") or listed(word, "made") or not word[0].isalnum()


def with_articles(tokens: list[str]) -> list[str]:
    """Drop articles left without a noun and agree "a" and "an" with the word that now follows."""
    fixed: list[str] = []
    for here, token in enumerate(tokens):
        following = tokens[here + 1].lower() if here + 1 < len(tokens) else ""
        if token.lower() in ARTICLES and (not following or following in GLUE):
            continue
        if token.lower() in ("a", "an"):
            token = (token[0] if here == 0 else "a") + ("n" if _AN.match(following) else "")
        fixed.append(token)
    return fixed
