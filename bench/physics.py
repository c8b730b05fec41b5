"""What a side had to compute, and what one core can: the share of the physical limit that a second was used for.

A step on a picture is twice the transformer's products and three times its attention (the base is frozen, so no
gradient of its weights), a sample is one forward pass a step of the sampler; encoders and decoder are left out. The
peak is measured, not read off a data sheet: the fastest of some products of large matrices, on one thread.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from bench.trials import BASE, SCALE, SIDE, TEXT_TOKENS, Point

TOKEN_PX = 8  # edge of a token on the sandbox, px


def flop_of(chosen: Sequence[Point], *, images: int | None = None, drawings: float = 1.0) -> float:
    """FLOP of a list of trials.

    Args:
        images: pictures trained on in all, where that is less than the trials' sum.
        drawings: times all prompts are drawn per trial, with the LoRA and without.
    """
    seen = sum(point.images for point in chosen) if images is None else images
    products, attention = _forward(SIDE * SIDE)
    sampler = yaml.safe_load(Path("conf/sample/sandbox.yaml").read_text(encoding="utf-8"))
    prompts = yaml.safe_load(Path("conf/eval/sandbox.yaml").read_text(encoding="utf-8"))["prompts"]
    drawn = sum(sum(_forward(p["width"] * p["height"] * SCALE**2)) for p in prompts) * sampler["steps"]
    return seen * (2 * products + 3 * attention) + drawings * len(chosen) * drawn


def _forward(area: float) -> tuple[float, float]:
    """FLOP of products and of attention in one forward pass for a picture of that area, px."""
    config = json.loads((Path(BASE) / "transformer" / "config.json").read_text(encoding="utf-8"))
    width = config["attention_head_dim"] * config["num_attention_heads"]
    blocks = config["num_layers"] + config["num_single_layers"]
    tokens = area / TOKEN_PX**2 + TEXT_TOKENS
    return 2 * 12 * width**2 * blocks * tokens, 4 * width * blocks * tokens**2


def peak_flops() -> float:
    """FLOP/s of one thread in float32."""
    import torch

    torch.set_num_threads(1)
    square, best = torch.rand(1024, 1024), float("inf")
    for _ in range(10):
        began = time.perf_counter()
        square @ square
        best = min(best, time.perf_counter() - began)
    return float(2 * 1024**3 / best)
