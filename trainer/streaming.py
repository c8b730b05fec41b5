"""Blocks that lie in main memory and are on the device only while they compute.

diffusers' group offloading sends the next block ahead by the order of a forward pass. Recomputed in a backward pass,
which goes the other way, that leaves every block on the device; so here a block's weights come when it begins and are
let go when it ends. What its backward pass still needs of them, autograd holds.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def stream_blocks(blocks: Iterable[nn.Module], device: torch.device) -> None:
    """Have each block's weights in main memory but while it computes. Its activations must be recomputed in training:
    otherwise autograd holds all weights at once.

    Weights of bitsandbytes leave their scales on the device, a thirtieth of their size; torchao's cannot be streamed.
    """
    for block in blocks:
        kept = [(weight, _at_rest(weight.data, device)) for weight in (*block.parameters(), *block.buffers())]

        def bring(module: nn.Module, inputs: Any, kept: list[tuple[Tensor, Tensor]] = kept) -> None:
            for weight, rest in kept:
                weight.data = rest.to(device, non_blocking=True)  # in the order of the stream that computes

        def let_go(module: nn.Module, inputs: Any, output: Any, kept: list[tuple[Tensor, Tensor]] = kept) -> None:
            for weight, rest in kept:
                weight.data = rest

        block.register_forward_pre_hook(bring)
        block.register_forward_hook(let_go, always_call=True)  # recomputing stops a block before its end
        let_go(block, None, None)


def _at_rest(weight: Tensor, device: torch.device) -> Tensor:
    """A copy in main memory, from which a GPU can read by itself."""
    there = weight.to("cpu")
    return there.pin_memory() if device.type == "cuda" else there
