"""Flux's attention as one plain function, and its single blocks, for CPUs.

The mathematics is that of diffusers' own classes (a test compares them). Of attention two things differ, and together
they make a training step on a CPU up to a third faster: the product runs in float32, since the bfloat16 backward of
torch's CPU kernel takes three times as long; and rotary places turn pairs of channels as complex numbers. Of the
blocks, the last one computes the picture's tokens alone, as nobody reads what became of the text's.
"""

import torch
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock
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
        unasked: int = 0,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend over picture tokens (N, P, D), in double blocks with text tokens (N, T, D) in front.

        Args:
            unasked: tokens in front that are attended to, but attend to nothing; what is returned lacks them.
        """
        query, key, value = _project(attn, hidden_states, "to_{}", "norm_{}", unasked)
        if encoder_hidden_states is not None:
            text = _project(attn, encoder_hidden_states, "add_{}_proj", "norm_added_{}")
            query, key, value = (torch.cat(pair, dim=1) for pair in zip(text, (query, key, value), strict=True))
        if image_rotary_emb is not None:
            asking = (image_rotary_emb[0][unasked:], image_rotary_emb[1][unasked:])
            query, key = _rotate(query, asking), _rotate(key, image_rotary_emb)
        heads = (query.float().transpose(1, 2), key.float().transpose(1, 2), value.float().transpose(1, 2))
        mixed = scaled_dot_product_attention(*heads, attn_mask=attention_mask)  # (N, heads, T + P, head)
        mixed = mixed.transpose(1, 2).flatten(2).to(hidden_states.dtype)
        if encoder_hidden_states is None:
            return mixed
        count = encoder_hidden_states.shape[1]
        return attn.to_out[0](mixed[:, count:]), attn.to_add_out(mixed[:, :count])  # type: ignore[index, operator]


class CpuSingleBlock(FluxSingleTransformerBlock):
    """A single block with `CpuAttention`."""

    unasked = False  # whether the text's tokens are left as they come

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        joint_attention_kwargs: dict[str, object] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Text (N, T, D) and picture (N, P, D) through the block."""
        count = encoder_hidden_states.shape[1]
        unasked = count if self.unasked else 0
        both = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        normed, gate = self.norm(both, emb=temb)
        attended = self.attn.processor(self.attn, normed, image_rotary_emb=image_rotary_emb, unasked=unasked)
        inner = self.act_mlp(self.proj_mlp(normed[:, unasked:].contiguous()))
        both = both[:, unasked:] + gate.unsqueeze(1) * self.proj_out(torch.cat([attended, inner], dim=2))
        return (encoder_hidden_states, both) if unasked else (both[:, :count], both[:, count:])


class _LastBlock(CpuSingleBlock):
    unasked = True


def use_cpu_blocks(transformer: nn.Module) -> None:
    """Have the attention and the single blocks of a Flux computed as a CPU likes it; all weights stay as they are."""
    transformer.set_attn_processor(CpuAttention())  # type: ignore[operator]
    *others, last = transformer.single_transformer_blocks  # type: ignore[misc]
    for block in others:
        block.__class__ = CpuSingleBlock
    last.__class__ = _LastBlock


def _project(attn: nn.Module, states: Tensor, layer: str, norm: str, unasked: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value (N, tokens, heads, head), the first two normalised."""
    asking = states[:, unasked:].contiguous()
    given = zip("qkv", (asking, states, states), strict=True)
    query, key, value = (getattr(attn, layer.format(name))(x).unflatten(-1, (-1, attn.head_dim)) for name, x in given)
    return getattr(attn, norm.format("q"))(query), getattr(attn, norm.format("k"))(key), value


def _rotate(states: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn channel pairs by their places: states (N, tokens, heads, head), cosines and sines (tokens, head)."""
    turns = torch.complex(rotary[0][:, ::2].float(), rotary[1][:, ::2].float())[:, None]
    pairs = torch.view_as_complex(states.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2)
