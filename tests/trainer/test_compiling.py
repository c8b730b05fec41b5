"""Compiled blocks compute what plain ones do, with any LoRA in them, and are made once."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from trainer.base import load_base
from trainer.compiling import compile_blocks
from trainer.examples import read_examples
from trainer.extras import missing_extras, unusable_together
from trainer.flux import FluxBase
from trainer.loop import train
from trainer.sample import sample
from trainer.settings import (
    BaseSettings,
    BudgetSettings,
    CaptionSettings,
    LoraSettings,
    MixSettings,
    OptimizerSettings,
    Prompt,
    SampleSettings,
    TrainSettings,
)

SETTINGS = TrainSettings(optimizer=OptimizerSettings(learning_rate=1e-2), budget=BudgetSettings(steps=3), checkpoints=1)
PROMPTS = [Prompt(text="a red heart", seed=1), Prompt(text="a boat", seed=2)]
Work = Callable[[FluxBase, int, str], tuple[list[float], list[Tensor]]]


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What is compiled in a test is none of the next one's: torch keeps it, with tensors that have no size."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def work(picture_folder: Path, tmp_path: Path) -> Work:
    """A training and samples of its LoRA -> losses and pictures."""

    def run(base: FluxBase, rank: int, name: str) -> tuple[list[float], list[Tensor]]:
        (made,) = train(
            base=base,
            examples=read_examples(picture_folder),
            captions=CaptionSettings(),
            mix=MixSettings({512: 1, 768: 1}, batch_size=2),
            settings=replace(SETTINGS, lora=LoraSettings(rank=rank)),
            folder=tmp_path / name,
            cache=tmp_path / "cache",
        )
        return made.losses, sample(base, PROMPTS, SampleSettings(steps=2), lora=made.lora)

    return run


@pytest.mark.usefixtures("forgotten")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch hides its own warning, but not from `error`
def test_compiled_blocks_compute_what_plain_ones_do_and_are_made_once(tiny_settings: BaseSettings, work: Work) -> None:
    plain, compiled = load_base(tiny_settings), load_base(replace(tiny_settings, compile=True))
    compile_blocks(compiled.transformer, backend="aot_eager")  # again, by who makes it in seconds
    for rank in (2, 4):
        expected, found = work(plain, rank, f"plain{rank}"), work(compiled, rank, f"compiled{rank}")
        assert found[0] == pytest.approx(expected[0], rel=1e-4)
        for ours, theirs in zip(found[1], expected[1], strict=True):
            assert torch.allclose(ours, theirs, atol=1e-4)
    made = counters["stats"]["unique_graphs"]
    assert made
    work(compiled, 2, "again")
    assert counters["stats"]["unique_graphs"] == made, "a third LoRA in the same blocks compiles nothing"


def test_a_base_is_compiled_when_it_is_asked_for(tiny_settings: BaseSettings) -> None:
    base = load_base(replace(tiny_settings, compile=True))
    for block in (*base.transformer.transformer_blocks, *base.transformer.single_transformer_blocks):
        assert block._compiled_call_impl is not None
    (fault,) = unusable_together(
        replace(tiny_settings, compile=True, group_offload=True), TrainSettings(gradient_checkpointing=True)
    )
    assert "base.compile" in fault and "base.group_offload" in fault


def test_a_machine_without_a_compiler_is_told_before_anything_is_loaded(
    tiny_settings: BaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = replace(tiny_settings, compile=True)
    monkeypatch.setenv("CXX", sys.executable)  # any program will do
    assert not missing_extras(compiled, OptimizerSettings())
    monkeypatch.setenv("CXX", "a-compiler-that-is-gone")
    assert "g++" in missing_extras(compiled, OptimizerSettings())[0]
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    assert "g++" in missing_extras(compiled, OptimizerSettings())[0]
    assert not missing_extras(tiny_settings, OptimizerSettings())
