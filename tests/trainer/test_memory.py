"""Weights in fewer bits, recomputed activations, one part at a time; estimates and presets; what is missing is said."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import FluxTransformer2DModel
from safetensors.torch import load_file, save_file

from trainer.base import BaseError, Family, load_base
from trainer.budget import training_length
from trainer.estimate import (
    KNOWN_SHAPES,
    PRESETS,
    drawing_flop,
    fitting_preset,
    lora_weights,
    memory,
    preset_settings,
    read_shape,
    training_flop,
)
from trainer.examples import read_examples
from trainer.extras import missing_extras, unusable_together
from trainer.flux import FluxBase
from trainer.loop import train
from trainer.lora import target_layers
from trainer.memory import activations_recomputed
from trainer.plan import Plan, make_plan
from trainer.sample import sample
from trainer.settings import (
    BaseSettings,
    BudgetSettings,
    CaptionSettings,
    Dtype,
    Kind,
    LoraSettings,
    MixSettings,
    OptimizerName,
    OptimizerSettings,
    Prompt,
    Quantize,
    SampleSettings,
    Targets,
    TrainSettings,
)
from trainer.streaming import stream_blocks

MEMORY = Path(__file__).parents[2] / "conf" / "memory"
LIBRARIES = {Quantize.nf4: "bitsandbytes", Quantize.int8: "torchao"}
SETTINGS = TrainSettings(
    lora=LoraSettings(rank=2),
    optimizer=OptimizerSettings(learning_rate=1e-2),
    budget=BudgetSettings(steps=3),
    checkpoints=1,
)
DEV = KNOWN_SHAPES["black-forest-labs/FLUX.1-dev"]
CARD = BaseSettings(path="black-forest-labs/FLUX.1-dev", dtype=Dtype.bfloat16)


class _Picture:
    width = height = 2048


def _dev_plan(side: int, batch_size: int = 1) -> Plan:
    return make_plan([_Picture()], MixSettings({side: 1}, batch_size=batch_size), scale=1.0, step=16, seed=0)


def _train(base: FluxBase, pictures: Path, folder: Path, settings: TrainSettings = SETTINGS) -> dict[str, torch.Tensor]:
    checkpoints = train(
        base=base,
        examples=read_examples(pictures),
        captions=CaptionSettings(),
        mix=MixSettings({512: 1}, batch_size=2),
        settings=settings,
        folder=folder,
        cache=folder.parent / "cache",
    )
    return load_file(list(checkpoints)[-1].lora)


def _needs(quantize: Quantize) -> None:
    library = LIBRARIES.get(quantize)
    if library and find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


@pytest.mark.parametrize("quantize", [Quantize.fp8, Quantize.int8])
@pytest.mark.filterwarnings("ignore")  # of the libraries' own
def test_packed_weights_train_nearly_as_whole_ones_and_repeat(
    quantize: Quantize, tiny_settings: BaseSettings, picture_folder: Path, tmp_path: Path
) -> None:
    _needs(quantize)
    whole = load_base(replace(tiny_settings, dtype=Dtype.bfloat16))
    packed = load_base(replace(tiny_settings, dtype=Dtype.bfloat16, quantize=quantize))
    assert packed.id != whole.id and packed.text_id == whole.text_id and packed.vae_id == whole.vae_id
    first = _train(packed, picture_folder, tmp_path / "first")
    again = _train(packed, picture_folder, tmp_path / "again")
    assert all(torch.equal(first[name], again[name]) for name in first)
    saved = replace(SETTINGS, gradient_checkpointing=True)
    recomputed = _train(packed, picture_folder, tmp_path / "recomputed", saved)
    assert all(torch.allclose(first[name], recomputed[name], atol=2e-2) for name in first)
    prompts, asked = [Prompt("a red heart", seed=1)], SampleSettings(steps=2)
    difference = (sample(packed, prompts, asked)[0] - sample(whole, prompts, asked)[0]).abs().mean()
    assert 0 < difference < 0.1


@pytest.mark.parametrize("dtype", list(Dtype))
@pytest.mark.parametrize("quantize", [Quantize.fp8, Quantize.int8])
@pytest.mark.filterwarnings("ignore")  # of the libraries' own
def test_a_lora_trains_and_draws_on_packed_weights_whatever_they_compute_in(
    quantize: Quantize, dtype: Dtype, tiny_settings: BaseSettings, picture_folder: Path, tmp_path: Path
) -> None:
    _needs(quantize)
    pictures = []
    for kept in (Quantize.none, quantize):
        base = load_base(replace(tiny_settings, dtype=dtype, quantize=kept))
        _train(base, picture_folder, tmp_path / kept)
        lora = next((tmp_path / kept).rglob("lora.safetensors"))
        pictures += sample(base, [Prompt("a red heart", seed=1)], SampleSettings(steps=2), lora=lora)
    assert 0 < (pictures[0] - pictures[1]).abs().mean() < 0.1


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_blocks_that_recompute_is_the_share_asked_for(
    share: float, base: FluxBase, picture_folder: Path, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, gradient_checkpointing=True, checkpointed_share=share)
    calls = []
    block = base.transformer.transformer_blocks[0]
    hook = block.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        found = _train(base, picture_folder, tmp_path / "run", replace(settings, budget=BudgetSettings(steps=1)))
    finally:
        hook.remove()
    assert len(calls) == (1 if share == 0 else 2)  # of the two blocks the first is recomputed from a half on
    plain = _train(base, picture_folder, tmp_path / "plain", replace(SETTINGS, budget=BudgetSettings(steps=1)))
    assert all(torch.allclose(plain[name], found[name], atol=1e-6) for name in plain)
    with activations_recomputed(base.transformer, settings):
        assert base.transformer.gradient_checkpointing
    assert not base.transformer.gradient_checkpointing


def test_offload_has_one_part_on_the_device_and_moves_it_once_for_many(
    tiny_settings: BaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(replace(tiny_settings, offload=True))
    moved = []
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        module = getattr(base.pipeline, name)
        monkeypatch.setattr(module, "to", lambda place, name=name: moved.append((name, str(place))))
    base.encode_text(["a house", "a hand", "a heart"])
    assert moved == [("transformer", "cpu"), ("text_encoder", "cpu"), ("text_encoder_2", "cpu")]
    for _ in range(3):
        base.encode_pictures(torch.rand(1, 3, 16, 16))
    assert moved[3:] == [("text_encoder", "cpu"), ("text_encoder_2", "cpu"), ("vae", "cpu")]


def test_a_single_file_is_loaded_with_the_parts_of_a_folder(
    base: FluxBase, tiny_settings: BaseSettings, tmp_path: Path
) -> None:
    file = tmp_path / "flux.safetensors"
    save_file({name: weight.contiguous() for name, weight in base.transformer.state_dict().items()}, file)
    loaded = load_base(replace(tiny_settings, path=str(file), parts=tiny_settings.path))
    asked = SampleSettings(steps=1)
    assert torch.equal(sample(loaded, [Prompt("a hand")], asked)[0], sample(base, [Prompt("a hand")], asked)[0])
    assert loaded.id != base.id  # the file's content is part of it
    with pytest.raises(BaseError, match=r"none\.safetensors: no such file.*ComfyUI"):
        load_base(replace(tiny_settings, path=str(tmp_path / "none.safetensors"), parts=tiny_settings.path))
    dev = "black-forest-labs/FLUX.1-dev"
    with pytest.raises(
        BaseError, match=rf"hf download {dev} flux1-dev.safetensors --local-dir (.|\n)*`base.parts`={dev}"
    ):
        load_base(replace(tiny_settings, path=str(tmp_path / "flux1-dev.safetensors"), parts=dev))
    with pytest.raises(BaseError, match=r"`base.parts`=nobody/nothing: neither a folder(.|\n)*'transformer/\*"):
        load_base(replace(tiny_settings, path=str(file), parts="nobody/nothing"))
    with pytest.raises(ValueError, match=r"base\.parts"):
        BaseSettings(path=str(file))
    save_file({"other": torch.ones(2)}, file)
    with pytest.raises(BaseError, match="does not hold the weights"):
        load_base(replace(tiny_settings, path=str(file), parts=tiny_settings.path))


def test_a_single_file_is_told_apart_by_its_names_before_it_is_read(
    base: FluxBase, tiny_settings: BaseSettings, tmp_path: Path
) -> None:
    file = tmp_path / "flux.safetensors"
    block = {"double_blocks.0.img_attn.qkv.weight": torch.ones(2)}
    asked = replace(tiny_settings, path=str(file), parts=tiny_settings.path)
    for names, said in (
        ({"double_blocks.0.img_attn.qkv.scale_weight": torch.ones(1)}, "packed for other tools.*bfloat16"),
        ({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(1)}, "is a LoRA"),
        ({}, "is FLUX.1-schnell's transformer, `base.parts` is FLUX.1-dev's"),
    ):
        save_file({**block, **names}, file)
        with pytest.raises(BaseError, match=said):
            load_base(asked)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(BaseError, match="not a safetensors file, or not all of one"):
        load_base(asked)
    (tmp_path / "flux.gguf").write_bytes(b"GGUF")
    with pytest.raises(BaseError, match=r"flux\.gguf: a file, but none that ends in \.safetensors"):
        load_base(replace(tiny_settings, path=str(tmp_path / "flux.gguf")))


def test_streamed_blocks_lie_in_main_memory_and_train_as_resident_ones(
    base: FluxBase, tiny_settings: BaseSettings, picture_folder: Path, tmp_path: Path
) -> None:
    """Here both are main memory: what can be seen is that copies compute and that the blocks get their own back."""
    settings = replace(SETTINGS, gradient_checkpointing=True, lora=LoraSettings(rank=2, targets=Targets.all_linear))
    resident = _train(base, picture_folder, tmp_path / "resident", settings)
    streamed = load_base(tiny_settings)
    blocks = [*streamed.transformer.transformer_blocks, *streamed.transformer.single_transformer_blocks]
    stream_blocks(blocks, torch.device("cpu"))
    at_rest = [weight.data_ptr() for block in blocks for weight in block.parameters()]
    for block in blocks:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(next(module.parameters()).data_ptr()))
    seen: list[int] = []
    found = _train(streamed, picture_folder, tmp_path / "streamed", settings)
    assert all(torch.equal(found[name], resident[name]) for name in resident)
    assert len(seen) == 2 * len(blocks) * 3  # forward and recomputed, three steps
    assert at_rest == [weight.data_ptr() for block in blocks for weight in block.parameters()]


def test_weights_of_8_bits_are_cast_before_they_come_to_a_card_that_would_not_hold_them_whole(
    tiny_settings: BaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[torch.dtype] = []
    whole = FluxTransformer2DModel.to

    def to(model: FluxTransformer2DModel, *arguments: object, **named: object) -> FluxTransformer2DModel:
        moved.append(model.transformer_blocks[0].attn.to_q.weight.dtype)
        return whole(model, *arguments, **named)

    monkeypatch.setattr(FluxTransformer2DModel, "to", to)
    load_base(replace(tiny_settings, dtype=Dtype.bfloat16, quantize=Quantize.fp8))
    assert moved[-1] == torch.float8_e4m3fn


@pytest.mark.filterwarnings("ignore")  # of peft's own
def test_a_lokr_trains_on_weights_of_8_bits_and_a_dora_says_what_it_needs(
    tiny_settings: BaseSettings, picture_folder: Path, tmp_path: Path
) -> None:
    asked = replace(tiny_settings, dtype=Dtype.bfloat16, quantize=Quantize.fp8)
    settings = replace(SETTINGS, lora=LoraSettings(rank=2, kind=Kind.lokr), gradient_checkpointing=True)
    assert not unusable_together(asked, settings)
    weights = _train(load_base(asked), picture_folder, tmp_path / "run", settings)
    assert all(weight.isfinite().all() for weight in weights.values())
    assert any(weight.any() for name, weight in weights.items() if "lokr_w1" in name)
    (fault,) = unusable_together(asked, replace(settings, lora=LoraSettings(kind=Kind.dora)))
    assert "train.lora.kind=dora" in fault and "base.quantize=nf4" in fault
    (fault,) = unusable_together(replace(asked, quantize=Quantize.nf4), settings)
    assert "train.lora.kind=lokr" in fault and "base.quantize=int8" in fault


def test_streaming_asks_for_recomputed_blocks(tiny_settings: BaseSettings) -> None:
    streamed = replace(tiny_settings, group_offload=True)
    for settings in (TrainSettings(), TrainSettings(gradient_checkpointing=True, checkpointed_share=0.5)):
        assert "train.checkpointed_share=1" in unusable_together(streamed, settings)[0]
    recomputed = TrainSettings(gradient_checkpointing=True)
    assert not unusable_together(streamed, recomputed)
    assert (
        "keeps off the device" in unusable_together(streamed, replace(recomputed, lora=LoraSettings(kind=Kind.dora)))[0]
    )


def test_what_needs_a_gpu_or_a_library_says_so(tiny_settings: BaseSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BaseError, match=r"base\.group_offload.*CUDA.*cpu"):
        load_base(replace(tiny_settings, group_offload=True))
    with pytest.raises(BaseError, match=r"base\.quantize=nf4.*CUDA.*fp8"):
        load_base(replace(tiny_settings, quantize=Quantize.nf4))
    monkeypatch.setattr("trainer.extras.find_spec", lambda name: None)
    faults = missing_extras(
        replace(tiny_settings, quantize=Quantize.nf4), OptimizerSettings(OptimizerName.prodigy, learning_rate=1.0)
    )
    assert len(faults) == 2
    assert "base.quantize=nf4` needs bitsandbytes" in faults[0] and "pip install prodigyopt" in faults[1]


@pytest.mark.parametrize(
    ("quantize", "side", "rank", "targets", "published"),
    [
        (Quantize.none, 640, 4, Targets.attention, 26.0),  # Hugging Face's blog on QLoRA, 512x768
        (Quantize.nf4, 640, 4, Targets.attention, 9.0),  # the same
        (Quantize.none, 512, 16, Targets.all_linear, 30.0),  # SimpleTuner's FLUX guide
        (Quantize.nf4, 512, 16, Targets.all_linear, 9.0),
    ],
)
def test_estimates_are_near_published_figures(
    quantize: Quantize, side: int, rank: int, targets: Targets, published: float
) -> None:
    base = replace(CARD, quantize=quantize, offload=True)
    train = TrainSettings(lora=LoraSettings(rank=rank, targets=targets), gradient_checkpointing=True)
    assert memory(DEV, _dev_plan(side), base, train).training == pytest.approx(published, rel=0.15)


def test_the_cost_of_a_step_is_that_of_the_formula() -> None:
    plan = _dev_plan(512)
    for settings, tflop in ((TrainSettings(), 44.6), (TrainSettings(gradient_checkpointing=True), 66.1)):
        assert training_flop(DEV, plan, CARD, settings, 1) / 1e12 == pytest.approx(tflop, rel=0.01)


def test_the_cost_of_a_picture_is_that_of_the_formula() -> None:
    asked = [Prompt("a girl", width=1024, height=1024), Prompt("a boat", width=512, height=512)]
    for guidance in (1.0, 3.5):
        drawn = drawing_flop(DEV, CARD, 16, asked, SampleSettings(steps=28, guidance=guidance))
        assert drawn / 1e12 == pytest.approx(28 * (74.4 + 21.5), rel=0.01)  # guidance is fed in, not drawn twice
    klein = replace(DEV, family=Family.klein)
    once, twice = (drawing_flop(klein, CARD, 16, asked, SampleSettings(guidance=g)) for g in (1.0, 4.0))
    assert twice == 2 * once


def test_the_shape_is_read_from_the_folder(base: FluxBase, tiny_settings: BaseSettings) -> None:
    shape = read_shape(Path(tiny_settings.path))
    count = sum(weight.numel() for weight in base.transformer.parameters())
    assert shape.weights == pytest.approx(count, rel=0.35)  # the embeddings are large beside one block
    for targets in Targets:
        lora = LoraSettings(rank=1, targets=targets)
        layers = [base.transformer.get_submodule(name) for name in target_layers(base.transformer, lora)]
        assert lora_weights(shape, TrainSettings(lora)) == sum(
            layer.in_features + layer.out_features for layer in layers
        )


@pytest.mark.parametrize(("preset", "card"), [("12gb", 12), ("16gb", 16), ("24gb", 24), ("80gb", 80)])
def test_a_preset_fits_its_card_at_768_and_its_file_says_the_same(preset: str, card: int) -> None:
    train = TrainSettings(lora=LoraSettings(rank=16, targets=Targets.attention))
    asked = preset_settings(preset, CARD, train)
    assert memory(DEV, _dev_plan(768), *asked).peak < 0.97 * card
    stored = yaml.safe_load((MEMORY / f"{preset}.yaml").read_text())
    assert stored["base"] == {
        "quantize": PRESETS[preset]["quantize"].value,
        "offload": PRESETS[preset]["offload"],
        "group_offload": False,
    }
    assert stored["train"]["gradient_checkpointing"] == PRESETS[preset]["gradient_checkpointing"]


def test_the_known_shape_of_flux_is_that_of_its_class() -> None:
    with torch.device("meta"):
        flux = FluxTransformer2DModel(guidance_embeds=True)  # the defaults are FLUX.1-dev's sizes
    assert DEV.weights == pytest.approx(sum(weight.numel() for weight in flux.parameters()), rel=0.01)
    for targets in Targets:
        lora = LoraSettings(rank=1, targets=targets)
        layers = [flux.get_submodule(name) for name in target_layers(flux, lora)]
        assert lora_weights(DEV, TrainSettings(lora)) == sum(each.in_features + each.out_features for each in layers)


def test_the_advice_is_the_preset_that_saves_just_enough() -> None:
    train = TrainSettings(lora=LoraSettings(rank=16, targets=Targets.attention))
    plan = _dev_plan(512)
    assert fitting_preset(DEV, plan, CARD, train, capacity=24)[0] == "24gb"
    assert fitting_preset(DEV, plan, CARD, train, capacity=12)[0] == "12gb"
    assert fitting_preset(DEV, plan, CARD, train, capacity=6) is None
    assert training_length(plan, BudgetSettings(3)) == (3, 3)
