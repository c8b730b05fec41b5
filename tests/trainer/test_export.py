"""Layouts: kohya's loads in diffusers, products are equal, there and back is the identity."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.base import Family
from trainer.export import LoraError, main, read_lora, to_kohya, to_peft
from trainer.flux import FluxBase
from trainer.lora import Lora, write_peft
from trainer.sample import sample
from trainer.settings import FileDtype, LoraSettings, Prompt, SampleSettings, Targets
from trainer.targets import layer_widths

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


def test_both_layouts_are_taken_by_load_lora_weights_at_the_widths_of_flux_dev(tmp_path: Path) -> None:
    """The transformer's own weights are never touched; what peft puts beside its layers is compared."""
    expected = _flux_dev_lora(tmp_path / "peft.safetensors", rank=2, alpha=6.0)
    kohya = to_kohya(tmp_path / "peft.safetensors", tmp_path / "kohya.safetensors")
    for file in (kohya, to_peft(kohya, tmp_path / "back.safetensors")):
        with torch.device("meta"):
            transformer = FluxTransformer2DModel(num_layers=1, num_single_layers=4, guidance_embeds=True)
        transformer.to_empty(device="cpu")
        parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
        pipeline = FluxPipeline(FlowMatchEulerDiscreteScheduler(), transformer=transformer, **parts)
        pipeline.load_lora_weights(str(file))
        for name, product in expected.items():
            layer = transformer.get_submodule(name.removeprefix("transformer."))
            scale, down, up = layer.scaling["default_0"], layer.lora_A["default_0"], layer.lora_B["default_0"]
            assert torch.allclose(scale * up.weight[:64] @ down.weight[:, :64], product, rtol=1e-4, atol=1e-4), name


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


def _pair(rank: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rank, 8, generator=generator), torch.randn(8, rank, generator=generator)


def _delta(path: Path, layer: str) -> Tensor:
    down, up = read_lora(path)[layer]
    return up.float() @ down.float()


def test_layers_with_a_rank_or_alpha_of_their_own_are_read_as_peft_reads_them(tmp_path: Path) -> None:
    query, key = "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k"
    (down, up), (down4, up4) = _pair(), _pair(4)
    weights = {f"transformer.{query}.lora_A.weight": down, f"transformer.{query}.lora_B.weight": up}
    weights |= {f"transformer.{key}.lora_A.weight": down4, f"transformer.{key}.lora_B.weight": up4}
    config = {"r": 2, "lora_alpha": 2, "rank_pattern": {"to_k": 4}, "alpha_pattern": {"attn.to_k": 12}}
    path = tmp_path / "patterned.safetensors"
    write_peft(path, weights, {f"transformer.{name}": value for name, value in config.items()}, {})
    assert torch.allclose(_delta(path, query), up @ down)
    assert torch.allclose(_delta(path, key), 3 * up4 @ down4)


@pytest.mark.parametrize(
    ("prefix", "names", "alpha"),
    [
        ("transformer.transformer_blocks.0.attn.to_out.0", ("lora_A", "lora_B"), 1.0),
        ("diffusion_model.transformer_blocks.0.attn.to_out.0", ("lora_A", "lora_B"), None),
        ("transformer_blocks.0.attn.to_out.0", ("lora_A.default", "lora_B.default"), 4.0),
        ("base_model.model.transformer_blocks.0.attn.to_out.0", ("lora_A", "lora_B"), None),
        ("diffusion_model.double_blocks.0.img_attn.proj", ("lora_A", "lora_B"), 1.0),
        ("double_blocks.0.img_attn.proj", ("lora_A", "lora_B"), None),
        ("base_model.model.double_blocks.0.img_attn.proj", ("lora_A", "lora_B"), None),
        ("diffusion_model.double_blocks.0.img_attn.proj", ("lora_down", "lora_up"), 1.0),
        ("lora_unet_double_blocks_0_img_attn_proj", ("lora_down", "lora_up"), 1.0),
        ("lora_unet_transformer_blocks_0_attn_to_out_0", ("lora_down", "lora_up"), 1.0),
        ("lora_transformer_transformer_blocks_0_attn_to_out_0", ("lora_down", "lora_up"), 1.0),
        ("transformer.transformer_blocks.0.attn.to_out.0", ("lora.down", "lora.up"), None),
    ],
)
def test_the_names_that_other_trainers_write_are_read(
    tmp_path: Path, prefix: str, names: tuple[str, str], alpha: float | None
) -> None:
    down, up = _pair()
    weights = {f"{prefix}.{names[0]}.weight": down, f"{prefix}.{names[1]}.weight": up}
    if alpha is not None:
        weights[f"{prefix}.alpha"] = torch.tensor(alpha)
    weights["lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"] = torch.ones(2, 4)  # CLIP: left out
    save_file(weights, tmp_path / "lora.safetensors")
    assert set(read_lora(tmp_path / "lora.safetensors")) == {"transformer_blocks.0.attn.to_out.0"}
    expected = (alpha or 2.0) / 2.0 * up @ down
    assert torch.allclose(_delta(tmp_path / "lora.safetensors", "transformer_blocks.0.attn.to_out.0"), expected)


