"""Flux's attention as one plain function, for CPUs.

The mathematics is that of diffusers' own processor (a test compares the two). Two things differ, and together they make
a training step on a CPU up to a third faster: the product runs in float32, since the bfloat16 backward of torch's CPU
kernel takes three times as long; and rotary places turn pairs of channels as complex numbers.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class CpuAttention:
    """A diffusers attention processor for FluxAttention."""

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend over picture tokens (N, P, D), in double blocks with text tokens (N, T, D) in front."""
        query, key, value = _project(attn, hidden_states, "to_{}", "norm_{}")
        if encoder_hidden_states is not None:
            text = _project(attn, encoder_hidden_states, "add_{}_proj", "norm_added_{}")
            query, key, value = (torch.cat(pair, dim=1) for pair in zip(text, (query, key, value), strict=True))
        if image_rotary_emb is not None:
            query, key = _rotate(query, image_rotary_emb), _rotate(key, image_rotary_emb)
        heads = (query.float().transpose(1, 2), key.float().transpose(1, 2), value.float().transpose(1, 2))
        mixed = scaled_dot_product_attention(*heads, attn_mask=attention_mask)  # (N, heads, T + P, head)
        mixed = mixed.transpose(1, 2).flatten(2).to(hidden_states.dtype)
        if encoder_hidden_states is None:
            return mixed
        count = encoder_hidden_states.shape[1]
        return attn.to_out[0](mixed[:, count:]), attn.to_add_out(mixed[:, :count])  # type: ignore[index, operator]


def _project(attn: nn.Module, states: Tensor, layer: str, norm: str) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value (N, tokens, heads, head), the first two normalised."""
    query, key, value = (getattr(attn, layer.format(name))(states).unflatten(-1, (-1, attn.head_dim)) for name in "qkv")
    return getattr(attn, norm.format("q"))(query), getattr(attn, norm.format("k"))(key), value


def _rotate(states: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn channel pairs by their places: states (N, tokens, heads, head), cosines and sines (tokens, head)."""
    turns = torch.complex(rotary[0][:, ::2].float(), rotary[1][:, ::2].float())[:, None]
    pairs = torch.view_as_complex(states.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2)
