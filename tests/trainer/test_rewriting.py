"""Caption rules by example: what goes, what stays, in the article's words and in the sandbox's."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trainer
from trainer.rewriting import keep_subject, strip_words, stripped_tags, subject_noun
from trainer.settings import Strip
from trainer.style_words import words

ALL = list(Strip)
TRAINER = Path(trainer.__file__).parent
SANDBOX = (
    "an engraving of a large red heart at the left on a grey background, fine hatched lines, antique technique,"
    " melancholic mood"
)

# original, edited, subject only, noun
CASES = [
    (
        "An anatomical engraving style drawing of a human heart",
        "A drawing of a human heart",
        "a human heart",
        "human heart",
    ),
    (SANDBOX, "a large red heart at the left on a grey background", "a large red heart", "heart"),
    ("a flat drawing of a cat", "a cat", "a cat", "cat"),
    ("an ink outline drawing of a small house", "a small house", "a small house", "house"),
    ("a halftone print of a blue dog in the center", "a blue dog in the center", "a blue dog", "dog"),
    ("a neon skull at the right, glowing lines, eerie mood", "a skull at the right", "a skull", "skull"),
    (
        "A vintage chalkboard drawing of a human skull with fine cross-hatching, on the right side of the image. The"
        " mood is melancholic.",
        "A drawing of a human skull, on the right side of the image",
        "a human skull",
        "human skull",
    ),
    (
        "a watercolor painting of a woman dancing in a field of flowers",
        "a woman dancing in a field of flowers",
        "a woman dancing in a field of flowers",
        "woman",
    ),
    ("a girl with long hair in the style of Albrecht Dürer", "a girl with long hair", "a girl with long hair", "girl"),
    (
        "A black and white drawing of a hand, an eye, and a heart on a dark background",
        "A drawing of a hand, an eye, and a heart on a dark background",
        "a hand, an eye, and a heart",
        "hand",
    ),
    (
        "Detailed engraving of a rib cage, rendered in the manner of a 19th century textbook plate, melancholic",
        "a rib cage",
        "a rib cage",
        "rib cage",
    ),
    (
        "an old man's skull drawn in pen and ink on aged paper",
        "an old man's skull",
        "an old man's skull",
        "man's skull",
    ),
    ("A drawing in vintage style showing a cat", "A drawing showing a cat", "a cat", "cat"),
    ("a field of flowers", "a field of flowers", "a field of flowers", "field of flowers"),
    ("two small green fish at the top left", "two small green fish at the top left", "two small green fish", "fish"),
    ("a building with a ring", "a building with a ring", "a building with a ring", "building"),
    (
        "a chalk drawing of small green bones at the right, rough scribbles, school blackboard style, stormy mood",
        "small green bones at the right",
        "small green bones",
        "bones",
    ),
    ("a girl in a loose renaissance style", "a girl", "a girl", "girl"),
    ("heart", "heart", "heart", "heart"),
    ("", "", "", ""),
]


@pytest.mark.parametrize(("original", "edited", "subject", "noun"), CASES, ids=[case[0][:40] for case in CASES])
def test_the_rules_give_what_a_person_would_write(original: str, edited: str, subject: str, noun: str) -> None:
    assert strip_words(original, ALL) == edited
    assert keep_subject(original, ALL) == subject
    assert subject_noun(original) == noun


@pytest.mark.parametrize(
    ("strip", "expected"),
    [
        ([], SANDBOX),
        ([Strip.style], SANDBOX.replace("antique technique", "technique")),
        ([Strip.medium], SANDBOX.removeprefix("an engraving of ")),
        ([Strip.emotion], SANDBOX.removesuffix(", melancholic mood")),
    ],
)
def test_only_the_classes_asked_for_are_stripped(strip: list[Strip], expected: str) -> None:
    if strip == [Strip.style]:  # "technique" only spoke about "antique", and goes with it
        expected = SANDBOX.replace(", antique technique", "")
    assert strip_words(SANDBOX, strip) == expected


def test_subject_only_keeps_clauses_of_classes_that_are_not_stripped() -> None:
    kept = keep_subject(SANDBOX, [Strip.style, Strip.medium, Strip.technique])
    assert kept == "a large red heart, melancholic mood"
    assert keep_subject(SANDBOX, [Strip.style, Strip.technique, Strip.emotion]) == "an engraving of a large red heart"


SANDBOX_TAILS = [
    *("smooth areas", "solid fills", "bold outlines", "pen strokes", "round dots", "screen dots", "glowing lines"),
    *("soft glow", "fine hatched lines", "cross-hatching", "grainy strokes", "rough scribbles", "many fine dots"),
    *(
        "stippled shading",
        "wet washes",
        "soft edges",
        "modern style",
        "poster style",
        "comic style",
        "field guide style",
    ),
    *("classroom style", "calm mood", "melancholic mood", "solemn mood", "cheerful mood", "eerie mood"),
]
SANDBOX_MEDIA = [
    "a flat drawing",
    "an ink outline",
    "a halftone print",
    "a neon sign",
    "an engraving",
    "a chalk drawing",
]


@pytest.mark.parametrize("medium", [*SANDBOX_MEDIA, "a stipple drawing", "a watercolour painting"])
def test_the_sandboxes_media_go(medium: str) -> None:
    assert strip_words(f"{medium} of a small woman in red dancing", ALL) == "a small woman in red dancing"


@pytest.mark.parametrize("tail", SANDBOX_TAILS)
def test_the_sandboxes_ways_of_drawing_go(tail: str) -> None:
    assert strip_words(f"a heart, {tail}", ALL) == "a heart"
    assert stripped_tags(["heart", tail], ALL) == ["heart"]


def test_tags_that_are_style_words_go_whole() -> None:
    tags = [
        "heart",
        "red",
        "left side",
        "grey background",
        "engraving",
        "hatching",
        "monochrome",
        "no humans",
        "ink_wash",
    ]
    assert stripped_tags(tags, ALL) == ["heart", "red", "left side", "grey background", "no humans"]
    assert stripped_tags(tags, []) == tags


@pytest.mark.parametrize(
    "name", [*Strip, "companions", "carriers", "shows", "made", "places", "details", "modifiers", "eras", "supports"]
)
def test_word_lists_are_lower_case_and_hold_nothing_twice(name: str) -> None:
    entries = words()[name]
    assert len(entries) == len(set(entries)) > 3
    assert all(entry == entry.lower().strip() for entry in entries)


def test_no_list_stands_in_both_files() -> None:
    files = [tomllib.loads((TRAINER / name).read_text(encoding="utf-8")) for name in ("words.toml", "grammar.toml")]
    assert set(files[0]) == set(Strip)
    assert not set(files[0]) & set(files[1])


def test_no_phrase_stands_in_two_classes() -> None:
    every = [entry for name in Strip for entry in words()[name]]
    assert sorted(set(every)) == sorted(every)


@given(st.text(max_size=80))
def test_rules_bear_any_text_and_add_no_words_but_articles(text: str) -> None:
    for result in (strip_words(text, ALL), keep_subject(text, ALL), subject_noun(text)):
        assert _pieces(result) <= _pieces(text) | {"a", "an"}


PIECES = [piece for case in CASES for piece in case[0].split()]
LISTED = [entry for name in words() for entry in words()[name][::7]]
LITTLE = ["of", "with", "in the style of", "by", "and", "is", "on a grey background", ",", ".", "a", "the"]
CAPTIONS = st.lists(st.sampled_from(PIECES) | st.sampled_from(LISTED) | st.sampled_from(LITTLE), max_size=12).map(
    " ".join
)


@settings(max_examples=60, deadline=None)
@given(CAPTIONS | st.sampled_from([case[0] for case in CASES]), st.sets(st.sampled_from(ALL)))
def test_rules_applied_twice_change_nothing_more(text: str, classes: set[Strip]) -> None:
    for rule in (strip_words, keep_subject):
        once = rule(text, classes)
        assert rule(once, classes) == once


@pytest.mark.parametrize(
    ("text", "edited", "subject"),
    [
        (  # who the caption is about comes in the second sentence
            "The image is a vintage poster for a travel agency. It shows a woman in a yellow coat.",
            "The image is for a travel agency. It shows a woman in a yellow coat",
            "a woman in a yellow coat",
        ),
        (  # a sentence about the drawing goes whole, not but for its noun
            "A botanical engraving of a thistle. The engraving uses fine hatching to create shading, and the paper is"
            " slightly yellowed with age.",
            "a thistle",
            "a thistle",
        ),
        ("An owl. The feathers are brown, in fine lines.", "An owl. The feathers are brown", "An owl"),
        (  # a medium's word that is a thing in the picture, and a time that is the thing's
            "a vintage photo of a girl reading a comic book in a gothic cathedral",
            "a girl reading a comic book in a gothic cathedral",
            "a girl reading a comic book in a gothic cathedral",
        ),
        (
            "At the center of the image is a robot that is watering plants, in the middle of a field.",
            "At the center of the image is a robot that is watering plants, in the middle of a field",
            "a robot that is watering plants",
        ),
        ("a lush, highly detailed painting of a garden", "a garden", "a garden"),
        ("a watercolor of a unicorn for an hour", "a unicorn for an hour", "a unicorn for an hour"),
    ],
)
def test_a_sentence_about_the_picture_is_not_left_in_pieces(text: str, edited: str, subject: str) -> None:
    assert (strip_words(text, ALL), keep_subject(text, ALL)) == (edited, subject)


@pytest.mark.parametrize("piece", ["blues and ", "in a soft ", "with soft lines, ", "in the style of ", "a red, "])
def test_a_runaway_caption_is_read_all_the_same(piece: str) -> None:
    assert len(keep_subject(piece * 200, ALL)) <= len(piece * 200)  # a careless pattern would not come back


def _pieces(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