def test_onetrainers_layers_are_all_read_and_none_for_another(tmp_path: Path) -> None:
    """diffusers takes its feed-forward layers for the block itself, and all but one are lost."""
    names = ["transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0.ff_context.net.2", "norm_out.linear"]
    names += ["single_transformer_blocks.7.proj_mlp", "single_transformer_blocks.7.proj_out", "x_embedder"]
    down, up = _pair()
    weights = {f"lora_transformer_{name.replace('.', '_')}.lora_down.weight": down.clone() for name in names}
    weights |= {f"lora_transformer_{name.replace('.', '_')}.lora_up.weight": up.clone() for name in names}
    save_file(weights, tmp_path / "onetrainer.safetensors")
    assert set(read_lora(tmp_path / "onetrainer.safetensors")) == set(names)


def test_layers_outside_of_the_blocks_are_read_whoever_wrote_them(tmp_path: Path) -> None:
    down, up = torch.randn(2, 64), torch.randn(D, 2)
    block, back = torch.randn(2, D), torch.randn(D, 2)
    for prefix, proj in (
        ("diffusion_model.", "double_blocks.0.img_attn.proj"),
        ("lora_unet_", "double_blocks_0_img_attn_proj"),
    ):
        weights = {f"{prefix}img_in.lora_down.weight": down.clone(), f"{prefix}img_in.lora_up.weight": up.clone()}
        name = f"{prefix}{proj}"
        weights |= {f"{name}.lora_down.weight": block.clone(), f"{name}.lora_up.weight": back.clone()}
        save_file(weights, tmp_path / "lora.safetensors")
        layers = read_lora(tmp_path / "lora.safetensors")
        assert set(layers) == {"x_embedder", "transformer_blocks.0.attn.to_out.0"}
        assert torch.allclose(layers["x_embedder"][1] @ layers["x_embedder"][0], up @ down, atol=1e-4)


def test_a_layers_bias_is_not_taken_for_its_weight(tmp_path: Path) -> None:
    down, up = _pair()
    name = "double_blocks.0.img_attn.proj"
    weights = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.lora_B.bias": torch.ones(8)}
    save_file(weights, tmp_path / "lora.safetensors")
    with pytest.raises(LoraError, match="holds biases"):
        read_lora(tmp_path / "lora.safetensors")


def test_what_only_diffusers_can_convert_is_read_through_it(tmp_path: Path) -> None:
    """xlabs' layout: a fused down and up of query, key and value for each stream."""
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, D, generator=generator), torch.randn(3 * D, 2, generator=generator)
    name = "double_blocks.0.processor.qkv_lora1"
    save_file({f"{name}.down.weight": down, f"{name}.up.weight": up}, tmp_path / "xlabs.safetensors")
    layers = read_lora(tmp_path / "xlabs.safetensors")
    assert set(layers) == {f"transformer_blocks.0.attn.to_{part}" for part in "qkv"}
    found_down, found_up = layers["transformer_blocks.0.attn.to_k"]
    assert torch.allclose(found_up[:8] @ found_down[:, :8], up[D : D + 8] @ down[:, :8])


