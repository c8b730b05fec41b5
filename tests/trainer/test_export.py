"""Layouts: kohya's loads in diffusers, products are equal, there and back is the identity."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.export import LoraError, to_kohya, to_peft
from trainer.flux import FluxBase
from trainer.lora import Lora, write_peft
from trainer.sample import sample
from trainer.settings import LoraSettings, Prompt, SampleSettings, Targets

D = 3072  # width of FLUX.1-dev, which diffusers' reader of kohya's layout expects
DOUBLE = {
    **{f"attn.{name}": (D, D) for name in ("to_q", "to_k", "to_v", "to_out.0")},
    **{f"attn.{name}": (D, D) for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")},
    **{f"{stream}.net.0.proj": (4 * D, D) for stream in ("ff", "ff_context")},
    **{f"{stream}.net.2": (D, 4 * D) for stream in ("ff", "ff_context")},
}
SINGLE = {
    **{f"attn.{name}": (D, D) for name in ("to_q", "to_k", "to_v")},
    "proj_mlp": (4 * D, D),
    "proj_out": (D, 5 * D),
}


def _flux_dev_lora(path: Path, *, rank: int, alpha: float, names: str = "") -> dict[str, Tensor]:
    """A random LoRA on the first blocks of FLUX.1-dev; returns layer -> product with its scale."""
    generator = torch.Generator().manual_seed(0)
    weights, products = {}, {}
    for stack, layers in (("transformer_blocks.0", DOUBLE), ("single_transformer_blocks.3", SINGLE)):
        for name, (rows, columns) in layers.items():
            if names in name:
                down = torch.randn(rank, columns, generator=generator)
                up = torch.randn(rows, rank, generator=generator)
                key = f"transformer.{stack}.{name}"
                weights |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
                products[key] = alpha / rank * (up[:64] @ down[:, :64])
    write_peft(path, weights, {"transformer.r": rank, "transformer.lora_alpha": alpha}, {"ss_seed": "7"})
    return products


def _products(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = {key.removesuffix(".lora_A.weight") for key in weights if key.endswith(".lora_A.weight")}
    return {n: weights[f"{n}.lora_B.weight"][:64] @ weights[f"{n}.lora_A.weight"][:, :64] for n in names}


def _assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, product in expected.items():
        assert torch.allclose(found[name], product, rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize(("rank", "alpha"), [(2, 2.0), (2, 1.0), (3, 12.0)])
def test_kohyas_layout_is_read_by_diffusers_with_equal_products(tmp_path: Path, rank: int, alpha: float) -> None:
    expected = _flux_dev_lora(tmp_path / "peft.safetensors", rank=rank, alpha=alpha)
    kohya = load_file(to_kohya(tmp_path / "peft.safetensors", tmp_path / "kohya.safetensors"))
    assert kohya["lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight"].shape == (3 * D, 3 * rank)
    assert kohya["lora_unet_single_blocks_3_linear1.lora_up.weight"].shape == (7 * D, 4 * rank)
    assert kohya["lora_unet_single_blocks_3_linear2.alpha"] == rank
    _assert_same(_products(_convert_kohya_flux_lora_to_diffusers(kohya)), expected)


@pytest.mark.parametrize("names", ["", "attn.to_q", "proj_mlp"])
def test_there_and_back_is_the_identity_with_alpha_baked(tmp_path: Path, names: str) -> None:
    expected = _flux_dev_lora(tmp_path / "peft.safetensors", rank=2, alpha=1.0, names=names)
    to_kohya(tmp_path / "peft.safetensors", tmp_path / "kohya.safetensors")
    back = to_peft(tmp_path / "kohya.safetensors", tmp_path / "back.safetensors")
    weights = load_file(back)
    assert all(weights[key].shape[0] == 2 for key in weights if "lora_A" in key)
    _assert_same(_products(weights), expected)
    with safe_open(back, framework="pt") as file:
        assert file.metadata()["ss_seed"] == "7" and "lora_adapter_metadata" not in file.metadata()


def test_alpha_is_baked_into_the_peft_layout(tmp_path: Path) -> None:
    expected = _flux_dev_lora(tmp_path / "peft.safetensors", rank=2, alpha=6.0)
    _assert_same(_products(load_file(to_peft(tmp_path / "peft.safetensors", tmp_path / "baked.safetensors"))), expected)


def test_a_fused_lora_of_kohyas_own_gives_every_part_the_whole_down(tmp_path: Path) -> None:
    down, up = torch.randn(2, 8), torch.randn(24, 2)
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    weights = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(1.0)}
    save_file(weights, tmp_path / "kohya.safetensors")
    peft = load_file(to_peft(tmp_path / "kohya.safetensors", tmp_path / "peft.safetensors"))
    for number, part in enumerate(("to_q", "to_k", "to_v")):
        key = f"transformer.transformer_blocks.0.attn.{part}"
        product = peft[f"{key}.lora_B.weight"] @ peft[f"{key}.lora_A.weight"]
        assert torch.allclose(product, 0.5 * up[8 * number : 8 * number + 8] @ down)


def test_all_layouts_draw_the_same_picture(base: FluxBase, tmp_path: Path) -> None:
    lora = Lora(base.transformer, LoraSettings(rank=2, alpha=1.0, targets=Targets.diffusers), seed=0)
    for weight in lora.parameters.values():
        weight.data.fill_(0.1)
    lora.write(tmp_path / "peft.safetensors", {})
    files = [
        tmp_path / "peft.safetensors",
        to_kohya(tmp_path / "peft.safetensors", tmp_path / "kohya.safetensors"),
        to_peft(tmp_path / "kohya.safetensors", tmp_path / "back.safetensors"),
    ]
    settings = SampleSettings(steps=2)
    plain = sample(base, [Prompt("a house")], settings)[0]
    pictures = [sample(base, [Prompt("a house")], settings, lora=file)[0] for file in files]
    assert (pictures[0] - plain).abs().max() > 1e-3
    assert all(torch.allclose(picture, pictures[0], atol=1e-4) for picture in pictures)


def test_an_unknown_layer_is_named(tmp_path: Path) -> None:
    weights = {
        "transformer.x_embedder.lora_A.weight": torch.ones(1, 4),
        "transformer.x_embedder.lora_B.weight": torch.ones(4, 1),
    }
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(LoraError, match="no layer for x_embedder"):
        to_kohya(tmp_path / "other.safetensors", tmp_path / "out.safetensors")


@pytest.mark.parametrize("pattern", ["rank_pattern", "alpha_pattern"])
def test_layers_with_a_rank_or_alpha_of_their_own_are_refused(tmp_path: Path, pattern: str) -> None:
    name = "transformer.transformer_blocks.0.attn.to_q"
    weights = {f"{name}.lora_A.weight": torch.ones(1, 4), f"{name}.lora_B.weight": torch.ones(4, 1)}
    config = {"transformer.r": 1, "transformer.lora_alpha": 1, f"transformer.{pattern}": {"to_q": 1}}
    write_peft(tmp_path / "patterned.safetensors", weights, config, {})
    with pytest.raises(LoraError, match=rf"patterned\.safetensors: {pattern} .* not read here"):
        to_peft(tmp_path / "patterned.safetensors", tmp_path / "out.safetensors")


@pytest.mark.parametrize("down", ["transformer.a.lora_A.weight", "lora_unet_single_blocks_0_linear2.lora_down.weight"])
def test_a_layer_with_half_its_weights_is_refused(tmp_path: Path, down: str) -> None:
    save_file({down: torch.ones(1, 4)}, tmp_path / "half.safetensors")
    with pytest.raises(LoraError, match="has no lora_"):
        to_peft(tmp_path / "half.safetensors", tmp_path / "out.safetensors")
