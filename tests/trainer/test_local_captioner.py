"""A captioning model of transformers: a tiny random LLaVA (JoyCaption's class), loaded from a folder."""

from pathlib import Path

import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from trainer.answers import CaptionerDown
from trainer.captioner_settings import CaptionerKind, CaptionerSettings
from trainer.local_captioner import LocalCaptioner

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "user", ":", *(f"word{n}" for n in range(25))]
CHAT = (
    "{% for message in messages %}{{ message.role }} : {% for part in message.content %}"
    "{% if part.type == 'image' %}<image> {% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 px pictures in patches of 8, two layers of width 16."""
    import torch

    folder = tmp_path_factory.mktemp("llava")
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    pixels = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    LlavaProcessor(
        image_processor=pixels,
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
        image_token="<image>",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        ).to_dict(),
        text_config=LlamaConfig(
            vocab_size=len(WORDS), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
        ).to_dict(),
        image_token_index=WORDS.index("<image>"),
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 0
    model.generation_config.suppress_tokens = list(range(5))  # a random model would say little but marks
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def captioner(folder: Path, **changes: object) -> LocalCaptioner:
    asked = {"max_tokens": 6, "device": "cpu", **changes}
    return LocalCaptioner(CaptionerSettings(CaptionerKind.local, str(folder), **asked))  # type: ignore[arg-type]


def test_a_local_model_answers_with_new_words_only_and_always_the_same(llava: Path, picture: Path) -> None:
    model = captioner(llava)
    answer = model.ask("word1 word2", picture, attempt=0)
    assert 0 < len(answer.split()) <= 6
    assert "user" not in answer.split()[:1]
    assert model.ask("word1 word2", picture, attempt=0) == answer
    assert captioner(llava).ask("word1 word2", picture, attempt=0) == answer
    assert model.name == f"model {llava} on this machine"


def test_a_local_model_rewrites_without_a_picture(llava: Path) -> None:
    assert captioner(llava).ask("word3 word4", None, attempt=0)


def test_a_model_without_chat_is_told_its_task_instead_of_the_prompt(llava: Path, picture: Path) -> None:
    model = captioner(llava, task="<image> word5", rewrites=False)
    answer = model.ask("word1", picture, attempt=0)
    assert answer == model.ask("word2 word3", picture, attempt=0) != ""


def test_a_local_model_that_is_not_there_or_cannot_be_loaded_is_named(llava: Path, tmp_path: Path) -> None:
    with pytest.raises(CaptionerDown, match="hf download someone/florence"):
        captioner(Path("someone/florence"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaptionerDown, match="cannot be loaded"):
        captioner(tmp_path / "empty").ask("word1", None, attempt=0)
