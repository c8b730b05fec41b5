"""The sampler against FluxPipeline, and its promises about noise, batches and LoRAs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainer.base import BaseError, load_base
from trainer.export import LoraError
from trainer.flux import FluxBase
from trainer.lora import Lora
from trainer.sample import base_images, sample, sampler_sigmas
from trainer.settings import BaseSettings, Kind, LoraSettings, Prompt, SampleSettings, Targets

SETTINGS = SampleSettings(steps=3, guidance=3.5, batch_size=2)
PROMPTS = [Prompt("a red heart", seed=3), Prompt("a house", 4), Prompt("a hand", 3), Prompt("a house", 5, 768, 512)]


@pytest.fixture(scope="module")
def lora_file(base: FluxBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_lora(base, tmp_path_factory.mktemp("lora") / "lora.safetensors", 0.05)


def _write_lora(base: FluxBase, path: Path, up: float) -> Path:
    lora = Lora(base.transformer, LoraSettings(rank=2), seed=0)
    for name, weight in lora.parameters.items():
        if ".lora_B." in name:
            weight.data.fill_(up)
    lora.write(path, {})
    return path


def test_samples_are_those_of_flux_pipeline(base: FluxBase) -> None:
    base.pipeline.set_progress_bar_config(disable=True)
    for prompt, ours in zip(PROMPTS, sample(base, PROMPTS, SETTINGS), strict=True):
        theirs = base.pipeline(
            prompt.text,
            height=prompt.height // 8,
            width=prompt.width // 8,
            num_inference_steps=3,
            guidance_scale=3.5,
            max_sequence_length=8,
            generator=torch.Generator().manual_seed(prompt.seed),
            output_type="pt",
        ).images[0]
        assert ours.shape == (3, prompt.height // 8, prompt.width // 8)
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_sigmas_fall_from_one_to_zero_and_shift_with_size(base: FluxBase) -> None:
    small, large = sampler_sigmas(base, 4, 16), sampler_sigmas(base, 4, 256)
    for sigmas in (small, large):
        assert len(sigmas) == 5 and sigmas[0] == 1 and sigmas[-1] == 0
        assert (sigmas.diff() < 0).all()
    assert (large[1:-1] > small[1:-1]).all()


def test_a_sample_does_not_depend_on_what_it_is_batched_with(base: FluxBase) -> None:
    together = sample(base, PROMPTS, SETTINGS)
    alone = [sample(base, [prompt], SETTINGS)[0] for prompt in PROMPTS]
    assert all(torch.allclose(x, y, atol=1e-4) for x, y in zip(together, alone, strict=True))
    assert (together[0] - together[2]).abs().max() > 1e-3  # same noise, another text
    assert all(torch.equal(x, y) for x, y in zip(together, sample(base, PROMPTS, SETTINGS), strict=True))


def test_an_offloaded_base_has_each_part_on_the_device_once_for_all_pictures(
    tiny_settings: BaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    offloaded = load_base(replace(tiny_settings, offload=True))
    came: list[str] = []
    modules = offloaded._modules
    monkeypatch.setattr(offloaded, "_modules", lambda part: came.append(part) or modules(part))
    sample(offloaded, PROMPTS, SETTINGS)
    assert came[1::2] == ["text", "transformer", "vae"]  # each after what it takes the place of


def test_no_lora_and_strength_zero_are_the_base_exactly(base: FluxBase, lora_file: Path, tmp_path: Path) -> None:
    expected = base_images(base, PROMPTS, SETTINGS, cache=tmp_path)
    for strength in (0.0, 1.0):
        drawn = sample(base, PROMPTS, SETTINGS, lora=lora_file if not strength else None, strength=strength)
        assert all(torch.equal(x, y) for x, y in zip(expected, drawn, strict=True))


def test_a_lora_that_changes_nothing_gives_bit_equal_images(base: FluxBase, tmp_path: Path) -> None:
    nothing = _write_lora(base, tmp_path / "nothing.safetensors", 0.0)
    expected = base_images(base, PROMPTS, SETTINGS, cache=tmp_path)
    drawn = sample(base, PROMPTS, SETTINGS, lora=nothing)
    assert all(torch.equal(x, y) for x, y in zip(expected, drawn, strict=True))


def test_strength_scales_the_change_and_nothing_is_left(
    base: FluxBase, lora_file: Path, weights_of: Callable[[], dict[str, object]]
) -> None:
    before = weights_of()
    plain, weak, strong = (sample(base, PROMPTS, SETTINGS, lora=lora_file, strength=s) for s in (0.0, 0.1, 1.0))
    assert weights_of() == before
    for x, y, z in zip(plain, weak, strong, strict=True):
        assert 0 < (y - x).abs().mean() < (z - x).abs().mean()
        assert z.min() >= 0 and z.max() <= 1


def test_strength_is_that_of_diffusers(base: FluxBase, lora_file: Path) -> None:
    ours = sample(base, PROMPTS[:1], SETTINGS, lora=lora_file, strength=0.7)[0]
    base.pipeline.load_lora_weights(str(lora_file.parent), weight_name=lora_file.name, adapter_name="theirs")
    base.pipeline.set_adapters("theirs", 0.7)
    theirs = sample(base, PROMPTS[:1], SETTINGS)[0]
    base.pipeline.unload_lora_weights()
    base.transformer.requires_grad_(False)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_dora_acts_as_in_diffusers(base: FluxBase, tmp_path: Path) -> None:
    lora = Lora(base.transformer, LoraSettings(rank=2, kind=Kind.dora, targets=Targets.attention), seed=0)
    generator = torch.Generator().manual_seed(0)
    for weight in lora.parameters.values():
        weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    lora.write(tmp_path / "lora.safetensors", {})
    ours = sample(base, PROMPTS[:1], SETTINGS, lora=tmp_path / "lora.safetensors")[0]
    plain = sample(base, PROMPTS[:1], SETTINGS)[0]
    base.pipeline.load_lora_weights(str(tmp_path), weight_name="lora.safetensors", adapter_name="theirs")
    theirs = sample(base, PROMPTS[:1], SETTINGS)[0]
    base.pipeline.unload_lora_weights()
    base.transformer.requires_grad_(False)
    assert (ours - plain).abs().max() > 1e-3
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_base_images_are_drawn_once(base: FluxBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = base_images(base, PROMPTS, SETTINGS, cache=tmp_path)
    monkeypatch.setattr(base, "predict", None)  # whoever draws now fails
    again = base_images(base, PROMPTS, SETTINGS, cache=tmp_path)
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    with pytest.raises(TypeError):
        base_images(base, PROMPTS, SampleSettings(steps=4, batch_size=2), cache=tmp_path)


def test_a_size_the_base_cannot_draw_is_refused(base: FluxBase) -> None:
    with pytest.raises(BaseError, match="multiples of 64 for this base, got 500x512"):
        sample(base, [Prompt("a house", width=500)], SETTINGS)


def test_a_file_that_is_no_lora_is_refused_and_leaves_nothing(
    base: FluxBase, tmp_path: Path, weights_of: Callable[[], dict[str, object]]
) -> None:
    before = weights_of()
    with pytest.raises(LoraError, match="no such LoRA file"):
        sample(base, PROMPTS[:1], SETTINGS, lora=tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("no safetensors")
    with pytest.raises(LoraError, match="not a safetensors file"):
        sample(base, PROMPTS[:1], SETTINGS, lora=tmp_path / "text.safetensors")
    name = "transformer.transformer_blocks.0.attn.to_q"
    for layer, message in ((name, "to_q is 32x32, not 5x4"), (f"{name}.x", "no layer")):
        weights = {f"{layer}.lora_A.weight": torch.ones(1, 4), f"{layer}.lora_B.weight": torch.ones(5, 1)}
        save_file(weights, tmp_path / "other.safetensors")
        with pytest.raises(LoraError, match=f"does not fit this base.*{message}"):
            sample(base, PROMPTS[:1], SETTINGS, lora=tmp_path / "other.safetensors")
    assert weights_of() == before
