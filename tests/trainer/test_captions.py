"""Strategies, switches and the caption sheet."""

from collections import Counter
from pathlib import Path

import pytest

from trainer.cache import TensorCache
from trainer.captions import STRATEGIES, caption, check_captions, possible_captions, shortened, texts, variant
from trainer.encoding import Texts
from trainer.examples import DatasetError, Example
from trainer.flux import FluxBase
from trainer.settings import CaptionSettings, Length, Strategy, Strip, TriggerPlace
from trainer.tokens import token_counter

HEART = Example(
    Path("heart.png"), 80, 80, ("an engraving of a heart at the left, fine lines",), ("heart", "engraving", "left side")
)
BARE = Example(Path("bare.png"), 80, 80, (), ())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (CaptionSettings(Strategy.none), ""),
        (CaptionSettings(Strategy.trigger, trigger="antmy"), "antmy"),
        (CaptionSettings(Strategy.original), HEART.captions[0]),
        (CaptionSettings(Strategy.tags), "heart, left side"),
        (CaptionSettings(Strategy.tags, strip=[]), "heart, engraving, left side"),
        (CaptionSettings(Strategy.edited), "a heart at the left"),
        (CaptionSettings(Strategy.subject_only), "a heart"),
        (CaptionSettings(Strategy.subject_only, trigger="antmy"), "antmy, a heart"),
    ],
)
def test_each_strategy_makes_its_caption(settings: CaptionSettings, expected: str) -> None:
    assert caption(HEART, settings, epoch=0, seed=0) == expected


def test_every_strategy_has_a_function() -> None:
    assert set(STRATEGIES) == set(Strategy)


def test_dropout_shows_the_picture_without_text_at_its_rate() -> None:
    settings = CaptionSettings(Strategy.original, dropout=0.25)
    dropped = [caption(HEART, settings, epoch=epoch, seed=0) == "" for epoch in range(2000)]
    assert sum(dropped) / 2000 == pytest.approx(0.25, abs=0.03)


def test_randomness_comes_from_seed_epoch_and_name_alone() -> None:
    settings = CaptionSettings(Strategy.tags, shuffle_tags=True, strip=[], dropout=0.3)
    many = Example(HEART.path, 80, 80, (), tuple("abcdefgh"))
    moved = Example(Path("elsewhere") / many.path.name, 80, 80, (), many.tags)
    texts = [caption(many, settings, epoch=epoch, seed=7) for epoch in range(20)]
    assert texts == [caption(moved, settings, epoch=epoch, seed=7) for epoch in range(20)]
    assert texts != [caption(many, settings, epoch=epoch, seed=8) for epoch in range(20)]
    assert len(set(texts)) > 10


def test_shuffling_keeps_trigger_and_first_parts_in_front() -> None:
    settings = CaptionSettings(Strategy.tags, trigger="antmy", shuffle_tags=True, keep_tokens=1, strip=[])
    seen = Counter(caption(HEART, settings, epoch=epoch, seed=0) for epoch in range(50))
    assert set(seen) == {"antmy, heart, engraving, left side", "antmy, heart, left side, engraving"}


def test_one_of_several_lines_is_taken_per_epoch() -> None:
    several = Example(Path("a.png"), 80, 80, ("one", "two", "three"), ())
    texts = {caption(several, CaptionSettings(Strategy.original), epoch=epoch, seed=0) for epoch in range(30)}
    assert texts == {"one", "two", "three"}


@pytest.mark.parametrize("strategy", [Strategy.original, Strategy.tags, Strategy.edited, Strategy.subject_only])
def test_missing_sidecars_are_all_named(strategy: Strategy) -> None:
    suffix, way = ("tags", "tagger=wd14") if strategy == Strategy.tags else ("txt", "captioner=florence2")
    with pytest.raises(DatasetError, match=rf"1 caption missing(.|\n)*bare\.{suffix}(.|\n)*{way}.*captions=trigger"):
        check_captions([HEART, BARE], CaptionSettings(strategy))


def test_strategies_without_text_need_no_sidecar() -> None:
    check_captions([BARE], CaptionSettings(Strategy.none))
    check_captions([BARE], CaptionSettings(Strategy.trigger, trigger="antmy"))


def test_the_trigger_and_the_class_phrase_stand_where_they_are_put() -> None:
    asked = {"trigger": "antmy", "class_phrase": "drawing"}
    assert caption(HEART, CaptionSettings(Strategy.subject_only, **asked), epoch=0, seed=0) == "antmy drawing, a heart"
    asked["trigger_place"] = TriggerPlace.end
    assert caption(HEART, CaptionSettings(Strategy.subject_only, **asked), epoch=0, seed=0) == "a heart, antmy drawing"
    assert caption(HEART, CaptionSettings(Strategy.trigger, **asked), epoch=0, seed=0) == "antmy drawing"


