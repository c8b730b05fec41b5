"""What is shown and counted of a caption's way."""

from trainer.caption_diff import Span, differences, style_words, subject_kept

ORIGINAL = "An old engraving of a heart at the left, fine hatched lines, eerie mood"


def test_the_way_is_told_word_by_word_with_the_class_of_what_went() -> None:
    assert differences(ORIGINAL, "a heart") == [
        Span("gone", "An old"),
        Span("gone", "engraving", "medium"),
        Span("gone", "of"),
        Span("same", "a heart"),
        Span("gone", "at the left,"),
        Span("gone", "fine hatched lines,", "technique"),
        Span("gone", "eerie mood", "emotion"),
    ]


def test_words_that_come_are_told_as_new() -> None:
    assert differences("a heart", "a human heart") == [Span("same", "a"), Span("new", "human"), Span("same", "heart")]
    assert differences("", "a heart") == [Span("new", "a heart")]
    assert differences("a heart", "a heart") == [Span("same", "a heart")]


def test_numbers_count_style_words_and_the_subject() -> None:
    assert style_words(ORIGINAL) == 6
    assert style_words("a heart") == 0
    assert subject_kept("an engraving of a human heart", "a heart") == 0.5
    assert subject_kept("an engraving of a human heart", "a human heart, red") == 1.0
    assert subject_kept("", "a heart") is None
