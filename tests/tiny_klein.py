"""A random FLUX.2 klein in the real format, small enough for a test: `Flux2KleinPipeline.from_pretrained` loads it."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import Qwen2Tokenizer

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}{{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


def make_tiny_klein(folder: Path) -> Path:
    """Write the folder and return it. VAE factor 4, so a token covers 8 px; weights are random but fixed."""
    import torch
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen3Config, Qwen3ForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = Flux2Transformer2DModel(
            patch_size=1,
            in_channels=32,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * 16,
            timestep_guidance_channels=16,
            mlp_ratio=3.0,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
        vae = AutoencoderKLFlux2(
            block_out_channels=(8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=8,
        )
        vae.bn.running_mean.normal_(0, 0.1)
        vae.bn.running_var.uniform_(0.5, 1.5)
        qwen = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=300,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=4,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=8,
                tie_word_embeddings=True,
            )
        )
    pipeline = Flux2KleinPipeline(
        transformer=transformer,
        vae=vae,
        text_encoder=qwen,
        tokenizer=_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        is_distilled=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _tokenizer() -> "Qwen2Tokenizer":
    """Byte-level BPE without merges: every text becomes its letters."""
    from transformers import Qwen2Tokenizer

    letters = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    for special in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        vocabulary[special] = len(vocabulary)
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], model_max_length=512)
    tokenizer.chat_template = _TEMPLATE
    return tokenizer
