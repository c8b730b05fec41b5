"""`python -m sweep.plan`: what a training would be, before it costs anything.

Pictures, buckets, what is cropped away at every side, steps per epoch and in all. Same overrides as `python -m sweep`.
"""

from collections.abc import Mapping

from sweep.__main__ import Place, start
from sweep.errors import InputError
from sweep.progress import StepProgress
from sweep.schema import Config


def print_plan(config: Config, place: Place) -> None:
    """Prints the plan of the composed configuration."""
    from trainer.base import find_base, step_px
    from trainer.examples import read_examples
    from trainer.plan import make_plan

    examples = read_examples(config.data.path, limit=config.data.limit, subset_seed=config.data.subset_seed)
    step = step_px(find_base(config.base.path))
    try:
        plan = make_plan(examples, config.mix, scale=config.base.scale, step=step, seed=config.train.seed)
    except ValueError as fault:
        raise InputError(str(fault)) from fault
    steps = StepProgress()
    seen = config.train.budget.images_seen
    steps.say(str(plan))
    steps.say(f"{seen} pictures are seen in all: {seen / plan.images_per_epoch:.1f} epochs")


def check_pictures(configs: Mapping[str, Config]) -> None:
    """What a plan reads: the pictures and the base's files."""
    from sweep.preflight import check_plan

    check_plan(configs)


if __name__ == "__main__":
    start(print_plan, check=check_pictures, keeps_folder=False)
