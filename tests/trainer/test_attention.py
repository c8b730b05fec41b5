"""The CPU's attention against diffusers' own, forward and backward."""

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor
from torch import Tensor

from trainer.attention import CpuAttention
from trainer.flux import FluxBase


@pytest.mark.parametrize("blocks", ["transformer_blocks", "single_transformer_blocks"])
def test_attention_and_its_gradients_are_those_of_diffusers(base: FluxBase, blocks: str) -> None:
    attn = getattr(base.transformer, blocks)[0].attn
    rotary = base.transformer.pos_embed(torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(3.0)))
    generator = torch.Generator().manual_seed(0)
    double = blocks == "transformer_blocks"
    picture = torch.randn(2, 8 if double else 12, 32, generator=generator, requires_grad=True)
    text = torch.randn(2, 4, 32, generator=generator) if double else None
    results: list[list[Tensor]] = []
    for processor in (CpuAttention(), FluxAttnProcessor()):
        out = processor(attn, picture, text, image_rotary_emb=rotary)
        parts = list(out) if isinstance(out, tuple) else [out]
        (gradient,) = torch.autograd.grad(sum(part.square().sum() for part in parts), picture)
        results.append([*parts, gradient])
    assert all(torch.allclose(x, y, atol=1e-5) for x, y in zip(*results, strict=True))
