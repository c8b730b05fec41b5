"""Seconds per step and peak memory of a LoRA's training on FLUX.1-dev's real shape, with random weights.

    python bench/flux_step.py --table rows.md                    # everything; the same command does the rows left
    python bench/flux_step.py --table rows.md --only nf4         # rows whose name begins so
    python bench/flux_step.py --tiny --minutes 3                 # a CPU's smoke test of this script

Needs a GPU for anything but --tiny, and no weights: they are drawn on the device. The rows: 512, 768 and 1024 px for
weights in bf16, fp8 and NF4, with and without recomputed activations, and compiled blocks; and `memory=12gb` with
no more than 12 GB to be had: encoding a caption, encoding a picture, and a training step.

No row is begun that would end after `--minutes`, since machines are lent for minutes. A row is written when it is done;
those in the table are not measured again. One that runs out of memory, or fails, says so and the others go on. The
share of the device's peak counts 2 L + 3 A, without what is recomputed (`trainer.estimate`).
"""

import argparse
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from torch import nn

from trainer.compiling import compile_blocks
from trainer.estimate import GB, KNOWN_SHAPES, PRESETS, Shape, memory, preset_settings
from trainer.flow import picture_ids
from trainer.lora import Lora
from trainer.memory import activations_recomputed, forget_peak, peak_bytes
from trainer.optimizers import OPTIMIZERS
from trainer.packing import nf4_linear
from trainer.plan import make_plan
from trainer.settings import (
    BaseSettings,
    Dtype,
    LoraSettings,
    MixSettings,
    OptimizerName,
    OptimizerSettings,
    Quantize,
    Targets,
    TrainSettings,
)

TINY = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 4}
SHAPE = KNOWN_SHAPES["black-forest-labs/FLUX.1-dev"]
SIDES = (512, 768, 1024)  # px
TEXT = 512  # tokens
CARD = 12.0  # GB, of the preset
ENCODING = ("text", "vae")  # rows that do not train
WARM, MEASURED = 3, 10  # steps
HEAD = (
    "| weights | side | recomputed | compiled | GB there | s a step | peak GB | estimated | reserved | of the peak |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    weights: str  # of the transformer: bf16, fp8, nf4; or the part of the preset that encodes: text, vae
    side: int
    recomputed: bool = False
    compiled: bool = False
    card: float | None = None  # GB that may be used; None: all of the device

    @property
    def name(self) -> str:
        """The line's first cells, by which it is found again."""
        yes = {True: "yes", False: "no"}
        card = "all" if self.card is None else f"{self.card:g}"
        return f"{self.weights} | {self.side} | {yes[self.recomputed]} | {yes[self.compiled]} | {card}"

    @property
    def model(self) -> tuple[str, bool, float | None]:
        """Rows of equal models share one."""
        return self.weights, self.compiled, self.card


def all_rows() -> list[Row]:
    """What the table is to hold, the most wanted first."""
    weights = {Quantize.none: "bf16"}
    preset = PRESETS["12gb"]
    quantize, again = preset["quantize"], preset["gradient_checkpointing"]
    twelve = [Row("text", 0, card=CARD), Row("vae", SIDES[-1], card=CARD)]
    twelve += [Row(weights.get(quantize, quantize), side, again, card=CARD) for side in SIDES]
    grid = [
        Row(kept, side, recomputed, compiled)
        for compiled, kept, recomputed, side in product((False, True), ("bf16", "fp8", "nf4"), (True, False), SIDES)
    ]
    return twelve + grid


def transformer(weights: str, tiny: bool, device: torch.device) -> FluxTransformer2DModel:
    """FLUX.1-dev's shape with random weights in bf16, fp8 (layerwise casting) or nf4 (bitsandbytes)."""
    small = {**TINY, "axes_dims_rope": (4, 6, 6), "joint_attention_dim": 64} if tiny else {}
    with torch.device("meta"):
        model = FluxTransformer2DModel(guidance_embeds=True, **small)
    model = model.to(torch.bfloat16)
    if weights == "nf4":
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, _nf4(child, device))
    _draw_weights(model, device)
    if weights == "fp8":
        model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    return model.eval()


