"""`python -m sweep.plan`: what a training would be, before it costs anything.

Pictures, captions, buckets, what is cropped away at every side, steps per epoch and in all, what it would cost in
arithmetic, time and memory, and what to look at first. Same overrides as `python -m sweep`.
"""

from collections.abc import Mapping

from sweep.door import Place, start
from sweep.errors import InputError
from sweep.examples import with_captions
from sweep.plan_tree import plan_tree
from sweep.schema import Config


def print_plan(config: Config, place: Place) -> None:
    """Prints the plan of the composed configuration as a tree; for a known base its weights need not be here."""
    from rich.console import Console

    from trainer.base import BaseError, find_base, step_px
    from trainer.estimate import KNOWN_STEP, known_shape, read_shape
    from trainer.examples import read_examples
    from trainer.plan import make_plan

    data, base = config.data, config.base
    examples = read_examples(data.path, limit=data.limit, subset_seed=data.subset_seed, masks=data.masks)
    examples = with_captions(config, examples)
    absent = ""
    try:
        folder = find_base(base)
        shape, step = read_shape(folder), step_px(folder)
    except BaseError as fault:
        known = known_shape(base)
        if known is None:
            raise
        shape, step, absent = known, KNOWN_STEP, str(fault)
    try:
        plan = make_plan(examples, config.mix, scale=base.scale, step=step, seed=config.train.seed)
    except ValueError as fault:
        raise InputError(str(fault)) from fault
    console = Console(highlight=False, markup=False)
    console.print(plan_tree(config, examples, plan, shape))
    if absent:
        console.print(f"\nTo train, the weights are needed. {absent}")


def check_pictures(configs: Mapping[str, Config]) -> None:
    """What a plan reads: the pictures and the base's files."""
    from sweep.preflight import check_plan

    check_plan(configs)


if __name__ == "__main__":
    start(print_plan, check=check_pictures, keeps_folder=False)
