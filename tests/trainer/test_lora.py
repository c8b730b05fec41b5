"""The LoRA's layers, start and file; the base is as it was when it is out."""

from collections.abc import Callable

import pytest
import torch
from diffusers import FluxTransformer2DModel

from trainer.base import Family
from trainer.flux import FluxBase
from trainer.lora import Lora, target_layers
from trainer.settings import LoraSettings, Targets
from trainer.targets import TargetsError, layer_widths

SIZE = (8, 8)


def _predict(base: FluxBase) -> torch.Tensor:
    x = torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return base.predict(x, torch.tensor([0.4]), base.encode_text(["a red heart"]), SIZE, guidance=1.0)


@pytest.mark.parametrize(("targets", "count"), [("attention", 190), ("diffusers", 342), ("all_linear", 418)])
def test_targets_of_flux_dev_are_counted_right(targets: str, count: int) -> None:
    with torch.device("meta"):
        flux = FluxTransformer2DModel(guidance_embeds=True)  # the defaults are FLUX.1-dev's sizes
    layers = target_layers(flux, LoraSettings(targets=Targets(targets)))
    assert all(isinstance(flux.get_submodule(layer), torch.nn.Linear) for layer in layers)
    assert len(layers) == count
    assert not any("norm" in layer for layer in layers) and "proj_out" not in layers


@pytest.mark.parametrize(
    ("patterns", "count"),
    [
        (["single_transformer_blocks.*"], 38 * 5),
        (["transformer_blocks.?.*"], 10 * 12),
        (["*.attn.to_q", "*.proj_mlp"], 57 + 38),
        (["single_transformer_blocks.7.*", "single_transformer_blocks.20.*"], 10),
    ],
)
def test_patterns_narrow_the_targets(patterns: list[str], count: int) -> None:
    layers = layer_widths(Family.flux, 19, 38, LoraSettings(targets=Targets.all_linear, layers=patterns))
    assert len(layers) == count


def test_a_pattern_that_matches_nothing_is_named_with_what_there_is() -> None:
    with pytest.raises(TargetsError) as caught:
        layer_widths(Family.flux, 19, 38, LoraSettings(targets=Targets.attention, layers=["*.to_q", "double_blocks*"]))
    for part in ("double_blocks* matches none of the 190", "single_transformer_blocks.*.attn.to_q", "to_out.0"):
        assert part in str(caught.value)
    assert "*.to_q matches" not in str(caught.value)


def test_a_plugged_in_lora_is_no_part_of_the_frozen_weights(base: FluxBase) -> None:
    """Who moves, streams or packs the base's blocks would take it along."""
    before = {id(weight) for weight in base.transformer.parameters()}
    with Lora(base.transformer, LoraSettings(rank=2), seed=0).plugged_in():
        assert {id(weight) for weight in base.transformer.parameters()} == before


def test_a_fresh_lora_changes_nothing_and_leaves_nothing(
    base: FluxBase, weights_of: Callable[[], dict[str, object]]
) -> None:
    before, expected = weights_of(), _predict(base)
    lora = Lora(base.transformer, LoraSettings(rank=2), seed=0)
    assert weights_of() == before
    with lora.plugged_in():
        assert weights_of() != before
        assert torch.equal(_predict(base), expected)
    assert weights_of() == before


def test_a_lora_acts_while_plugged_in_and_alpha_scales_it(base: FluxBase) -> None:
    plain = _predict(base)
    changes = []
    for alpha in (2.0, 4.0):
        lora = Lora(base.transformer, LoraSettings(rank=2, alpha=alpha, targets=Targets.attention), seed=0)
        for name, weight in lora.parameters.items():
            if ".lora_B." in name:
                weight.data.fill_(1e-3)
        with lora.plugged_in():
            changes.append(_predict(base) - plain)
        assert torch.equal(_predict(base), plain)
    assert changes[0].abs().max() > 0
    assert torch.allclose(changes[1], 2 * changes[0], rtol=0.05, atol=1e-6)


def test_an_error_inside_unplugs_too(base: FluxBase, weights_of: Callable[[], dict[str, object]]) -> None:
    before = weights_of()
    lora = Lora(base.transformer, LoraSettings(rank=2), seed=0)
    with pytest.raises(RuntimeError, match="half-way"), lora.plugged_in():
        raise RuntimeError("half-way")
    assert weights_of() == before


def test_the_start_depends_on_the_seed_alone(base: FluxBase) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (Lora(base.transformer, LoraSettings(rank=2), seed=seed).state() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    for name, weight in first.items():
        assert weight.dtype == torch.float32
        assert weight.any() == (".lora_A." in name)
        if ".lora_A." in name:
            assert weight.abs().max() <= weight.shape[1] ** -0.5
