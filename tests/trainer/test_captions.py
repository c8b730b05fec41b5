"""Strategies, switches and the caption sheet."""

from collections import Counter
from pathlib import Path

import pytest

from trainer.captions import STRATEGIES, caption, caption_sheet, check_captions
from trainer.examples import DatasetError, Example
from trainer.settings import CaptionSettings, Strategy, Strip

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
    suffix = "tags" if strategy == Strategy.tags else "txt"
    with pytest.raises(DatasetError, match=rf"1 captions missing(.|\n)*bare\.{suffix}"):
        check_captions([HEART, BARE], CaptionSettings(strategy))


def test_strategies_without_text_need_no_sidecar() -> None:
    check_captions([BARE], CaptionSettings(Strategy.none))
    check_captions([BARE], CaptionSettings(Strategy.trigger, trigger="antmy"))


def test_the_sheet_has_a_row_per_picture_and_strategy_without_chance() -> None:
    settings = {
        "original": CaptionSettings(Strategy.original, dropout=1.0),
        "edited": CaptionSettings(Strategy.edited, strip=[Strip.medium]),
    }
    rows = caption_sheet([HEART], settings, count_tokens=lambda text: len(text.split()))
    assert [(row.strategy, row.text, row.tokens) for row in rows] == [
        ("original", "an engraving of a heart at the left, fine lines", 10),
        ("edited", "a heart at the left, fine lines", 7),
    ]
