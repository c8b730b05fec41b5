"""What a training will cost in arithmetic and memory, from the base's configuration alone. No torch here.

Formulas: a block's matrix products take 2 FLOP per weight and token, attention 4 d N^2 a block; a LoRA's step is twice
the products (only the input's gradient flows back) and three times the attention, recomputing adds a forward pass.
Saved activations were counted with saved-tensor hooks on FLUX.1-dev's real shape: 98.7 kB per token of a single block
and 108.9 kB of a double block at width 3072 in bfloat16, a third more with a LoRA on every linear layer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.base import Family, single_file
from trainer.plan import Plan, SidePlan
from trainer.settings import (
    BaseSettings,
    Dtype,
    Kind,
    OptimizerName,
    Prompt,
    Quantize,
    SampleSettings,
    Targets,
    TrainSettings,
)
from trainer.targets import layer_widths

GB = 1e9
_SAVED = (108.9e3 / 3072 / 2, 98.7e3 / 3072 / 2)  # numbers saved per token and width of a double, a single block
_WITH_LORA = {Targets.attention: 1.1, Targets.diffusers: 1.2, Targets.all_linear: 1.31}  # times that
_BYTES = {Quantize.fp8: 1.0, Quantize.int8: 1.0, Quantize.nf4: 0.53}  # per weight, with its scales
_OPTIMIZER_BYTES = {
    OptimizerName.adamw: 8,
    OptimizerName.adamw8bit: 2,
    OptimizerName.adafactor: 0,
    OptimizerName.prodigy: 16,
}
_VAE_BYTES = 24  # per px and channel of its outermost block, float32, while encoding or decoding
_OVERHEAD = 0.8 * GB  # CUDA's own
_FRAGMENTED = 1.05

# Peak TFLOP/s in bfloat16 (a CPU core: float32), and the share of it that trainers reach.
CPU = "one CPU core"
DEVICES = {CPU: 0.1, "RTX 3060": 25.5, "RTX 4090": 165.0, "A100": 312.0, "H100 or H200": 989.0}
REACHED = 0.3

# What conf/memory/*.yaml set, from the most memory to the least.
PRESETS: dict[str, dict[str, Any]] = {
    "80gb": {"quantize": Quantize.none, "offload": False, "gradient_checkpointing": False},
    "24gb": {"quantize": Quantize.fp8, "offload": True, "gradient_checkpointing": True},
    "16gb": {"quantize": Quantize.fp8, "offload": True, "gradient_checkpointing": True, "sample_batch_size": 1},
    "12gb": {"quantize": Quantize.nf4, "offload": True, "gradient_checkpointing": True, "sample_batch_size": 1},
}


@dataclass(frozen=True)
class Shape:
    """The sizes of a base that cost and memory depend on."""

    family: Family
    width: int  # d, of a token inside the transformer
    double: int  # blocks with a stream for text and one for the picture
    single: int  # blocks with one stream
    weights: float  # of the transformer
    per_token: float  # weights that each token passes, all blocks
    text_bytes: int  # files of the text encoders
    vae_bytes: int  # file of the VAE in float32
    vae_channels: int  # of its outermost block


# Bases whose sizes are known before their weights are fetched, and px per token edge.
_FLUX1 = Shape(
    family=Family.flux,
    width=3072,
    double=19,
    single=38,
    weights=11.9e9,
    per_token=57 * 12 * 3072**2,
    text_bytes=9_770_000_000,
    vae_bytes=335_000_000,
    vae_channels=128,
)
_KLEIN_4B = Shape(
    family=Family.klein,
    width=3072,
    double=5,
    single=20,
    weights=3.88e9,
    per_token=(5 * 13 + 20 * 13) * 3072**2,
    text_bytes=8_050_000_000,
    vae_bytes=340_000_000,
    vae_channels=128,
)
KNOWN_SHAPES = {
    "black-forest-labs/FLUX.1-dev": _FLUX1,
    "black-forest-labs/FLUX.1-Krea-dev": _FLUX1,
    "black-forest-labs/FLUX.1-schnell": _FLUX1,
    "black-forest-labs/FLUX.2-klein-base-4B": _KLEIN_4B,
}
KNOWN_STEP = 16  # px, of all of them


@dataclass(frozen=True)
class Memory:
    """GB on the device at the three moments that matter."""

    parts: dict[str, float]  # while training
    encoding: float  # while texts and pictures are encoded

    @property
    def training(self) -> float:
        return sum(self.parts.values())

    @property
    def peak(self) -> float:
        return max(self.training, self.encoding)


def known_shape(base: BaseSettings) -> Shape | None:
    """The sizes of a base that can be told by its hub id, whose weights need not be here."""
    return KNOWN_SHAPES.get(base.path if single_file(base) is None else base.parts)


def read_shape(folder: Path) -> Shape:
    """Read the sizes from the configurations of a diffusers folder."""
    config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
    vae = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
    width = config["num_attention_heads"] * config["attention_head_dim"]
    double, single = config["num_layers"], config["num_single_layers"]
    family = Family.klein if config.get("_class_name") == "Flux2Transformer2DModel" else Family.flux
    products, modulation, shared = (24, 12), (12, 3), 0
    if family == Family.klein:
        products, modulation, shared = (26, 13), (0, 0), 15 * width**2
    blocks = double * (products[0] + modulation[0]) + single * (products[1] + modulation[1])
    ends = (config["joint_attention_dim"] + 2 * config["in_channels"] + 3 * width) * width
    encoders = [folder / name for name in ("text_encoder", "text_encoder_2")]
    return Shape(
        family,
        width,
        double,
        single,
        blocks * width**2 + shared + ends,
        (double * products[0] / 2 + single * products[1]) * width**2,
        sum(_weight_bytes(encoder) for encoder in encoders if encoder.is_dir()),
        _weight_bytes(folder / "vae"),
        vae["block_out_channels"][0],
    )


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def lora_weights(shape: Shape, train: TrainSettings) -> int:
    """Numbers in the LoRA; of a LoKr an upper bound.

    Raises:
        TargetsError: the patterns of `train.lora.layers` match no layer.
    """
    widths = layer_widths(shape.family, shape.double, shape.single, train.lora)
    return train.lora.rank * sum(widths.values()) * shape.width


def tokens_of(side: SidePlan, step: int) -> float:
    """Picture tokens of the largest bucket of a side."""
    return max(fit.bucket.width * fit.bucket.height for fit in side.fits) / step**2


def training_flop(shape: Shape, plan: Plan, base: BaseSettings, train: TrainSettings, images_seen: int) -> float:
    """FLOP of a whole training, without encoding, sampling and scoring."""
    shown = sum(side.repeats * len(side.fits) for side in plan.sides)
    total = 0.0
    for side in plan.sides:
        for fit in side.fits:
            tokens = fit.bucket.width * fit.bucket.height / plan.step**2 + base.max_text_tokens
            total += side.repeats * _step_flop(shape, tokens, train)
    return total / shown * images_seen


def drawing_flop(
    shape: Shape, base: BaseSettings, step_px: int, prompts: Sequence[Prompt], sample: SampleSettings
) -> float:
    """FLOP of drawing every prompt once, without the VAE."""
    twice = shape.family == Family.klein and sample.guidance > 1  # with the prompt and without it
    total = 0.0
    for prompt in prompts:
        tokens = prompt.width * prompt.height * (base.scale / step_px) ** 2 + base.max_text_tokens
        total += sum(_forward_flop(shape, tokens))
    return total * sample.steps * (2 if twice else 1)


def _forward_flop(shape: Shape, tokens: float) -> tuple[float, float]:
    """FLOP of a picture's matrix products, and of its attention."""
    return 2 * shape.per_token * tokens, (shape.double + shape.single) * 4 * shape.width * tokens**2


