"""What one training and sampling leaves in memory, the hundredth leaves no more of."""

import gc
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensor

from trainer.examples import read_examples
from trainer.flux import FluxBase
from trainer.loop import train
from trainer.sample import sample
from trainer.settings import BudgetSettings, CaptionSettings, LoraSettings, MixSettings, Prompt, SampleSettings
from trainer.settings import TrainSettings as Settings


def _tensors() -> tuple[int, int]:
    """How many tensors are alive, and their bytes."""
    gc.collect()
    # By type, as isinstance() asks every object for its class, which loads what is lazy. Those of torch's compiler,
    # left behind by another test, stand for tensors and have no bytes.
    alive = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor) and type(each) is not FakeTensor]
    return len(alive), sum(each.nbytes for each in alive)


def test_trainings_and_samples_leave_nothing_behind(base: FluxBase, picture_folder: Path, tmp_path: Path) -> None:
    examples, prompts = read_examples(picture_folder), [Prompt(text="a red house"), Prompt(text="a hand", seed=1)]
    found = []
    for number in range(4):
        settings = Settings(lora=LoraSettings(rank=2), budget=BudgetSettings(4), checkpoints=1, seed=number)
        (checkpoint,) = train(
            base=base,
            examples=examples,
            captions=CaptionSettings(),
            mix=MixSettings({256: 1}, batch_size=2),
            settings=settings,
            folder=tmp_path / str(number),
            cache=tmp_path / "cache",
        )
        sample(base, prompts, SampleSettings(steps=2), lora=checkpoint.lora, strength=0.5)
        del checkpoint
        found.append(_tensors())
    assert len(set(found[1:])) == 1  # the first may have what is kept for good: prompts, places


def test_no_more_texts_are_remembered_than_have_a_place(base: FluxBase) -> None:
    before = len(base._texts)
    for number in range(70):
        base.encode_text([f"a house {number}"])
    assert before <= len(base._texts) <= 64