@pytest.mark.parametrize(
    ("text", "length", "most", "expected"),
    [
        ("an engraving of a heart at the left, fine lines", Length.as_is, None, None),
        ("an engraving of a heart at the left, fine lines", Length.half, None, "an engraving of a heart"),
        ("an engraving of a heart at the left, fine lines", Length.as_is, 9, "an engraving of a heart at the left"),
        ("an engraving of a heart at the left, fine lines", Length.half, 2, "an engraving"),
        ("a heart", Length.half, None, "a heart"),
        ("", Length.half, 1, ""),
    ],
)
def test_a_shortened_caption_is_a_beginning_without_a_hanging_end(
    text: str, length: Length, most: int | None, expected: str | None
) -> None:
    assert shortened(text, length, most) == (text if expected is None else expected)


@pytest.mark.parametrize("most", [1, 3, 5, 8, 20, 60])
def test_at_most_so_many_tokens_are_those_of_the_bases_tokenizer(most: int, base: FluxBase) -> None:
    """The tiny tokenizer knows some words and spells the others, so words and tokens differ."""
    said = Example(Path("a.png"), 80, 80, ("a red heart, an okapi of the house, large drawing of a blue hand",), ())
    whole, marks = said.captions[0], base.count_tokens("")
    assert base.count_tokens(whole) - marks > len(whole.split())
    settings = CaptionSettings(Strategy.original, max_tokens=most, trigger="antmy")
    cut = caption(said, settings, epoch=0, seed=0, count=base.count_tokens).removeprefix("antmy, ")
    assert whole.startswith(cut) and possible_captions(said, settings, epoch=0, seed=0, count=base.count_tokens) == [
        f"antmy, {cut}"
    ]
    assert base.count_tokens(cut) - marks <= max(most, base.count_tokens("a red") - marks)
    assert base.count_tokens(cut) == token_counter(Path(base.settings.path))(cut)
    assert (cut == whole) == (most == 60)


@pytest.mark.parametrize("classes", [[], [Strip.style], [Strip.medium], [Strip.technique, Strip.emotion]])
def test_each_subset_of_stripped_classes_has_words_of_its_own(classes: list[Strip]) -> None:
    said = Example(Path("a.png"), 80, 80, ("a vintage engraving of a heart, hatching, eerie mood",), ())
    full = CaptionSettings(Strategy.edited)
    part = CaptionSettings(Strategy.edited, strip=classes)
    assert texts(said, part) != texts(said, full)
    assert variant(part) != variant(full) == "edited"


def test_visits_differ_in_dropout_and_choice_but_not_in_the_order_of_tags() -> None:
    several = Example(Path("a.png"), 80, 80, ("one, two", "three, four"), ())
    settings = CaptionSettings(Strategy.original, dropout=0.3, shuffle_tags=True)
    seen = {caption(several, settings, epoch=3, seed=0, visit=visit) for visit in range(60)}
    assert len(seen) == 3
    assert seen == set(possible_captions(several, settings, epoch=3, seed=0))


def test_words_that_were_given_win_over_the_strategy() -> None:
    corrected = Example(HEART.path, 80, 80, HEART.captions, HEART.tags, given={"edited": ("a human heart",)})
    assert caption(corrected, CaptionSettings(Strategy.edited), epoch=0, seed=0) == "a human heart"
    assert caption(corrected, CaptionSettings(Strategy.subject_only), epoch=0, seed=0) == "a heart"
    silent = Example(HEART.path, 80, 80, HEART.captions, HEART.tags, given={"edited": ("",)})
    assert caption(silent, CaptionSettings(Strategy.edited), epoch=0, seed=0) == ""


@pytest.mark.parametrize("strategy", [Strategy.vlm, Strategy.tags_vlm])
def test_what_only_a_model_can_say_is_asked_for_by_name(strategy: Strategy) -> None:
    with pytest.raises(DatasetError, match="captioner="):
        check_captions([HEART], CaptionSettings(strategy))


def test_two_strategies_share_an_embedding_only_where_their_texts_are_equal(base: FluxBase, tmp_path: Path) -> None:
    embedded = Texts(base, TensorCache(tmp_path))
    short = Example(Path("short.png"), 80, 80, ("a heart",), ())
    asked = [(HEART, Strategy.edited), (HEART, Strategy.subject_only), (short, Strategy.original)]
    said = [caption(example, CaptionSettings(strategy), epoch=0, seed=0) for example, strategy in asked]
    assert said == ["a heart at the left", "a heart", "a heart"]
    first, second, third = (embedded([text]).tokens for text in said)
    assert not first.equal(second)
    assert second.equal(third)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
