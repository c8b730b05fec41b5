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
    Prompt,
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
