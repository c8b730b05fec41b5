"""The CPU's attention and single blocks against diffusers' own, forward and backward."""

from copy import deepcopy

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor, FluxSingleTransformerBlock
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


@pytest.mark.parametrize("learning", [True, False])
def test_the_transformer_and_its_gradients_are_those_of_diffusers(base: FluxBase, learning: bool) -> None:
    plain = deepcopy(base.transformer)
    plain.set_attn_processor(FluxAttnProcessor())
    for block in plain.single_transformer_blocks:
        block.__class__ = FluxSingleTransformerBlock
    generator = torch.Generator().manual_seed(0)
    config = plain.config
    picture = torch.randn(2, 12, config.in_channels, generator=generator, requires_grad=learning)
    text = torch.randn(2, 4, config.joint_attention_dim, generator=generator)
    given = {
        "encoder_hidden_states": text,
        "pooled_projections": torch.randn(2, config.pooled_projection_dim, generator=generator),
        "timestep": torch.tensor([0.2, 0.9]),
        "guidance": torch.ones(2) if config.guidance_embeds else None,
        "txt_ids": torch.zeros(4, 3),
        "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(3.0)),
        "return_dict": False,
    }
    results: list[list[Tensor]] = []
    for transformer in (base.transformer, plain):
        with torch.set_grad_enabled(learning):
            (out,) = transformer(hidden_states=picture, **given)
        results.append([out, *(torch.autograd.grad(out.square().sum(), picture) if learning else ())])
    assert type(base.transformer.single_transformer_blocks[-1]) is not FluxSingleTransformerBlock
    assert all(torch.allclose(x, y, atol=1e-5, rtol=1e-4) for x, y in zip(*results, strict=True))
