"""The same lines on an accelerator; skipped where there is none."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainer import load_base, read_examples, train
from trainer.sample import sample
from trainer.settings import (
    BaseSettings,
    BudgetSettings,
    CaptionSettings,
    Dtype,
    LoraSettings,
    MixSettings,
    OptimizerName,
    OptimizerSettings,
    Prompt,
    Quantize,
    SampleSettings,
    TrainSettings,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("dtype", list(Dtype))
@pytest.mark.parametrize("offload", [False, True])
def test_training_and_sampling_run_and_repeat_on_cuda(
    tiny_settings: BaseSettings, picture_folder: Path, tmp_path: Path, dtype: Dtype, offload: bool
) -> None:
    base = load_base(replace(tiny_settings, device="cuda", dtype=dtype, offload=offload))
    settings = TrainSettings(lora=LoraSettings(rank=2), budget=BudgetSettings(12), checkpoints=1)
    ends = []
    for name in ("first", "again"):
        training = train(
            base=base,
            examples=read_examples(picture_folder),
            captions=CaptionSettings(),
            mix=MixSettings({256: 1, 512: 2}, batch_size=2),
            settings=settings,
            folder=tmp_path / name,
            cache=tmp_path / "cache",
        )
        ends.append(next(training))
    first, again = (load_file(end.lora) for end in ends)
    assert all(torch.equal(first[name], again[name]) for name in first)
    (picture,) = sample(base, [Prompt("a red heart")], SampleSettings(steps=2), lora=ends[0].lora)
    assert picture.device.type == "cpu" and picture.isfinite().all()


@pytest.mark.parametrize("quantize", list(Quantize))
@pytest.mark.filterwarnings("ignore")  # of the libraries' own
def test_packed_weights_train_and_the_peak_is_measured(
    tiny_settings: BaseSettings, picture_folder: Path, tmp_path: Path, quantize: Quantize
) -> None:
    library = {Quantize.nf4: "bitsandbytes", Quantize.int8: "torchao"}.get(quantize, "torch")
    pytest.importorskip(library)
    base = load_base(replace(tiny_settings, device="cuda", dtype=Dtype.bfloat16, quantize=quantize, offload=True))
    torch.empty(2**30, dtype=torch.uint8, device="cuda")  # what came before is not this training's
    (checkpoint,) = train(
        base=base,
        examples=read_examples(picture_folder),
        captions=CaptionSettings(),
        mix=MixSettings({512: 1}, batch_size=2),
        settings=TrainSettings(budget=BudgetSettings(8), checkpoints=1, gradient_checkpointing=True),
        folder=tmp_path / "run",
        cache=tmp_path / "cache",
    )
    assert 0 < checkpoint.peak_bytes < 2**30
    assert all(weight.isfinite().all() for weight in load_file(checkpoint.lora).values())


def test_streamed_blocks_train_as_resident_ones(
    tiny_settings: BaseSettings, picture_folder: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(budget=BudgetSettings(8), checkpoints=1, gradient_checkpointing=True)
    ends = []
    for streamed in (False, True):
        base = load_base(replace(tiny_settings, device="cuda", group_offload=streamed))
        training = train(
            base=base,
            examples=read_examples(picture_folder),
            captions=CaptionSettings(),
            mix=MixSettings({512: 1}, batch_size=2),
            settings=settings,
            folder=tmp_path / str(streamed),
            cache=tmp_path / "cache",
        )
        ends.append(load_file(next(training).lora))
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=1e-5) for name in ends[0])


@pytest.mark.parametrize("name", list(OptimizerName))
def test_every_optimiser_steps_on_cuda(
    tiny_settings: BaseSettings, picture_folder: Path, tmp_path: Path, name: OptimizerName
) -> None:
    pytest.importorskip(
        {OptimizerName.adamw8bit: "bitsandbytes", OptimizerName.prodigy: "prodigyopt"}.get(name, "torch")
    )
    training = train(
        base=load_base(replace(tiny_settings, device="cuda")),
        examples=read_examples(picture_folder),
        captions=CaptionSettings(),
        mix=MixSettings({512: 1}, batch_size=2),
        settings=TrainSettings(optimizer=OptimizerSettings(name, learning_rate=1.0 if name == "prodigy" else 1e-2)),
        folder=tmp_path / "run",
        cache=tmp_path / "cache",
    )
    assert all(weight.isfinite().all() for weight in load_file(next(training).lora).values())
