"""Budgets in every unit end where the plan says, and a random side is shown as often as its odds."""

from collections import Counter
from dataclasses import dataclass

import pytest

from trainer.budget import checkpoint_steps, images, training_length
from trainer.plan import Plan, make_plan
from trainer.settings import BudgetSettings, MixSettings


@dataclass
class Picture:
    width: int = 64
    height: int = 64


def _plan(mix: MixSettings, count: int = 5) -> Plan:
    return make_plan([Picture()] * count, mix, scale=0.125, step=8, seed=0)


def test_each_unit_ends_at_the_step_that_reaches_it() -> None:
    plan = _plan(MixSettings({512: 2}, batch_size=2))  # 10 pictures an epoch in 5 steps, each 0.52 megapixels
    assert training_length(plan, BudgetSettings(12)) == (6, 12)
    assert training_length(plan, BudgetSettings(steps=7)) == (7, 14)
    assert training_length(plan, BudgetSettings(epochs=2)) == (10, 20)
    assert training_length(plan, BudgetSettings(epochs=0.5)) == (3, 6)
    assert training_length(plan, BudgetSettings(megapixels=4 * 2 * 512 * 512 / 1e6)) == (4, 8)
    assert training_length(plan, BudgetSettings(seconds=60)) is None


def test_pixels_weigh_sides_by_their_area() -> None:
    small, large = (_plan(MixSettings({side: 1}, batch_size=1, no_upscale=False)) for side in (256, 512))
    budget = BudgetSettings(megapixels=2.0)
    assert training_length(small, budget)[0] == pytest.approx(4 * training_length(large, budget)[0], abs=4)


def test_checkpoints_are_even_in_the_budgets_unit() -> None:
    plan = _plan(MixSettings({512: 2}, batch_size=2))
    assert checkpoint_steps(plan, BudgetSettings(steps=9), 3) == [3, 6, 9]
    assert checkpoint_steps(plan, BudgetSettings(epochs=4), 2) == [10, 20]


def test_two_units_are_refused_and_one_takes_the_place_of_images() -> None:
    assert (BudgetSettings(steps=5).unit, BudgetSettings(steps=5).amount) == ("steps", 5)
    with pytest.raises(ValueError, match="steps and seconds"):
        BudgetSettings(steps=5, seconds=3.0)
    with pytest.raises(ValueError, match=r"budget\.epochs"):
        BudgetSettings(epochs=0)


def test_a_random_side_shows_each_picture_once_an_epoch_by_the_repeats_odds() -> None:
    plan = _plan(MixSettings({256: 1, 512: 3, 768: 0}, batch_size=2, random_side=True), count=20)
    assert plan.images_per_epoch == 20 and "random side" in str(plan)
    shown: Counter[int] = Counter()
    for epoch in range(60):
        batches = plan.batches(epoch)
        assert sorted(index for batch in batches for index in batch.indices) == list(range(20))
        assert batches == plan.batches(epoch)
        for batch in batches:
            shown[batch.side] += len(batch.indices)
    assert shown[512] / shown[256] == pytest.approx(3, rel=0.2)
    assert plan.batches_per_epoch == len(plan.batches(0))
    assert images(plan.batches(0)) == 20


def test_every_side_takes_its_own_batch_size_and_steps_gather_batches() -> None:
    plan = _plan(MixSettings({256: 1, 512: 1}, batch_size=4, batch_sizes={512: 1}, gradient_accumulation=3), count=4)
    sizes = Counter((batch.side, len(batch.indices)) for batch in plan.batches(0))
    assert sizes == {(256, 4): 1, (512, 1): 4}
    assert plan.steps_per_epoch == 2
