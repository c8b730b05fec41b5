"""A random Flux in the real format, small enough for a test: `FluxPipeline.from_pretrained` loads it offline.

Same classes, files and tokenizers as FLUX.1-dev; VAE factor 4, so a token covers 8 px. `python tests/tiny_flux.py
FOLDER` writes one, `--hidden 192 --layers 2 --single_layers 5` a larger one to measure speed with.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, T5Tokenizer

WORDS = [
    "a",
    "an",
    "the",
    "of",
    "in",
    "at",
    "on",
    "red",
    "blue",
    "large",
    "drawing",
    "engraving",
    "heart",
    "hand",
    "house",
]
SCALE = 0.125  # 512 FLUX px are 64 px here


def make_tiny_flux(folder: Path, *, hidden: int = 32, heads: int = 2, layers: int = 1, single_layers: int = 1) -> Path:
    """Write the folder and return it. Weights are random but fixed: the same on every call."""
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = hidden // heads
        edge = head * 3 // 8 // 2 * 2  # of the rotary channels 2/8 belong to the text's place, 3/8 to each picture axis
        transformer = FluxTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=layers,
            num_single_layers=single_layers,
            attention_head_dim=head,
            num_attention_heads=heads,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=True,
            axes_dims_rope=(head - 2 * edge, edge, edge),
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=16,
            scaling_factor=0.36,
            shift_factor=0.11,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        size = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 1, "num_attention_heads": 2}
        special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        clip = CLIPTextModel(CLIPTextConfig(vocab_size=400, projection_dim=32, **size, **special))
        t5 = T5EncoderModel(T5Config(vocab_size=256, d_model=32, d_ff=37, d_kv=8, num_layers=1, num_heads=2))
    pipeline = FluxPipeline(
        transformer=transformer,
        vae=vae,
        text_encoder=clip,
        text_encoder_2=t5,
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_image_seq_len=16,
            max_image_seq_len=256,
            base_shift=0.5,
            max_shift=1.15,
        ),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _clip_tokenizer() -> "CLIPTokenizer":
    """Byte-level BPE without merges: every text becomes its letters."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(vocabulary)}, merges=[], model_max_length=77)


def _t5_tokenizer() -> "T5Tokenizer":
    """Unigram over the words of a fixed list, and letters for what is not listed."""
    from transformers import T5Tokenizer

    letters = [chr(code) for code in range(33, 127)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [("▁" + word, -1.0) for word in WORDS] + [(letter, -5.0) for letter in letters]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name, default in (("hidden", 32), ("heads", 2), ("layers", 1), ("single_layers", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = vars(parser.parse_args())
    print(make_tiny_flux(arguments.pop("folder"), **arguments))
