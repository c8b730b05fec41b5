"""Keeping a training within its device: which blocks recompute, what was used, and what to change when it is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainer.base import find_base
from trainer.estimate import GB, fitting_preset, read_shape
from trainer.flux import FluxBase
from trainer.plan import Plan
from trainer.settings import TrainSettings


@contextmanager
def activations_recomputed(transformer: nn.Module, settings: TrainSettings) -> Iterator[None]:
    """Recompute activations in the backward pass, if the settings ask for it, in the first share of the blocks."""
    if not settings.gradient_checkpointing:
        yield
        return
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]  # type: ignore[misc]
    chosen = {id(block) for block in blocks[: round(settings.checkpointed_share * len(blocks))]}

    def recomputed(block: nn.Module, *inputs: Any) -> Any:
        if id(block) not in chosen:
            return block(*inputs)
        return checkpoint(block.__call__, *inputs, use_reentrant=False)

    transformer.enable_gradient_checkpointing(recomputed)  # type: ignore[operator]
    try:
        yield
    finally:
        transformer.disable_gradient_checkpointing()  # type: ignore[operator]


def forget_peak(device: torch.device) -> None:
    """Have `peak_bytes` tell of what comes from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Most memory that torch held on the device at once since `forget_peak`; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def device_gigabytes(device: torch.device) -> float:
    """Memory of the device, GB; 0 of a CPU, where no preset helps."""
    return torch.cuda.get_device_properties(device).total_memory / GB if device.type == "cuda" else 0.0


def out_of_memory_advice(base: FluxBase, settings: TrainSettings, plan: Plan) -> str:
    """Which preset would fit the device, for a training that did not."""
    capacity = device_gigabytes(base.device)
    shape = read_shape(find_base(base.settings))
    found = fitting_preset(shape, plan, base.settings, settings, capacity=capacity)
    if found is None:
        return "lower `mix.batch_size`, drop the largest side of `mix.repeats`, or set `base.group_offload`"
    return (
        f"memory={found[0]} needs about {found[1]:.0f} GB of the {capacity:.0f} GB there are; or lower mix.batch_size"
    )
