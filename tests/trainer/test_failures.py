"""What goes wrong in a training ends it with a message, and the last good checkpoint stays."""

import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainer.examples import read_examples
from trainer.flux import FluxBase
from trainer.loop import TrainingError, train
from trainer.sample import SamplingError, sample
from trainer.settings import (
    BudgetSettings,
    CaptionSettings,
    LoraSettings,
    MixSettings,
    OptimizerSettings,
    Prompt,
    SampleSettings,
    TrainSettings,
)

SETTINGS = TrainSettings(
    lora=LoraSettings(rank=2),
    optimizer=OptimizerSettings(learning_rate=1e-2, warmup_steps=2),
    budget=BudgetSettings(steps=4),
    checkpoints=2,
)


@pytest.fixture
def run(base: FluxBase, picture_folder: Path, tmp_path: Path) -> Callable[..., Any]:
    def start(settings: TrainSettings = SETTINGS, name: str = "run") -> Any:
        return train(
            base=base,
            examples=read_examples(picture_folder),
            captions=CaptionSettings(),
            mix=MixSettings({512: 1}, batch_size=2),
            settings=settings,
            folder=tmp_path / name,
            cache=tmp_path / "cache",
        )

    return start


def _breaking(base: FluxBase, monkeypatch: pytest.MonkeyPatch, after: int, broken: Callable[..., Any]) -> None:
    """Have the base's prediction replaced from a call on."""
    calls = iter(range(10**6))
    whole = base.predict

    def predict(*arguments: Any, **named: Any) -> Any:
        return broken(whole, *arguments, **named) if next(calls) >= after else whole(*arguments, **named)

    monkeypatch.setattr(base, "predict", predict)


def test_a_loss_that_is_no_number_names_the_step_and_keeps_the_checkpoint(
    run: Callable[..., Any], base: FluxBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(run(name="whole"))
    _breaking(base, monkeypatch, 3, lambda whole, *a, **n: whole(*a, **n) * float("nan"))
    training = run()
    kept = next(training)
    with pytest.raises(TrainingError, match=r"loss is nan at step 4.*the checkpoint at step 2 is kept"):
        next(training)
    monkeypatch.undo()
    assert kept.lora.is_file()
    assert _equal(load_file(list(run())[-1].lora), load_file(whole[-1].lora))


def test_a_gradient_that_is_no_number_ends_the_training_before_it_spoils_a_checkpoint(
    run: Callable[..., Any], base: FluxBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_bad_gradient(whole: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        found = whole(*arguments, **named)
        found.register_hook(lambda gradient: gradient * float("inf"))
        return found

    _breaking(base, monkeypatch, 3, with_a_bad_gradient)
    training = run(replace(SETTINGS, optimizer=replace(SETTINGS.optimizer, max_grad_norm=0.0)))
    next(training)
    with pytest.raises(TrainingError, match=r"gradient's length is .* at step 4.*the checkpoint at step 2 is kept"):
        next(training)


def test_memory_that_runs_out_says_what_would_fit(
    run: Callable[..., Any], base: FluxBase, monkeypatch: pytest.MonkeyPatch, weights_of: Callable[[], Any]
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    before = weights_of()
    _breaking(base, monkeypatch, 2, full)
    monkeypatch.setattr("trainer.memory.device_gigabytes", lambda device: 900.0)
    training = run()
    next(training)
    with pytest.raises(TrainingError, match=r"out of memory after step 2: .*lower `?mix\.batch_size.*step 2 is kept"):
        next(training)
    monkeypatch.undo()
    assert weights_of() == before
    assert [checkpoint.step for checkpoint in run()] == [2, 4]


def test_memory_that_runs_out_while_the_validation_loss_is_read_says_so_too(
    run: Callable[..., Any], base: FluxBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    _breaking(base, monkeypatch, 2, full)
    with pytest.raises(TrainingError, match=r"out of memory after step 2: .*there is no earlier checkpoint"):
        next(run(replace(SETTINGS, validation=1)))


def test_a_sampler_that_runs_out_of_memory_says_what_to_lower(base: FluxBase, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(base, "predict", full)
    with pytest.raises(SamplingError, match=r"2 pictures.*lower `sample\.batch_size` \(4\)"):
        sample(base, [Prompt("a hand"), Prompt("a heart")], SampleSettings(steps=1, batch_size=4))


def test_a_disk_that_is_full_leaves_the_checkpoint_before_valid(run: Callable[..., Any], tmp_path: Path) -> None:
    """The limit on a file's size fails a write half-way through, as a full disk does."""
    whole = list(run(name="whole"))
    training = run()
    first = next(training)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(TrainingError, match=r"step 4 could not be written .*the checkpoint at step 2 is kept"):
            next(training)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert load_file(first.lora) and not list((tmp_path / "run").glob(".part-*"))
    assert _equal(load_file(list(run())[-1].lora), load_file(whole[-1].lora))


def test_a_broken_state_is_not_taken_for_a_checkpoint(run: Callable[..., Any], tmp_path: Path) -> None:
    first = next(run())
    (tmp_path / "run" / ".part-left").mkdir()
    (tmp_path / "run" / ".part-left" / "lora.safetensors").write_bytes(b"half")
    assert [
        checkpoint.step for checkpoint in run(replace(SETTINGS, budget=BudgetSettings(steps=2), checkpoints=1))
    ] == [2]
    assert first.lora.is_file() and not (tmp_path / "run" / ".part-left").exists()


def _equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
