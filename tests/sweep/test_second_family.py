"""The other family through the same door: a FLUX.2 klein of random weights."""

from pathlib import Path

import pytest

from tests.sweep.conftest import ROOT, command
from tests.tiny_flux import SCALE
from tests.tiny_klein import make_tiny_klein
from trainer.export import read_lora

PROMPTS = "[{text: a girl, width: 512, height: 512},{text: a boat, seed: 1, width: 512, height: 512}]"


@pytest.mark.slow
def test_a_klein_is_trained_and_drawn_with_and_its_noise_is_not_scored(tmp_path: Path) -> None:
    """A judge that gave noise a composition would be wrong: the run ends there, and keeps the LoRA."""
    base = make_tiny_klein(tmp_path / "klein")
    words = (f"base.path={base}", f"base.scale={SCALE}", "base.max_text_tokens=24", "train.lora.layers=[]")
    small = ("train.budget.images_seen=16", "train.checkpoints=1", "data.limit=8", "track=off", "sample.steps=2")
    places = (f"eval.prompts={PROMPTS}", f"study.folder={tmp_path}/multirun")
    ran = command("-m", "sweep", *words, *small, *places, cwd=ROOT)
    assert "sample 0/2  step" in ran.out, ran.text
    assert ran.code == 2 and "composition cannot be measured" in ran.text, ran.text
    (lora,) = (tmp_path / "multirun" / "single").glob("*/training/*/step_*/lora.safetensors")
    assert any("single_transformer_blocks" in name for name in read_lora(lora))
