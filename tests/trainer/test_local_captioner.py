"""Captioning models of transformers: tiny random ones of the classes people use, loaded from their folders."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.trainer.tiny_captioners import make_florence, make_llava, make_qwen
from trainer.answers import CaptionerDown
from trainer.captioner_settings import CaptionerKind, CaptionerSettings
from trainer.local_captioner import LocalCaptioner

TASK = {"task": "<MORE_DETAILED_CAPTION>", "rewrites": False}
MAKERS: dict[str, Callable[[Path], Path]] = {"llava": make_llava, "qwen": make_qwen, "florence": make_florence}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that returns the folder of a model, made once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = MAKERS[name](tmp_path_factory.mktemp(name))
        return made[name]

    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    for colour, size in (("red", (40, 30)), ("blue", (30, 44))):
        Image.effect_noise(size, 60).convert("RGB").save(tmp_path / f"{colour}.png")
    return [tmp_path / "red.png", tmp_path / "blue.png"]


def captioner(folder: Path, **changes: object) -> LocalCaptioner:
    asked = {"max_tokens": 6, "device": "cpu", **changes}
    return LocalCaptioner(CaptionerSettings(CaptionerKind.local, str(folder), **asked))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["llava", "qwen"])
def test_a_model_with_chat_answers_with_new_words_only_and_always_the_same(
    name: str, models: Callable[[str], Path], pictures: list[Path]
) -> None:
    model = captioner(models(name))
    answer = model.ask("word1 word2", pictures[0], attempt=0)
    assert 0 < len(answer.split()) <= 6
    assert "user" not in answer.split()[:1]
    assert model.ask("word1 word2", pictures[0], attempt=0) == answer
    assert captioner(models(name)).ask("word1 word2", pictures[0], attempt=0) == answer
    assert model.ask("word3 word4", None, attempt=0)  # rewriting shows no picture
    assert model.ask("word1 word2", pictures[1], attempt=0)  # another shape
    assert model.name == f"model {models(name)} on this machine"


def test_a_model_without_chat_is_told_its_task_instead_of_the_prompt(
    models: Callable[[str], Path], pictures: list[Path]
) -> None:
    model = captioner(models("florence"), **TASK)
    answer = model.ask("word1", pictures[0], attempt=0)
    assert answer == model.ask("word2 word3", pictures[0], attempt=0) != ""
    assert "<" not in answer
    with pytest.raises(CaptionerDown, match=r"no chat template.*captioner\.task.*captioner\.rewrites=false"):
        captioner(models("florence")).ask("word1", pictures[0], attempt=0)


def test_a_local_model_that_is_not_there_or_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptionerDown, match="hf download someone/florence"):
        captioner(Path("someone/florence"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaptionerDown, match="cannot be loaded"):
        captioner(tmp_path / "empty").ask("word1", None, attempt=0)
