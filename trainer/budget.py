"""How long a training is: a budget in any unit, counted along a plan.

Pictures, steps, epochs and pixels are known from the plan alone, so two trainings with the same budget end at the same
step on every machine. Seconds are not, and are counted while training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import ceil, inf

from trainer.plan import Batch, Plan
from trainer.settings import BudgetSettings


def images(batches: Sequence[Batch]) -> int:
    """Pictures in the batches."""
    return sum(len(batch.indices) for batch in batches)


def _megapixels(plan: Plan, batches: Sequence[Batch]) -> float:
    """Millions of FLUX px in the batches."""
    pixels = sum(len(batch.indices) * batch.bucket.width * batch.bucket.height for batch in batches)
    return pixels / plan.scale**2 / 1e6


# What a step takes of a budget, by its unit; epochs are counted in pictures.
COSTS: dict[str, Callable[[Plan, Sequence[Batch]], float]] = {
    "images_seen": lambda plan, batches: images(batches),
    "epochs": lambda plan, batches: images(batches),
    "steps": lambda plan, batches: 1,
    "megapixels": _megapixels,
}


def checkpoint_steps(plan: Plan, budget: BudgetSettings, checkpoints: int) -> list[int]:
    """The steps after which a checkpoint is made: the first at or past each even share of the budget.

    Raises:
        ValueError: a budget in seconds, which no plan knows.
    """
    if budget.unit not in COSTS:
        raise ValueError("a budget in seconds ends when they are over, the plan does not know the step")
    ends: list[int] = []
    shares = budget_shares(plan, budget, checkpoints)
    costs = (COSTS[budget.unit](plan, batches) for _, batches in _endless(plan))
    for step, spent in enumerate(accumulate(costs), start=1):
        if spent >= shares[0]:
            ends.append(step)
            shares = [share for share in shares if share > spent]
        if not shares:
            break
    return ends


def budget_shares(plan: Plan, budget: BudgetSettings, checkpoints: int) -> list[float]:
    """How much of the budget is spent at each checkpoint, in its unit (epochs in pictures)."""
    amount = budget.amount * (plan.images_per_epoch if budget.unit == "epochs" else 1)
    even = [amount * number / checkpoints for number in range(1, checkpoints + 1)]
    return [float(ceil(share)) for share in even] if budget.unit in ("images_seen", "steps", "epochs") else even


def training_length(plan: Plan, budget: BudgetSettings) -> tuple[int, int] | None:
    """Optimiser steps and pictures seen in all; None for a budget in seconds."""
    if budget.unit not in COSTS:
        return None
    (end,) = checkpoint_steps(plan, budget, 1)
    return end, sum(images(batches) for _, (_, batches) in zip(range(end), _endless(plan), strict=False))


def _endless(plan: Plan) -> Iterator[tuple[int, list[Batch]]]:
    return plan.steps(inf)
