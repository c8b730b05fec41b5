"""What can be chosen about a training: each choice acts, repeats itself, and goes on bit by bit after a stop."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from trainer.checkpoints import Checkpoint
from trainer.examples import Example, read_examples
from trainer.flow import draw_sigmas
from trainer.flux import FluxBase
from trainer.loop import train
from trainer.loss import picture_losses
from trainer.sample import sample
from trainer.settings import (
    BudgetSettings,
    CaptionSettings,
    FileDtype,
    Kind,
    LoraSettings,
    Loss,
    MixSettings,
    OptimizerName,
    OptimizerSettings,
    Prompt,
    SampleSettings,
    Strategy,
    Targets,
    TimestepDensity,
    TrainSettings,
)

SETTINGS = TrainSettings(
    lora=LoraSettings(rank=2, targets=Targets.attention),
    optimizer=OptimizerSettings(learning_rate=1e-2, warmup_steps=2),
    budget=BudgetSettings(steps=4),
    checkpoints=2,
)
MIX = MixSettings({512: 1}, batch_size=2)
LIBRARIES = {OptimizerName.adamw8bit: "bitsandbytes", OptimizerName.prodigy: "prodigyopt"}


@pytest.fixture(scope="module")
def examples(picture_folder: Path) -> list[Example]:
    return read_examples(picture_folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(base: FluxBase, examples: list[Example], cache: Path, tmp_path: Path) -> Callable[..., Any]:
    def start(name: str = "run", settings: TrainSettings = SETTINGS, **changes: Any) -> Any:
        asked = {"examples": examples, "captions": CaptionSettings(), "mix": MIX, "cache": cache, **changes}
        return train(base=base, settings=settings, folder=tmp_path / name, **asked)

    return start


def _last(checkpoints: Any) -> dict[str, torch.Tensor]:
    return load_file(list(checkpoints)[-1].lora)


def _equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


CHOICES = {
    "adafactor": {"optimizer": OptimizerSettings(OptimizerName.adafactor, 1e-2)},
    "prodigy": {"optimizer": OptimizerSettings(OptimizerName.prodigy, 1.0)},
    "adamw8bit": {"optimizer": OptimizerSettings(OptimizerName.adamw8bit, 1e-2)},
    "ema": {"ema": 0.9},
    "rank_dropout": {"lora": LoraSettings(rank=4, rank_dropout=0.5, targets=Targets.all_linear)},
    "dora": {"lora": LoraSettings(rank=2, kind=Kind.dora, targets=Targets.attention)},
    "lokr": {"lora": LoraSettings(rank=2, kind=Kind.lokr, targets=Targets.attention)},
    "huber": {"loss": Loss.huber, "huber_delta": 0.01},
    "logit_normal": {"timesteps": TimestepDensity.logit_normal, "logit_mean": 1.0},
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_acts_and_a_stopped_training_goes_on_to_the_same_end(
    name: str, run: Callable[..., Any], base: FluxBase, weights_of: Callable[[], dict[str, object]]
) -> None:
    settings = replace(SETTINGS, **CHOICES[name])
    library = LIBRARIES.get(settings.optimizer.name)
    if library and find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    before = weights_of()
    whole = _last(run("whole", settings))
    stopped = run("stopped", settings)
    next(stopped)
    stopped.close()
    assert weights_of() == before
    assert _equal(whole, _last(run("stopped", settings)))
    assert all(weight.isfinite().all() for weight in whole.values())
    plain = _last(run("plain", replace(SETTINGS, lora=replace(settings.lora, kind=Kind.lora, rank_dropout=0.0))))
    assert not _equal(whole, plain)


def test_all_choices_at_once_killed_at_any_moment_end_in_the_same_file(
    run: Callable[..., Any], examples: list[Example], tmp_path: Path
) -> None:
    """A process of its own that is killed for good, three times; the file is the same byte by byte."""
    asked: dict[str, Any] = {
        "captions": CaptionSettings(Strategy.original, dropout=0.3, shuffle_tags=True),
        "mix": MixSettings({256: 1, 512: 2}, batch_size=2, gradient_accumulation=2, random_side=True),
        "settings": replace(
            SETTINGS,
            optimizer=OptimizerSettings(OptimizerName.prodigy, 1.0),
            lora=LoraSettings(rank=4, rank_dropout=0.3),
            ema=0.9,
            validation=1,
            checkpoints=4,
        ),
    }
    whole = list(run("whole", **asked))
    for checkpoint in whole[1:]:
        process = os.fork()
        if process == 0:
            for _ in run("killed", **asked):
                pass
            os._exit(0)
        place = tmp_path / "killed" / checkpoint.lora.parent.name
        deadline = time.monotonic() + 60
        while not place.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    goes_on = list(run("killed", **asked))
    assert [c.lora.read_bytes() for c in goes_on] == [c.lora.read_bytes() for c in whole]
    assert [c.losses for c in goes_on] == [c.losses for c in whole]
    assert [c.validation for c in goes_on] == [c.validation for c in whole]


@pytest.mark.parametrize("kind", list(Kind))
def test_a_file_of_every_kind_draws_another_picture_and_less_at_half_strength(
    kind: Kind, run: Callable[..., Any], base: FluxBase
) -> None:
    settings = replace(SETTINGS, lora=LoraSettings(rank=2, kind=kind, targets=Targets.diffusers))
    lora = list(run("run", settings))[-1].lora
    asked = SampleSettings(steps=2)
    plain, half, full = (
        sample(base, [Prompt("a house")], asked, lora=lora, strength=strength)[0] for strength in (0.0, 0.5, 1.0)
    )
    assert 0 < (half - plain).abs().mean() < (full - plain).abs().mean()


def test_a_checkpoint_of_the_average_leaves_the_training_as_it_was(run: Callable[..., Any]) -> None:
    averaged = replace(SETTINGS, ema=0.9)
    assert _equal(
        _last(run("one", replace(averaged, checkpoints=1))), _last(run("two", replace(averaged, checkpoints=2)))
    )


def test_the_file_of_a_training_holds_the_average(run: Callable[..., Any]) -> None:
    """Of two steps, the first keeps (1 + 1) / (10 + 1) of the start."""
    settings = replace(SETTINGS, budget=BudgetSettings(steps=1), checkpoints=1)
    start = _last(run("start", replace(settings, optimizer=OptimizerSettings(learning_rate=1e-30, weight_decay=0.0))))
    plain, averaged = _last(run("plain", settings)), _last(run("averaged", replace(settings, ema=0.9)))
    for name in plain:
        assert torch.allclose(averaged[name], start[name] * 2 / 11 + plain[name] * 9 / 11, atol=1e-6)


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_a_file_is_written_in_the_format_asked_for(
    dtype: str, torch_dtype: torch.dtype, run: Callable[..., Any]
) -> None:
    lora = replace(SETTINGS.lora, file_dtype=FileDtype(dtype))
    weights = _last(run("run", replace(SETTINGS, lora=lora)))
    assert {weight.dtype for weight in weights.values()} == {torch_dtype}


def test_huber_is_squared_near_zero_and_linear_beyond() -> None:
    error = torch.tensor([[[0.05, -0.5]]])
    found = picture_losses(Loss.huber, error, delta=0.1, weight=None)
    assert found.item() == pytest.approx((0.05**2 + 2 * 0.1 * 0.5 - 0.1**2) / 2)
    assert picture_losses(Loss.mse, error, delta=0.1, weight=None).item() == pytest.approx((0.05**2 + 0.5**2) / 2)


def test_logit_normal_has_the_mean_and_deviation_asked_for() -> None:
    sigma = draw_sigmas(
        TimestepDensity.logit_normal, 20_000, torch.Generator().manual_seed(0), shift=1.0, mu=0.0, mean=0.7, std=0.5
    )
    assert sigma.logit().mean().item() == pytest.approx(0.7, abs=0.02)
    assert sigma.logit().std().item() == pytest.approx(0.5, abs=0.02)


def _painted(folder: Path, right: str) -> None:
    """A picture whose left half is red and whose right half is hidden; what is hidden differs."""
    picture = Image.new("RGB", (64, 64), "red")
    picture.paste(right, (32, 0, 64, 64))
    picture.save(folder / "a.png")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 24, 64))  # clear of the border, over which the VAE looks
    (folder / "masks").mkdir(exist_ok=True)
    mask.save(folder / "masks" / "a.png")


def test_a_masked_loss_counts_what_is_shown_alone(run: Callable[..., Any], tmp_path: Path) -> None:
    _painted(tmp_path, "blue")
    one_step = replace(SETTINGS, budget=BudgetSettings(steps=1), checkpoints=1)
    captions = CaptionSettings(Strategy.none)
    losses = {}
    for masks in ("", str(tmp_path / "masks")):
        examples = read_examples(tmp_path, masks=masks)
        (checkpoint,) = run(f"masks{bool(masks)}", one_step, examples=examples, captions=captions)
        losses[bool(masks)] = checkpoint.loss
    assert 0.2 * losses[False] < losses[True] < 0.6 * losses[False]  # three eighths of the picture count


def test_dropped_captions_share_one_empty_embedding(run: Callable[..., Any], tmp_path: Path) -> None:
    list(run(captions=CaptionSettings(dropout=0.5), cache=tmp_path / "own"))
    assert len(list((tmp_path / "own" / "texts").iterdir())) == 4 + 1  # each picture's caption, and the empty one


def test_every_text_is_encoded_before_the_first_step(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = run(captions=CaptionSettings(Strategy.original, dropout=0.3), cache=tmp_path / "own")
    next(training)
    monkeypatch.setattr(FluxBase, "encode_text", lambda *_: pytest.fail("a text was encoded in the middle"))
    list(training)


def test_the_validation_loss_is_fixed_and_falls_on_what_is_learned(
    run: Callable[..., Any], examples: list[Example]
) -> None:
    settings = replace(SETTINGS, validation=2, budget=BudgetSettings(steps=30), checkpoints=3)
    one = examples[:1]
    found = [checkpoint.validation for checkpoint in run("one", settings, examples=one)]
    assert found == [checkpoint.validation for checkpoint in run("again", settings, examples=one)]
    assert found[0] > found[1] > found[2]
    other: list[Checkpoint] = list(
        run("other", replace(settings, seed=5, budget=BudgetSettings(steps=1)), examples=one)
    )
    assert other[0].validation == pytest.approx(found[0], rel=0.2)  # the same noise whatever the seed
    held_out = list(run("held", settings, examples=one, held_out=examples[2:]))
    assert held_out[0].validation != found[0]


def test_the_validation_loss_knows_nothing_of_what_a_training_leaves_out(run: Callable[..., Any]) -> None:
    first = replace(SETTINGS, validation=2, budget=BudgetSettings(steps=1), checkpoints=1)
    still = replace(first, optimizer=OptimizerSettings(learning_rate=1e-30, weight_decay=0.0))
    (plain,) = run("plain", still, captions=CaptionSettings(Strategy.original))
    dropping = replace(still, lora=replace(still.lora, rank_dropout=0.5))
    (found,) = run("dropping", dropping, captions=CaptionSettings(Strategy.original, dropout=1.0))
    assert found.validation == plain.validation


def test_a_training_of_seconds_ends_and_goes_on(run: Callable[..., Any]) -> None:
    short = list(run("timed", replace(SETTINGS, budget=BudgetSettings(seconds=0.5))))
    assert short and sum(checkpoint.seconds for checkpoint in short) >= 0.5
    again = list(run("timed", replace(SETTINGS, budget=BudgetSettings(seconds=0.5))))
    assert [checkpoint.step for checkpoint in again] == [checkpoint.step for checkpoint in short]
    longer = list(run("timed", replace(SETTINGS, budget=BudgetSettings(seconds=1.5))))
    assert longer[-1].step > short[-1].step
    by_steps = _last(run("steps", replace(SETTINGS, budget=BudgetSettings(steps=longer[-1].step))))
    assert _equal(by_steps, load_file(longer[-1].lora))
