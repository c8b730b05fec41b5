"""Plans by exact numbers (kohya's) and by property."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.examples import DatasetError
from trainer.plan import PlanError, make_plan
from trainer.settings import MixSettings

VECTORS = json.loads((Path(__file__).parent / "vectors/kohya_buckets.json").read_text())


@dataclass
class Picture:
    width: int
    height: int


SIZES = st.lists(st.builds(Picture, st.integers(40, 400), st.integers(40, 400)), min_size=1, max_size=12)


@pytest.mark.parametrize("row", VECTORS["steps_per_epoch"], ids=lambda row: row["name"])
def test_steps_per_epoch_are_those_of_kohya(row: dict[str, Any]) -> None:
    mix = MixSettings(
        repeats={dataset["resolution"]: dataset["num_repeats"] for dataset in row["datasets"]},
        batch_sizes={dataset["resolution"]: dataset["batch_size"] for dataset in row["datasets"]},
        gradient_accumulation=row["gradient_accumulation"],
        no_upscale=row["bucket_no_upscale"],
        min_side=row["min_bucket_reso"],
        max_side=row["max_bucket_reso"],
    )
    pictures = [Picture(width, height) for width, height, count in row["images"] for _ in range(count)]
    plan = make_plan(pictures, mix, scale=1.0, step=row["bucket_reso_steps"], seed=0)
    assert plan.images_per_epoch == row["num_train_images_incl_repeats"]
    assert plan.batches_per_epoch == row["batches_per_epoch"] == len(plan.batches(0))
    assert plan.steps_per_epoch == row["optimizer_steps_per_epoch"]
    for side, dataset in zip(plan.sides, row["datasets"], strict=True):
        counts = {f"{b.width}x{b.height}": len(indices) * side.repeats for b, indices in side.buckets.items()}
        assert counts == dataset["bucket_counts_incl_repeats"]
        assert side.batches_per_epoch == dataset["batches"]


@pytest.mark.parametrize("repeats", [{512: 5}, {256: 1, 512: 3, 768: 1}, {512: 3, 768: 2}])
def test_the_mixes_of_the_article_show_150_pictures_per_epoch(repeats: dict[int, int]) -> None:
    plan = make_plan([Picture(832, 1216)] * 30, MixSettings(repeats=repeats), scale=1.0, step=16, seed=0)
    assert plan.images_per_epoch == 150


@given(pictures=SIZES, epoch=st.integers(0, 3), seed=st.integers(0, 3), batch_size=st.integers(1, 5))
def test_every_picture_appears_once_per_repeat_and_batches_never_mix(
    pictures: list[Picture], epoch: int, seed: int, batch_size: int
) -> None:
    mix = MixSettings(repeats={256: 1, 512: 3, 768: 0, 1024: 2}, batch_size=batch_size)
    plan = make_plan(pictures, mix, scale=0.125, step=8, seed=seed)
    shown: Counter[tuple[int, int]] = Counter()
    fits = {side.side: side.fits for side in plan.sides}
    for batch in plan.batches(epoch):
        assert 1 <= len(batch.indices) <= batch_size
        for index in batch.indices:
            shown[batch.side, index] += 1
            assert fits[batch.side][index].bucket == batch.bucket
    assert shown == {(s, i): r for s, r in mix.repeats.items() if r for i in range(len(pictures))}


@given(pictures=SIZES, no_upscale=st.booleans())
def test_buckets_are_multiples_of_the_step_inside_the_picture(pictures: list[Picture], no_upscale: bool) -> None:
    plan = make_plan(pictures, MixSettings({512: 1, 768: 1}, no_upscale=no_upscale), scale=0.125, step=8, seed=0)
    for side in plan.sides:
        for picture, fit in zip(pictures, side.fits, strict=True):
            assert fit.bucket.width % 8 == 0 == fit.bucket.height % 8
            assert 0 < fit.bucket.width <= fit.resized[0] and 0 < fit.bucket.height <= fit.resized[1]
            assert 0 <= fit.crop_loss < 1
            if no_upscale:
                assert fit.resized[0] <= picture.width and fit.resized[1] <= picture.height


def test_order_depends_on_seed_and_epoch_alone() -> None:
    pictures = [Picture(100 + i, 120) for i in range(20)]
    plan, again, other = (make_plan(pictures, MixSettings(), scale=0.125, step=8, seed=s) for s in (1, 1, 2))
    assert plan.batches(3) == again.batches(3)
    assert plan.batches(3) != plan.batches(4)
    assert plan.batches(3) != other.batches(3)


def test_steps_stop_at_the_first_that_reaches_the_budget() -> None:
    plan = make_plan([Picture(64, 64)] * 5, MixSettings({512: 1}, batch_size=2), scale=0.125, step=8, seed=0)
    sizes = [sum(len(batch.indices) for batch in batches) for _, batches in plan.steps(12)]
    assert sum(sizes) >= 12 > sum(sizes[:-1])
    assert sum(sizes[:3]) == 5
    assert plan.epochs(10) == 2 and plan.epochs(11) == 3


def test_limits_follow_the_side_so_256_is_not_cut_square() -> None:
    mix = MixSettings({256: 1}, no_upscale=False)
    plan = make_plan([Picture(832, 1216)], mix, scale=1.0, step=16, seed=0)
    assert plan.sides[0].crop_loss < 0.05
    mix.min_side, mix.max_side = 256, 1024
    cut = make_plan([Picture(832, 1216)], mix, scale=1.0, step=16, seed=0)
    assert cut.sides[0].crop_loss == pytest.approx(1 - 832 / 1216, abs=0.01)
    assert any("cut square" in warning for warning in cut.warnings)


def test_warnings_name_small_pictures_and_lonely_buckets() -> None:
    pictures = [Picture(64, 64), Picture(64, 64), Picture(128, 64)]
    plan = make_plan(pictures, MixSettings({768: 1}), scale=0.125, step=8, seed=0)
    assert plan.warnings == [
        "side 768: smaller than 96x96 px: 3 of 3 pictures",
        "side 768: 1 of 2 buckets hold a single picture",
    ]
    assert "768" in str(plan) and "warning" in str(plan)


def test_a_picture_below_one_step_is_named() -> None:
    with pytest.raises(DatasetError, match=r"4x100 px is too narrow.*crop"):
        make_plan([Picture(4, 100)], MixSettings({512: 1}), scale=0.125, step=8, seed=0)


def test_a_side_below_one_step_is_refused() -> None:
    with pytest.raises(PlanError, match="less than one step of 8 px; sides of at least 64"):
        make_plan([Picture(64, 64)], MixSettings({32: 1}), scale=0.125, step=8, seed=0)


def test_a_mix_may_ask_for_coarser_buckets_than_the_bases_tokens() -> None:
    pictures = [Picture(1000, 700), Picture(600, 900)]
    plan = make_plan(pictures, MixSettings(repeats={512: 1}, bucket_step=64), scale=0.125, step=2, seed=0)
    assert all(
        edge % 8 == 0 for side in plan.sides for bucket in side.buckets for edge in (bucket.width, bucket.height)
    )
    with pytest.raises(PlanError, match="multiple of 16 px here, got 24"):
        make_plan(pictures, MixSettings(repeats={512: 1}, bucket_step=24), scale=1.0, step=16, seed=0)


def test_tokens_per_image_weigh_sides_by_repeats() -> None:
    plan = make_plan([Picture(128, 128)], MixSettings({512: 3, 1024: 1}), scale=0.125, step=8, seed=0)
    assert plan.tokens_per_image == (3 * 64 + 256) / 4
