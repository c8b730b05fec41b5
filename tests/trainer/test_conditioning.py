"""What depends on noise level, guidance and texts alone is computed once, and changes no picture."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.tiny_flux import SCALE
from tests.tiny_klein import make_tiny_klein
from trainer.base import load_base
from trainer.conditioning import Conditioning
from trainer.flux import FluxBase
from trainer.sample import sample
from trainer.settings import BaseSettings, Prompt, SampleSettings

SETTINGS = SampleSettings(steps=3, guidance=3.5, batch_size=2)
PROMPTS = [Prompt("a red heart", seed=3), Prompt("a house", 4), Prompt("a hand", 3)]  # two batches
MODULATION = "single_transformer_blocks.0.norm.linear"
TIME = "time_text_embed.timestep_embedder.linear_1"


@pytest.fixture(params=["flux", "klein"])
def settings(request: pytest.FixtureRequest, tiny_settings: BaseSettings, tmp_path: Path) -> BaseSettings:
    if request.param == "flux":
        return tiny_settings
    return BaseSettings(path=str(make_tiny_klein(tmp_path)), scale=SCALE, device="cpu", max_text_tokens=24)


@contextmanager
def counted(base: FluxBase) -> Iterator[Counter[str]]:
    """How often each linear layer is called."""
    calls: Counter[str] = Counter()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name, module in base.transformer.named_modules()
        if isinstance(module, nn.Linear)
    ]
    yield calls
    for hook in hooks:
        hook.remove()


def _plain(settings: BaseSettings) -> FluxBase:
    base = load_base(settings)
    base._conditioning = None
    return base


def test_a_second_drawing_computes_what_sees_the_picture_alone_and_is_the_same(settings: BaseSettings) -> None:
    base = load_base(settings)
    with counted(base) as first:
        once = sample(base, PROMPTS, SETTINGS)
    with counted(base) as second:
        twice = sample(base, PROMPTS, SETTINGS)
    drawn = sample(_plain(settings), PROMPTS, SETTINGS)
    assert all(torch.equal(x, y) and torch.equal(y, z) for x, y, z in zip(once, twice, drawn, strict=True))
    spared = {name for name in first if name not in second}
    assert {name for name in second if second[name] != first[name]} == set()
    assert "norm_out.linear" in spared and any("timestep_embedder" in name for name in spared)
    assert all(".attn." not in name and ".ff" not in name and "x_embedder" not in name for name in spared)
    adaptive = {name for name in first if "modulation" in name or ".norm" in name}
    assert adaptive and adaptive <= spared


def test_texts_are_projected_once(tiny_settings: BaseSettings) -> None:
    base = load_base(tiny_settings)
    with counted(base) as calls:
        sample(base, PROMPTS, SETTINGS)
        sample(base, PROMPTS, SETTINGS)
    assert calls["context_embedder"] == 2  # batches


def test_other_guidance_texts_and_steps_are_computed_anew(settings: BaseSettings) -> None:
    base = load_base(settings)
    sample(base, PROMPTS, SETTINGS)
    others = [
        (PROMPTS, replace(SETTINGS, guidance=2.0)),
        ([replace(PROMPTS[0], text="a skull"), *PROMPTS[1:]], SETTINGS),
        (PROMPTS, replace(SETTINGS, steps=2)),
        (PROMPTS, replace(SETTINGS, batch_size=3)),
    ]
    for prompts, asked in others:
        expected = sample(_plain(settings), prompts, asked)
        assert all(torch.equal(x, y) for x, y in zip(sample(base, prompts, asked), expected, strict=True))


@pytest.mark.parametrize("layer", [MODULATION, TIME])
def test_a_lora_that_acts_there_is_not_passed_over(tiny_settings: BaseSettings, tmp_path: Path, layer: str) -> None:
    base = load_base(tiny_settings)
    plain = sample(base, PROMPTS, SETTINGS)
    linear = base.transformer.get_submodule(layer)
    generator = torch.Generator().manual_seed(0)
    weights = {
        f"transformer.{layer}.lora_A.weight": torch.randn(2, linear.in_features, generator=generator),
        f"transformer.{layer}.lora_B.weight": torch.randn(linear.out_features, 2, generator=generator),
    }
    save_file(weights, tmp_path / "lora.safetensors")
    with_it = sample(base, PROMPTS, SETTINGS, lora=tmp_path / "lora.safetensors", strength=0.1)
    expected = sample(_plain(tiny_settings), PROMPTS, SETTINGS, lora=tmp_path / "lora.safetensors", strength=0.1)
    assert all(torch.equal(x, y) for x, y in zip(with_it, expected, strict=True))
    assert (with_it[0] - plain[0]).abs().max() > 1e-3
    assert all(torch.equal(x, y) for x, y in zip(sample(base, PROMPTS, SETTINGS), plain, strict=True))


def test_what_finds_no_room_is_computed_again() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    calls: Counter[str] = Counter()
    for name, module in model.named_children():
        module.register_forward_hook(lambda *_, name=name: calls.update(name))
    conditioning = Conditioning(model, "0", "1", most_bytes=3 * 8 * 4)
    x = torch.randn(3, 4)
    with torch.no_grad():
        for _ in range(2):
            with conditioning.once("of the first", "of the second"):
                model(x)
    assert calls == {"0": 1, "1": 2}
    assert [type(module) for module in model] == [nn.Linear, nn.Linear]


@pytest.mark.parametrize("how", ["offload", "compile"])
def test_a_base_in_parts_or_compiled_keeps_nothing(tiny_settings: BaseSettings, how: str) -> None:
    assert load_base(tiny_settings)._conditioning is not None
    assert load_base(replace(tiny_settings, **{how: True}))._conditioning is None
