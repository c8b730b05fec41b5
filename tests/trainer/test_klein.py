"""The second family through the same lines: same loop, same files, and its own pipeline's pictures."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import Flux2KleinPipeline
from safetensors.torch import load_file, save_file

from tests.tiny_flux import SCALE
from tests.tiny_klein import make_tiny_klein
from trainer.base import BaseError, Family, component_ids, family_of, find_base, load_base, step_px
from trainer.estimate import KNOWN_SHAPES, lora_weights, read_shape
from trainer.examples import read_examples
from trainer.export import read_lora, to_kohya, to_peft
from trainer.flux import FluxBase
from trainer.klein import KleinBase
from trainer.loop import train
from trainer.lora import Lora, target_layers
from trainer.sample import sample
from trainer.settings import (
    BaseSettings,
    BudgetSettings,
    CaptionSettings,
    LoraSettings,
    MixSettings,
    OptimizerSettings,
    Prompt,
    SampleSettings,
    Targets,
    TrainSettings,
)
from trainer.tokens import token_counter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_klein(tmp_path_factory.mktemp("tiny_klein"))


@pytest.fixture(scope="module")
def klein(folder: Path) -> FluxBase:
    return load_base(BaseSettings(path=str(folder), scale=SCALE, device="cpu", max_text_tokens=24))


def test_the_family_is_read_from_the_folder(folder: Path, klein: FluxBase, tiny_flux: Path) -> None:
    assert (family_of(folder), family_of(tiny_flux)) == (Family.klein, Family.flux)
    assert isinstance(klein, KleinBase) and klein.architecture == "flux-2-klein"
    assert klein.step_px == step_px(folder) == 8
    assert (
        set(component_ids(folder)) == set(klein.ids) == {"transformer", "vae", "text_encoder", "tokenizer", "scheduler"}
    )
    assert token_counter(find_base(str(folder)))("a house") == klein.count_tokens("a house") > 1


def test_a_missing_encoder_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text((folder / "model_index.json").read_text())
    with pytest.raises(BaseError, match="no weights or files for transformer, vae, text_encoder, tokenizer, scheduler"):
        find_base(str(tmp_path))


def test_pictures_go_to_latents_and_back_as_the_pipeline_sends_them(klein: FluxBase) -> None:
    pictures = torch.rand(1, 3, 32, 48)
    latents = klein.encode_pictures(pictures)
    assert latents.shape == (1, 8, 8, 12)
    theirs = klein.pipeline._encode_vae_image(2 * pictures - 1, torch.Generator())
    assert torch.allclose(klein.pipeline._patchify_latents(latents), theirs, atol=1e-5)
    back = klein.decode(latents)
    raw = klein.vae.decode(klein.vae.encode(2 * pictures - 1).latent_dist.mode()).sample
    assert torch.allclose(back, (raw / 2 + 0.5).clamp(0, 1), atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_sample_is_the_pipelines_own(folder: Path, klein: FluxBase, guidance: float) -> None:
    (ours,) = sample(
        klein, [Prompt("a house", seed=3, width=512, height=256)], SampleSettings(steps=3, guidance=guidance)
    )
    pipeline = Flux2KleinPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt="a house",
        height=32,
        width=64,
        num_inference_steps=3,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(3),
        max_sequence_length=24,
        text_encoder_out_layers=(1, 2, 3),
        output_type="pt",
    ).images[0]
    assert torch.allclose(ours, theirs.float(), atol=2e-3)


def test_a_training_learns_and_its_file_loads_in_diffusers(
    folder: Path, klein: FluxBase, picture_folder: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(
        lora=LoraSettings(rank=2, targets=Targets.all_linear),
        optimizer=OptimizerSettings(learning_rate=1e-2, warmup_steps=2),
        budget=BudgetSettings(steps=30),
        checkpoints=1,
    )
    (checkpoint,) = train(
        base=klein,
        examples=read_examples(picture_folder)[:1],
        captions=CaptionSettings(),
        mix=MixSettings({512: 1}, batch_size=1),
        settings=settings,
        folder=tmp_path / "run",
        cache=tmp_path / "cache",
    )
    assert sum(checkpoint.losses[-10:]) < sum(checkpoint.losses[:10])
    names = set(read_lora(checkpoint.lora))
    assert {"transformer_blocks.0.ff.linear_in", "single_transformer_blocks.1.attn.to_qkv_mlp_proj"} <= names
    pipeline = Flux2KleinPipeline.from_pretrained(folder)
    pipeline.load_lora_weights(str(checkpoint.lora.parent), weight_name=checkpoint.lora.name)
    assert len(pipeline.transformer.peft_config["default_0"].target_modules) > 0
    prompt = Prompt("a house", seed=3, width=512, height=512)
    (ours,) = sample(klein, [prompt], SampleSettings(steps=2, guidance=1.0), lora=checkpoint.lora)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt="a house",
        height=64,
        width=64,
        num_inference_steps=2,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(3),
        max_sequence_length=24,
        text_encoder_out_layers=(1, 2, 3),
        output_type="pt",
    ).images[0]
    assert torch.allclose(ours, theirs.float(), atol=2e-3)


@pytest.mark.parametrize("prefix", ["diffusion_model.", ""])
def test_a_lora_with_fluxs_own_names_is_read_as_kleins(klein: FluxBase, tmp_path: Path, prefix: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, rows, columns in (("double_blocks.0.img_attn.qkv", 96, 32), ("single_blocks.1.linear2", 32, 128)):
        weights[f"{prefix}{name}.lora_A.weight"] = torch.randn(2, columns, generator=generator)
        weights[f"{prefix}{name}.lora_B.weight"] = torch.randn(rows, 2, generator=generator)
        weights[f"{prefix}{name}.alpha"] = torch.tensor(1.0)
    save_file(weights, tmp_path / "lora.safetensors")
    layers = read_lora(tmp_path / "lora.safetensors")
    assert set(layers) == {
        *(f"transformer_blocks.0.attn.to_{part}" for part in "qkv"),
        "single_transformer_blocks.1.attn.to_out",
    }
    down, up = layers["transformer_blocks.0.attn.to_k"]
    name = f"{prefix}double_blocks.0.img_attn.qkv"
    assert torch.allclose(up @ down, 0.5 * weights[f"{name}.lora_B.weight"][32:64] @ weights[f"{name}.lora_A.weight"])
    prompt, asked = [Prompt("a house", width=256, height=256)], SampleSettings(steps=1)
    assert sample(klein, prompt, asked, lora=tmp_path / "lora.safetensors")[0].isfinite().all()


def test_kohyas_layout_of_klein_is_read_by_diffusers_and_back(folder: Path, klein: FluxBase, tmp_path: Path) -> None:
    lora = Lora(klein.transformer, LoraSettings(rank=3, alpha=1.0, targets=Targets.all_linear), seed=0)
    generator = torch.Generator().manual_seed(0)
    for weight in lora.parameters.values():
        weight.data.normal_(0, 0.3, generator=generator)
    lora.write(tmp_path / "peft.safetensors", {})
    kohya = to_kohya(tmp_path / "peft.safetensors", tmp_path / "kohya.safetensors")
    names = {key.split(".")[0] for key in load_file(kohya)}
    assert {"lora_unet_double_blocks_0_txt_mlp_0", "lora_unet_single_blocks_1_linear1"} <= names
    back = to_peft(kohya, tmp_path / "back.safetensors")
    expected = {name: up @ down for name, (down, up) in read_lora(tmp_path / "peft.safetensors").items()}
    for file in (kohya, back):
        found = read_lora(file)
        assert found.keys() == expected.keys()
        for name, (down, up) in found.items():
            assert torch.allclose(up @ down, expected[name], rtol=1e-6, atol=1e-6), name
        pipeline = Flux2KleinPipeline.from_pretrained(folder)
        pipeline.load_lora_weights(str(file))
        for name, product in expected.items():
            layer = pipeline.transformer.get_submodule(name)
            delta = layer.get_delta_weight("default_0")
            assert torch.allclose(delta, product, rtol=1e-5, atol=1e-6), name


def test_targets_and_sizes_of_klein_4b_are_counted_right() -> None:
    from diffusers import Flux2Transformer2DModel

    shape = {
        "num_layers": 5,
        "num_single_layers": 20,
        "num_attention_heads": 24,
        "joint_attention_dim": 7680,
        "in_channels": 128,
    }
    with torch.device("meta"):
        klein = Flux2Transformer2DModel(**shape, guidance_embeds=False)
    assert len(target_layers(klein, LoraSettings(targets=Targets.attention))) == 5 * 4 + 20 * 2
    assert len(target_layers(klein, LoraSettings(targets=Targets.all_linear))) == 5 * 12 + 20 * 2
    known = KNOWN_SHAPES["black-forest-labs/FLUX.2-klein-base-4B"]
    assert known.weights == pytest.approx(sum(weight.numel() for weight in klein.parameters()), rel=0.02)
    for targets in Targets:
        lora = LoraSettings(rank=1, targets=targets)
        layers = [klein.get_submodule(name) for name in target_layers(klein, lora)]
        assert lora_weights(known, TrainSettings(lora)) == sum(
            layer.in_features + layer.out_features for layer in layers
        )


def test_the_estimate_counts_the_weights_there_are(folder: Path, klein: FluxBase) -> None:
    shape = read_shape(folder)
    count = sum(weight.numel() for weight in klein.transformer.parameters())
    assert shape.weights == pytest.approx(count, rel=0.1)
    for targets in Targets:
        lora = LoraSettings(rank=1, targets=targets)
        layers = [klein.transformer.get_submodule(name) for name in target_layers(klein.transformer, lora)]
        assert lora_weights(shape, TrainSettings(lora)) == sum(
            layer.in_features + layer.out_features for layer in layers
        )
    assert json.loads((folder / "model_index.json").read_text())["is_distilled"] is False