def _draw_weights(model: nn.Module, device: torch.device) -> None:
    """Random weights for all that have none."""
    for name, weight in list(model.named_parameters()):
        if weight.device.type == "meta":
            module, _, leaf = name.rpartition(".")
            drawn = torch.empty(weight.shape, dtype=weight.dtype, device=device).normal_(0, 0.02)
            setattr(model.get_submodule(module), leaf, nn.Parameter(drawn, requires_grad=False))


def _nf4(linear: nn.Linear, device: torch.device) -> nn.Module:
    drawn = torch.empty(linear.weight.shape, dtype=torch.bfloat16, device=device).normal_(0, 0.02)
    bias = None if linear.bias is None else torch.zeros(linear.bias.shape, dtype=torch.bfloat16, device=device)
    return nf4_linear(drawn, bias, torch.bfloat16, device)


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


def settings_of(row: Row, optimizer: OptimizerName) -> TrainSettings:
    """A training like conf/train/flux.yaml's."""
    return TrainSettings(
        lora=LoraSettings(rank=16, targets=Targets.attention),
        optimizer=OptimizerSettings(optimizer),
        gradient_checkpointing=row.recomputed,
    )


def train_seconds(model: FluxTransformer2DModel, side: int, settings: TrainSettings, device: torch.device) -> float:
    """Seconds per step."""
    lora = Lora(model, settings.lora, 0, device)
    weights = list(lora.parameters.values())
    optimizer = OPTIMIZERS[settings.optimizer.name](weights, settings.optimizer)
    given, times = inputs(model, side, device), []
    with lora.plugged_in(), activations_recomputed(model, settings):
        for _ in range(WARM + MEASURED):
            began = time.perf_counter()
            loss = model(**given, return_dict=False)[0].float().square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, settings.optimizer.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()  # waits for the device, as the training does
            _wait(device)
            times.append(time.perf_counter() - began)
    return sum(times[WARM:]) / MEASURED


