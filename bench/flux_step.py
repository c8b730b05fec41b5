"""Seconds per step and peak memory of a LoRA's training on FLUX.1-dev's real shape, with random weights.

    python bench/flux_step.py --sides 512 768 1024 --weights bf16 fp8 nf4 --recompute on off
    python bench/flux_step.py --sides 512 --weights nf4 --recompute on --cap 12
    python bench/flux_step.py --tiny --sides 256 --weights bf16 fp8      # a CPU's smoke test of this script

Needs a GPU for anything but --tiny, and no weights: they are drawn on the device. Each row is measured in this process
after the one before was freed. The share is of the device's peak, counted as 2 L + 3 A without what is recomputed
(`trainer.estimate`).
"""

import argparse
import gc
import time
from collections.abc import Iterator
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch import nn

from trainer.estimate import GB, KNOWN_SHAPES, Shape
from trainer.flow import picture_ids
from trainer.lora import Lora, target_layers
from trainer.memory import activations_recomputed
from trainer.optimizers import OPTIMIZERS
from trainer.settings import LoraSettings, OptimizerName, OptimizerSettings, Targets, TrainSettings

TINY = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 4}
TEXT = 512  # tokens
WARM, MEASURED = 3, 10  # steps


def transformer(weights: str, tiny: bool, device: torch.device) -> FluxTransformer2DModel:
    """FLUX.1-dev's shape with random weights in bf16, fp8 (layerwise casting) or nf4 (bitsandbytes)."""
    small = {**TINY, "axes_dims_rope": (4, 6, 6), "joint_attention_dim": 64} if tiny else {}
    with torch.device("meta"):
        model = FluxTransformer2DModel(guidance_embeds=True, **small)
    model = model.to(torch.bfloat16)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and weights == "nf4":
                setattr(module, name, _nf4(child, device))
    for name, weight in model.named_parameters():
        if weight.device.type == "meta":
            module, _, leaf = name.rpartition(".")
            drawn = torch.empty(weight.shape, dtype=weight.dtype, device=device).normal_(0, 0.02)
            setattr(model.get_submodule(module), leaf, nn.Parameter(drawn, requires_grad=False))
    if weights == "fp8":
        model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    return model.eval()


def _nf4(linear: nn.Linear, device: torch.device) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    packed = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=False,
        compute_dtype=torch.bfloat16,
        quant_type="nf4",
        device="meta",
    )
    drawn = torch.empty(linear.weight.shape, dtype=torch.bfloat16).normal_(0, 0.02)
    packed.weight = Params4bit(drawn, requires_grad=False, quant_type="nf4")
    return packed.to(device)


def inputs(model: FluxTransformer2DModel, side: int, device: torch.device) -> dict[str, torch.Tensor]:
    """What a step on one picture of that side feeds the transformer."""
    config, tokens = model.config, (side // 16) ** 2
    draw: dict[str, Any] = {"dtype": torch.bfloat16, "device": device}
    return {
        "hidden_states": torch.randn(1, tokens, config.in_channels, **draw),
        "timestep": torch.full((1,), 0.5, device=device),
        "guidance": torch.ones(1, device=device),
        "pooled_projections": torch.randn(1, config.pooled_projection_dim, **draw),
        "encoder_hidden_states": torch.randn(1, TEXT, config.joint_attention_dim, **draw),
        "txt_ids": torch.zeros(TEXT, 3, device=device),
        "img_ids": picture_ids(side // 8, side // 8).to(device),
    }


def measure(
    model: FluxTransformer2DModel, side: int, settings: TrainSettings, device: torch.device
) -> tuple[float, float]:
    """Seconds per step and peak GB."""
    lora = Lora(model, settings.lora, 0, device)
    optimizer = OPTIMIZERS[settings.optimizer.name](list(lora.parameters.values()), settings.optimizer)
    given, times = inputs(model, side, device), []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with lora.plugged_in(), activations_recomputed(model, settings):
        for step in range(WARM + MEASURED):
            began = time.perf_counter()
            model(**given, return_dict=False)[0].float().square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times += [time.perf_counter() - began] if step >= WARM else []
    peak = torch.cuda.max_memory_allocated(device) / GB if device.type == "cuda" else 0.0
    return sum(times) / len(times), peak


def useful_flop(shape: Shape, side: int) -> float:
    """2 L + 3 A of one picture, without recomputing."""
    tokens = (side // 16) ** 2 + TEXT
    return 2 * 2 * shape.per_token * tokens + 3 * (shape.double + shape.single) * 4 * shape.width * tokens**2


def rows(asked: argparse.Namespace, device: torch.device) -> Iterator[str]:
    """One line per combination."""
    shape = KNOWN_SHAPES["black-forest-labs/FLUX.1-dev"]
    for weights in asked.weights:
        model = transformer(weights, asked.tiny, device)
        if asked.compile:
            model.compile_repeated_blocks()
        layers = len(target_layers(model, LoraSettings(targets=Targets.attention)))
        for recompute in asked.recompute:
            for side in asked.sides:
                settings = TrainSettings(
                    lora=LoraSettings(rank=16, targets=Targets.attention),
                    optimizer=OptimizerSettings(OptimizerName(asked.optimizer)),
                    gradient_checkpointing=recompute == "on",
                )
                line = f"| {weights} | {side} | recompute {recompute} | {layers} layers "
                try:
                    seconds, peak = measure(model, side, settings, device)
                except torch.OutOfMemoryError:
                    yield f"{line}| out of memory |"
                    continue
                share = (
                    "" if asked.tiny else f" {useful_flop(shape, side) / seconds / asked.peak / 1e12:.0%} of the peak |"
                )
                yield f"{line}| {seconds:.3f} s | {peak:.2f} GB |{share}"
        del model
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 768, 1024], help="px")
    parser.add_argument("--weights", nargs="+", choices=["bf16", "fp8", "nf4"], default=["bf16", "fp8", "nf4"])
    parser.add_argument("--recompute", nargs="+", choices=["on", "off"], default=["on", "off"])
    parser.add_argument("--optimizer", choices=[name.value for name in OptimizerName], default="adamw")
    parser.add_argument("--compile", action="store_true", help="torch.compile each block")
    parser.add_argument("--cap", type=float, help="GB of the device that may be used")
    parser.add_argument("--peak", type=float, default=989.0, help="the device's bf16 TFLOP/s (H100 and H200: 989)")
    parser.add_argument("--tiny", action="store_true", help="a transformer of two small blocks, also on a CPU")
    asked = parser.parse_args()
    if not torch.cuda.is_available() and not asked.tiny:
        parser.exit(2, "no CUDA device; --tiny runs on a CPU\n")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked.cap:
        torch.cuda.set_per_process_memory_fraction(
            asked.cap * GB / torch.cuda.get_device_properties(device).total_memory, device
        )
    for row in rows(asked, device):
        print(row, flush=True)


if __name__ == "__main__":
    main()