def _step_flop(shape: Shape, tokens: float, train: TrainSettings) -> float:
    linear, attention = _forward_flop(shape, tokens)
    again = train.checkpointed_share if train.gradient_checkpointing else 0.0
    return (2 + again) * linear + (3 + again) * attention


def memory(shape: Shape, plan: Plan, base: BaseSettings, train: TrainSettings) -> Memory:
    """GB that a training takes on a GPU, within about a tenth of published figures for FLUX.1-dev."""
    number = 2 if base.dtype == Dtype.bfloat16 else 4
    transformer = shape.weights * _BYTES.get(base.quantize, number)
    if base.group_offload:
        transformer = transformer / (shape.double + shape.single) * 2  # the block at work and the next
    text = shape.text_bytes * number / 2
    trained = lora_weights(shape, train)
    each = 8 + _OPTIMIZER_BYTES[train.optimizer.name] + (4 if train.ema else 0)
    encoders = 0.0 if base.offload else text + shape.vae_bytes
    held = _activations(shape, plan, base, train)
    fragmented = (transformer + held) * (_FRAGMENTED - 1)
    parts = {
        "transformer": transformer,
        "text encoders and VAE": encoders,
        "LoRA and optimiser": trained * each,
        "activations": held,
        "CUDA": _OVERHEAD + fragmented,
    }
    pixels = max(fit.bucket.width * fit.bucket.height for side in plan.sides for fit in side.fits)
    drawing = pixels * shape.vae_channels * _VAE_BYTES
    rest = 0.0 if base.offload else transformer + text + shape.vae_bytes
    encoding = max(rest + drawing, text if base.offload else rest) + _OVERHEAD
    return Memory({name: size / GB for name, size in parts.items()}, encoding / GB)


def _activations(shape: Shape, plan: Plan, base: BaseSettings, train: TrainSettings) -> float:
    number = 2 if base.dtype == Dtype.bfloat16 else 4
    rows = max(side.batch_size * (tokens_of(side, plan.step) + base.max_text_tokens) for side in plan.sides)
    lora = _WITH_LORA[train.lora.targets] * (1.3 if train.lora.kind != Kind.lora else 1.0)
    full = rows * shape.width * (shape.double * _SAVED[0] + shape.single * _SAVED[1]) * number * lora
    blocks = shape.double + shape.single
    share = train.checkpointed_share if train.gradient_checkpointing else 0.0
    kept = full * (1 - share) + share * blocks * rows * shape.width * number + (full / blocks if share else 0.0)
    if base.quantize == Quantize.fp8:  # what is not recomputed keeps its weights unpacked for the backward pass
        kept += (1 - share) * shape.weights * number
    return kept


def preset_settings(name: str, base: BaseSettings, train: TrainSettings) -> tuple[BaseSettings, TrainSettings]:
    """The settings as `memory=NAME` would have them."""
    preset = PRESETS[name]
    return (
        replace(base, quantize=preset["quantize"], offload=preset["offload"]),
        replace(train, gradient_checkpointing=preset["gradient_checkpointing"], checkpointed_share=1.0),
    )


def fitting_preset(
    shape: Shape, plan: Plan, base: BaseSettings, train: TrainSettings, *, capacity: float
) -> tuple[str, float] | None:
    """The preset that saves least among those that fit and take less than now, with its GB; None: none does.

    Args:
        capacity: GB of the device.
    """
    now = memory(shape, plan, base, train).peak
    for name in PRESETS:
        peak = memory(shape, plan, *preset_settings(name, base, train)).peak
        if peak < capacity and peak < now:
            return name, peak
    return None