def test_a_file_that_is_no_lora_is_refused(tmp_path: Path) -> None:
    save_file({"some.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(LoraError, match=r"model\.safetensors"):
        read_lora(tmp_path / "model.safetensors")


@pytest.mark.parametrize("alpha", [2.0, 0.5, 3.0, 7.7])
def test_round_trips_keep_the_product_to_a_millionth(tmp_path: Path, alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weights, expected = {}, {}
    for name in ("attn.to_q", "attn.to_k", "attn.add_v_proj", "attn.to_out.0", "ff.net.2"):
        layer = f"transformer_blocks.0.{name}"
        down, up = torch.randn(3, 32, generator=generator), torch.randn(32, 3, generator=generator)
        weights |= {f"transformer.{layer}.lora_A.weight": down, f"transformer.{layer}.lora_B.weight": up}
        expected[layer] = alpha / 3 * (up.double() @ down.double())
    write_peft(tmp_path / "a.safetensors", weights, {"transformer.r": 3, "transformer.lora_alpha": alpha}, {})
    path = tmp_path / "a.safetensors"
    for turn in range(3):
        path = to_kohya(path, tmp_path / f"kohya{turn}.safetensors")
        path = to_peft(path, tmp_path / f"peft{turn}.safetensors")
    for layer, (down, up) in read_lora(path).items():
        error = (up.double() @ down.double() - expected[layer]).abs().max() / expected[layer].abs().max()
        assert error < 1e-6, layer


def test_half_precision_is_kept_where_alpha_can_be_baked_in_exactly(tmp_path: Path) -> None:
    down, up = _pair()
    name = "transformer.transformer_blocks.0.attn.to_q"
    weights = {f"{name}.lora_A.weight": down.bfloat16(), f"{name}.lora_B.weight": up.bfloat16()}
    for alpha, dtype in ((4.0, torch.bfloat16), (3.0, torch.float32)):
        config = {"transformer.r": 2, "transformer.lora_alpha": alpha}
        write_peft(tmp_path / "half.safetensors", weights, config, {})
        written = load_file(to_kohya(tmp_path / "half.safetensors", tmp_path / "kohya.safetensors"))
        assert {weight.dtype for key, weight in written.items() if "alpha" not in key} == {dtype}
    asked = load_file(to_peft(tmp_path / "half.safetensors", tmp_path / "peft.safetensors", FileDtype.float16))
    assert {weight.dtype for weight in asked.values()} == {torch.float16}


def test_every_kohya_key_is_one_that_comfyui_and_forge_look_for(tmp_path: Path) -> None:
    """They look for lora_unet_ + FLUX's own weight names with dots as underscores, and for alpha beside each."""
    _flux_dev_lora(tmp_path / "peft.safetensors", rank=2, alpha=1.0)
    double = ["img_attn.qkv", "img_attn.proj", "img_mlp.0", "img_mlp.2", "img_mod.lin"]
    double += [name.replace("img", "txt") for name in double]
    known = {f"double_blocks.{number}.{name}" for number in range(19) for name in double}
    known |= {f"single_blocks.{n}.{name}" for n in range(38) for name in ("linear1", "linear2", "modulation.lin")}
    accepted = {f"lora_unet_{name.replace('.', '_')}" for name in known}
    kohya = load_file(to_kohya(tmp_path / "peft.safetensors", tmp_path / "kohya.safetensors"))
    layers = {key.split(".")[0] for key in kohya}
    assert layers <= accepted and len(layers) == 10
    for layer in layers:
        assert {f"{layer}.lora_down.weight", f"{layer}.lora_up.weight", f"{layer}.alpha"} <= set(kohya)


@pytest.mark.parametrize("family", list(Family))
def test_every_layer_that_can_be_trained_has_a_name_that_comfyui_looks_for(family: Family) -> None:
    """Behind `transformer.` it takes diffusers' names of both families, and of nothing else."""
    attention = ["to_q", "to_k", "to_v", "to_out.0", "to_out", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
    known = {f"attn.{name}" for name in (*attention, "to_qkv_mlp_proj")} | {"proj_mlp", "proj_out"}
    known |= {
        f"{ff}.{name}" for ff in ("ff", "ff_context") for name in ("net.0.proj", "net.2", "linear_in", "linear_out")
    }
    layers = layer_widths(family, 19, 38, LoraSettings(targets=Targets.all_linear))
    assert {name.split(".", 2)[2] for name in layers} <= known


def test_the_command_line_converts_and_refuses_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _flux_dev_lora(tmp_path / "peft.safetensors", rank=2, alpha=1.0, names="to_q")
    arguments = ["export", str(tmp_path / "peft.safetensors"), str(tmp_path / "out.safetensors"), "--dtype", "bfloat16"]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    assert "lora_unet_double_blocks_0_img_attn_qkv.alpha" in load_file(tmp_path / "out.safetensors")
    monkeypatch.setattr("sys.argv", ["export", str(tmp_path / "none.safetensors"), str(tmp_path / "x")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "no such LoRA file" in capsys.readouterr().err


@pytest.mark.parametrize("down", ["transformer.a.lora_A.weight", "lora_unet_single_blocks_0_linear2.lora_down.weight"])
def test_a_layer_with_half_its_weights_is_refused(tmp_path: Path, down: str) -> None:
    save_file({down: torch.ones(1, 4)}, tmp_path / "half.safetensors")
    with pytest.raises(LoraError, match="has no lora_"):
        to_peft(tmp_path / "half.safetensors", tmp_path / "out.safetensors")
