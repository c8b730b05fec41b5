"""Optimisers by name, from kept libraries, and their memory as plain tensors.

What an optimiser remembers differs: two averages, rows and columns, 8-bit blocks, a rate of its own. It is stored as it
lies there, tensors and numbers alike, so that a continued training goes on bit by bit whichever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.settings import OptimizerName, OptimizerSettings

Weights = Sequence[Tensor]


def _adamw(weights: Weights, settings: OptimizerSettings) -> Optimizer:
    low, high = settings.betas
    return torch.optim.AdamW(
        weights, lr=settings.learning_rate, betas=(low, high), weight_decay=settings.weight_decay, fused=True
    )


def _adamw8bit(weights: Weights, settings: OptimizerSettings) -> Optimizer:
    from bitsandbytes.optim import AdamW8bit

    low, high = settings.betas
    return AdamW8bit(
        list(weights), lr=settings.learning_rate, betas=(low, high), weight_decay=settings.weight_decay
    )  # weights of less than 4,096 numbers keep averages of 32 bits


def _adafactor(weights: Weights, settings: OptimizerSettings) -> Optimizer:
    from transformers.optimization import Adafactor

    # With the rate given from outside, as the Flux trainers use it.
    return Adafactor(
        list(weights),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        relative_step=False,
        scale_parameter=False,
    )


def _prodigy(weights: Weights, settings: OptimizerSettings) -> Optimizer:
    from prodigyopt import Prodigy

    low, high = settings.betas
    with redirect_stdout(None):  # it prints that it decouples the decay
        return Prodigy(
            weights,
            lr=settings.learning_rate,
            betas=(low, high),
            weight_decay=settings.weight_decay,
            use_bias_correction=True,
            safeguard_warmup=True,
        )


OPTIMIZERS: dict[OptimizerName, Callable[[Weights, OptimizerSettings], Optimizer]] = {
    OptimizerName.adamw: _adamw,
    OptimizerName.adamw8bit: _adamw8bit,
    OptimizerName.adafactor: _adafactor,
    OptimizerName.prodigy: _prodigy,
}


def read_memory(optimizer: Optimizer, weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """All that the optimiser remembers, on the CPU: of each weight under its name, of itself under `optimizer.`."""
    memory = {}
    for name, weight in weights.items():
        for key, value in optimizer.state[weight].items():
            if value is not None:
                memory[f"{name}.{key}"] = _tensor(value)
    for key, value in optimizer.param_groups[0].items():
        if key != "params" and isinstance(value, (int, float, Tensor)):
            memory[f"optimizer.{key}"] = _tensor(value)
    return memory


def write_memory(optimizer: Optimizer, weights: Mapping[str, nn.Parameter], memory: Mapping[str, Tensor]) -> None:
    """Have an optimiser that has not stepped yet remember what `read_memory` returned."""
    for name, weight in weights.items():
        held = {key.removeprefix(f"{name}."): value for key, value in memory.items() if key.startswith(f"{name}.")}
        optimizer.state[weight] = {key: _as_stored(value, weight) for key, value in held.items()}
    for group in optimizer.param_groups:
        for key, value in group.items():
            stored = memory.get(f"optimizer.{key}")
            if key != "params" and stored is not None:
                group[key] = stored.to(value.device) if isinstance(value, Tensor) else type(value)(stored.item())


def _tensor(value: Tensor | float) -> Tensor:
    """A number as a tensor that gives it back exactly; numbers are told from tensors by their one more dimension."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone().contiguous()
    return torch.tensor([[[[value]]]], dtype=torch.int64 if isinstance(value, int) else torch.float64)


def _as_stored(value: Tensor, weight: Tensor) -> Tensor | float:
    return value.item() if value.ndim == 4 else value.to(weight.device)
