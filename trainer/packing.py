"""Weights in fewer bits, packed layer by layer: what diffusers does while it reads a folder. A single file it takes for
packed already: it refuses NF4, and leaves int8 as it was without a word.
"""

from typing import Any

import torch
from torch import Tensor, nn

from trainer.settings import Quantize


def pack_linears(model: nn.Module, quantize: Quantize, dtype: torch.dtype, device: torch.device) -> None:
    """Have all linear layers of a model on the device, in int8 (torchao) or NF4 (bitsandbytes).

    Args:
        dtype: what NF4 is computed in.
    """
    if quantize == Quantize.int8:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(model, Int8WeightOnlyConfig(), device=device)
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                bias = None if child.bias is None else child.bias.data
                setattr(module, name, nf4_linear(child.weight.data, bias, dtype, device))
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # by which peft knows


def nf4_linear(weight: Tensor, bias: Tensor | None, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """A layer of bitsandbytes on the device, its scales packed as well.

    Args:
        weight: (out, in), on any device.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit

    rows, columns = weight.shape
    packed: Any = Linear4bit(columns, rows, bias is not None, compute_dtype=dtype, quant_type="nf4", device="meta")
    packed.weight = Params4bit(weight.to(device), requires_grad=False, quant_type="nf4", module=packed)
    packed.bias = None if bias is None else nn.Parameter(bias.to(device), requires_grad=False)
    return packed.to(device)
