"""Random captioning models in the real formats, small enough for a test: `from_pretrained` loads each from its folder.

LLaVA is JoyCaption's class, Qwen2.5-VL that of the Qwen-VL family, Florence-2 a model without chat.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MARKS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<|video|>", "<start>", "<end>"]
WORDS = [*MARKS, "user", ":", "Describe", "with", "a", "paragraph", *(f"word{n}" for n in range(25))]
CHAT = (
    "{% for message in messages %}{{ message.role }} : {% for part in message.content %}"
    "{% if part.type == 'image' %}<image> {% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
)


def _tokenizer() -> "PreTrainedTokenizerFast":
    """A word a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>", "video_token": "<|video|>"},
    )
    made.add_special_tokens({"additional_special_tokens": MARKS[4:]})
    return made


def _saved(model: Any, folder: Path) -> Path:
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 0
    model.generation_config.suppress_tokens = [0, *range(3, len(MARKS))]  # a random model would say little but marks
    model.save_pretrained(folder)
    return folder


def make_llava(folder: Path) -> Path:
    """16 px pictures in patches of 8, two layers of width 16."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    pixels = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    LlavaProcessor(
        image_processor=pixels,
        tokenizer=_tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
        image_token="<image>",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=16, patch_size=8, **size).to_dict(),
        text_config=LlamaConfig(vocab_size=len(WORDS), **size).to_dict(),
        image_token_index=WORDS.index("<image>"),
    )
    return _saved(LlavaForConditionalGeneration(config), folder)


def make_qwen(folder: Path) -> Path:
    """Pictures in patches of 14, four of which are a token; two layers of width 16 on each side."""
    import torch
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    limits = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**limits),
        tokenizer=_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(**limits),
        chat_template=CHAT,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [1],
        },
        text_config={
            "vocab_size": len(WORDS),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        image_token_id=WORDS.index("<image>"),
        video_token_id=WORDS.index("<|video|>"),
        vision_start_token_id=WORDS.index("<start>"),
        vision_end_token_id=WORDS.index("<end>"),
    )
    return _saved(Qwen2_5_VLForConditionalGeneration(config), folder)


def make_florence(folder: Path) -> Path:
    """32 px pictures, a DaViT of one block a stage, a BART of one layer."""
    import torch
    from transformers import (
        BartConfig,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )
    from transformers.models.florence2.configuration_florence2 import Florence2VisionConfig

    pixels = CLIPImageProcessor(
        size={"height": 64, "width": 64}, crop_size={"height": 64, "width": 64}, do_center_crop=False
    )
    pixels.image_seq_length = 5
    Florence2Processor(image_processor=pixels, tokenizer=_tokenizer()).save_pretrained(folder)
    torch.manual_seed(0)
    config = Florence2Config(
        vision_config=Florence2VisionConfig(
            depths=(1, 1, 1, 1),
            embed_dim=(8, 8, 16, 16),
            num_heads=(2, 2, 2, 2),
            num_groups=(2, 2, 2, 2),
            window_size=2,
            projection_dim=16,
        ).to_dict(),
        text_config=BartConfig(
            vocab_size=len(WORDS),
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=2,
            forced_eos_token_id=2,
            is_encoder_decoder=True,
        ).to_dict(),
        image_token_id=WORDS.index("<image>"),
    )
    return _saved(Florence2ForConditionalGeneration(config), folder)
