"""The frozen layers' matrix products, by whichever library fills this CPU's vectors.

torch multiplies float32 with MKL, which uses half the vector width on CPUs that are not Intel's; oneDNN, which torch
brings along, uses all of it and is up to 2.2 times as fast there. The numbers differ in the last bits.
"""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


@lru_cache
def onednn_is_faster() -> bool:
    """Whether this machine's CPU has wide vectors that MKL leaves half empty."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
    about = Path("/proc/cpuinfo")
    made_by_intel = not about.exists() or "GenuineIntel" in about.read_text(encoding="utf-8")
    return wide and not made_by_intel and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b by oneDNN, without gradients: (..., in), (out, in) -> (..., out); both may be transposed views."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


class _Frozen(torch.autograd.Function):
    """A layer whose weights get no gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.weight = weight
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        return product(gradient, ctx.weight.T), None, None


class FrozenLinear(nn.Linear):
    """A linear layer of the base that oneDNN computes where it may: float32, on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if not x.dtype == self.weight.dtype == torch.float32 or self.weight.requires_grad:
            return functional.linear(x, self.weight, self.bias)
        if torch.is_grad_enabled() and x.requires_grad:
            return _Frozen.apply(x, self.weight, self.bias)
        return product(x, self.weight, self.bias)


def use_onednn(model: nn.Module) -> None:
    """Have the plain linear layers of a model on the CPU computed by oneDNN; their weights stay as they are."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = FrozenLinear
