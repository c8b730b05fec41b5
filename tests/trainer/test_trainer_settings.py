"""Rules of the settings: each error names setting, rule and value; importing costs no torch."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from trainer.settings import (
    BaseSettings,
    BudgetSettings,
    CaptionSettings,
    DataSettings,
    LoraSettings,
    MixSettings,
    OptimizerSettings,
    Prompt,
    SampleSettings,
    Strategy,
    TrainSettings,
)

WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: CaptionSettings(Strategy.none, trigger="antmy"), "captions.trigger=antmy"),
    (lambda: CaptionSettings(Strategy.none, class_phrase="drawing"), "captions.class_phrase=drawing"),
    (lambda: CaptionSettings(max_tokens=0), "captions.max_tokens.*at least 1.*0"),
    (lambda: CaptionSettings(Strategy.trigger), "captions.trigger"),
    (lambda: CaptionSettings(dropout=1.5), "captions.dropout.*between 0.0 and 1.0.*1.5"),
    (lambda: CaptionSettings(Strategy.edited, shuffle_tags=True), "shuffle_tags.*edited"),
    (lambda: CaptionSettings(keep_tokens=-1), "keep_tokens"),
    (lambda: DataSettings(limit=0), "data.limit.*at least 1.*0"),
    (lambda: MixSettings({512: -1}), "mix.repeats.512.*-1"),
    (lambda: MixSettings({512: 0}), "one side at least"),
    (lambda: MixSettings({}), "one side at least"),
    (lambda: MixSettings({512: 1}, batch_sizes={768: 2}), "mix.batch_sizes.768"),
    (lambda: MixSettings({512: 1}, batch_size=0), "mix.batch_size"),
    (lambda: BudgetSettings(0), "budget.images_seen"),
    (lambda: LoraSettings(rank=0), "lora.rank.*at least 1.*0"),
    (lambda: LoraSettings(alpha=0.0), "lora.alpha"),
    (lambda: OptimizerSettings(learning_rate=float("nan")), "learning_rate.*nan"),
    (lambda: OptimizerSettings(betas=[0.9]), "betas"),
    (lambda: TrainSettings(checkpoints=0), "checkpoints"),
    (lambda: BaseSettings(path=" "), "base.path"),
    (lambda: BaseSettings(scale=0.0), "base.scale"),
    (lambda: SampleSettings(steps=0), "sample.steps"),
    (lambda: Prompt("a girl", width=0), "prompt.width"),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_setting_is_refused_by_name_and_value(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_defaults_are_allowed() -> None:
    for settings in (CaptionSettings, DataSettings, MixSettings, TrainSettings, BaseSettings, SampleSettings, Prompt):
        settings()


def test_what_is_checked_before_training_imports_no_torch() -> None:
    code = (
        "import sys, trainer, trainer.settings, trainer.plan, trainer.examples, trainer.captions, trainer.base;"
        " trainer.read_examples, trainer.make_plan, trainer.caption, trainer.BaseError;"
        " sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'peft')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_can_be_had() -> None:
    import trainer

    for name in dir(trainer):
        assert getattr(trainer, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        trainer.nonsense  # noqa: B018