@torch.no_grad()
def encode_seconds(part: str, side: int, tiny: bool, device: torch.device) -> float:
    """Seconds to encode a caption by FLUX.1's T5 in bfloat16, or a picture by its VAE in float32."""
    from transformers import AutoModelForTextEncoding, T5Config

    with device:
        if part == "text":
            wide = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
            config = T5Config(**({} if tiny else wide), feed_forward_proj="gated-gelu", vocab_size=32128)
            model: Any = AutoModelForTextEncoding.from_config(config, dtype=torch.bfloat16)
        else:
            model = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(8,) * 4 if tiny else (128, 256, 512, 512),
                layers_per_block=2,
                latent_channels=16,
                norm_num_groups=8 if tiny else 32,
            )
    forget_peak(device)
    began = time.perf_counter()
    if part == "text":
        model(torch.zeros(1, TEXT, dtype=torch.long, device=device))
    else:
        model.encode(torch.rand(1, 3, side, side, device=device))
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def useful_flop(shape: Shape, side: int) -> float:
    """2 L + 3 A of one picture, without recomputing."""
    tokens = (side // 16) ** 2 + TEXT
    return 2 * 2 * shape.per_token * tokens + 3 * (shape.double + shape.single) * 4 * shape.width * tokens**2


def estimated(row: Row, settings: TrainSettings) -> float:
    """GB that `python -m sweep.plan` would have told."""
    picture = type("Square", (), {"width": row.side or SIDES[0], "height": row.side or SIDES[0]})()
    sides = MixSettings({row.side or SIDES[0]: 1}, batch_size=1)
    plan = make_plan([picture], sides, scale=1.0, step=16, seed=0)
    kept = Quantize.none if row.weights == "bf16" else Quantize(row.weights) if row.weights in ("fp8", "nf4") else None
    base = BaseSettings(path="black-forest-labs/FLUX.1-dev", dtype=Dtype.bfloat16, offload=True)
    if kept is None:
        return memory(SHAPE, plan, *preset_settings("12gb", base, settings)).encoding
    base.quantize = kept
    return memory(SHAPE, plan, base, settings).training


class Bench:
    """Measures rows one by one; those of equal models share one."""

    def __init__(self, asked: argparse.Namespace, device: torch.device) -> None:
        self.asked = asked
        self.device = device
        self.there = torch.cuda.get_device_properties(device).total_memory / GB if device.type == "cuda" else 0.0
        self.model: FluxTransformer2DModel | None = None
        self.model_of: tuple[str, bool, float | None] | None = None

    def line(self, row: Row) -> str:
        """The table's line of a row."""
        if row.model != self.model_of:
            self.model, self.model_of = None, row.model
        self._make_room(row.card)
        torch._dynamo.reset()  # each row is compiled for its own shapes
        try:
            seconds = self._seconds(row)
        except torch.OutOfMemoryError:
            return f"| {row.name} | out of memory | more than {min(row.card or self.there, self.there):.1f} | | | |"
        except Exception as error:  # a compiler's, a library's: the rows behind it are wanted all the same
            said = (str(error).splitlines() or [""])[0][:80].replace("|", "/")
            return f"| {row.name} | {type(error).__name__}: {said} | | | | |"
        peak, held = peak_bytes(self.device) / GB, 0.0
        if self.device.type == "cuda":
            held = torch.cuda.max_memory_reserved(self.device) / GB
        told = "" if row.weights == "vae" else f"{estimated(row, settings_of(row, self.asked.optimizer)):.1f}"
        share = ""
        if row.weights not in ENCODING and not self.asked.tiny:
            share = f"{useful_flop(SHAPE, row.side) / seconds / self.asked.peak / 1e12:.1%}"
        return f"| {row.name} | {seconds:.3f} | {peak:.2f} | {told} | {held:.2f} | {share} |"

    def _make_room(self, card: float | None) -> None:
        """Free what the row before held, and have no more than that many GB of the device."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            share = min(1.0, card / self.there) if card else 1.0
            torch.cuda.set_per_process_memory_fraction(share, self.device)
        forget_peak(self.device)

    def _seconds(self, row: Row) -> float:
        if row.weights in ENCODING:
            return encode_seconds(row.weights, row.side, self.asked.tiny, self.device)
        if self.model is None:
            self.model = transformer(row.weights, self.asked.tiny, self.device)
            if row.compiled:
                compile_blocks(self.model)
        forget_peak(self.device)
        return train_seconds(self.model, row.side, settings_of(row, self.asked.optimizer), self.device)


def in_time(work: Iterator[str], minutes: float, began: float) -> Iterator[str]:
    """What is done before the time is over, if the next takes as long as the longest so far."""
    longest = 0.0
    while time.monotonic() - began + longest < 60 * minutes:
        start = time.monotonic()
        line = next(work, None)
        if line is None:
            return
        longest = max(longest, time.monotonic() - start)
        yield line


def main() -> None:
    """The command line."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="file that rows are added to; those in it are not measured again")
    parser.add_argument("--only", default="", help="rows whose name begins so: 'nf4', 'bf16 | 512'")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this command")
    parser.add_argument(
        "--optimizer", type=OptimizerName, choices=list(OptimizerName), default=OptimizerName.adamw, help="of the LoRA"
    )
    parser.add_argument("--peak", type=float, default=989.0, help="the device's bf16 TFLOP/s (H100 and H200: 989)")
    parser.add_argument("--tiny", action="store_true", help="a transformer of two small blocks, also on a CPU")
    asked = parser.parse_args()
    if not torch.cuda.is_available() and not asked.tiny:
        parser.exit(2, "no CUDA device; --tiny runs on a CPU\n")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    done = asked.table.read_text(encoding="utf-8") if asked.table and asked.table.is_file() else ""
    left = [row for row in all_rows() if row.name.startswith(asked.only) and f"| {row.name} |" not in done]
    if not done:
        _write("\n".join(HEAD), asked.table)
    count = 0
    bench = Bench(asked, device)
    for line in in_time(map(bench.line, left), asked.minutes, began):
        _write(line, asked.table)
        count += 1
    print(f"{count} rows measured, {len(left) - count} left")


def _write(line: str, table: Path | None) -> None:
    print(line, flush=True)
    if table is not None:
        with table.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


if __name__ == "__main__":
    main()
