"""Tags by a WD14-type tagger: a tiny ONNX model made here, in the taggers' own layout."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from trainer.answers import CaptionerDown
from trainer.captioner_settings import CaptionerSettings, TaggerSettings
from trainer.captioning import make_captions
from trainer.captions import caption
from trainer.examples import Example, read_examples
from trainer.settings import CaptionSettings, Strategy

# tag, category, and how much of the picture's mean blue, green, red makes it likely
TAGS = [
    ("general", "9", (0.0, 0.0, 0.0)),
    ("red_flower", "0", (0.0, 0.0, 1.0)),
    ("blue_sky", "0", (1.0, 0.0, 0.0)),
    ("engraving", "0", (0.0, 0.0, 0.9)),
    ("some_heroine", "4", (0.0, 0.0, 1.0)),
    ("^_^", "0", (0.0, 0.0, 0.8)),
]


@pytest.fixture(scope="session")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tagger whose scores are the mean of a channel: (1, 16, 16, 3) BGR in [0, 255] -> (1, tags)."""
    folder = tmp_path_factory.mktemp("tagger")
    weights = np.array([row[2] for row in TAGS], dtype=np.float32).T / 255
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["scores"]),
        ],
        "tagger",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 16, 16, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", len(TAGS)])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([1, 2]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    lines = ["tag_id,name,category,count", *(f"{n},{name},{kind},1" for n, (name, kind, _) in enumerate(TAGS))]
    (folder / "selected_tags.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> list[Example]:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (40, 40), (255, 0, 0)).save(folder / "red.png")
    Image.new("RGB", (40, 20), (0, 0, 255)).save(folder / "sky.png")  # padded with white to a square
    (folder / "red.tags").write_text("written by hand")
    return read_examples(folder)


def tags(pictures: list[Example], settings: TaggerSettings, strategy: CaptionSettings) -> list[str]:
    kept = pictures[0].path.parents[1] / "answers"
    made = make_captions(pictures, strategy, CaptionerSettings(), settings, kept=kept)
    assert made.by == f"tagger {settings.model}"
    return [caption(example, strategy, epoch=0, seed=0) for example in made.examples]


def test_tags_come_from_the_pixels_likeliest_first_without_ratings_and_characters(
    tagger: Path, pictures: list[Example]
) -> None:
    found = tags(pictures, TaggerSettings(str(tagger), threshold=0.6), CaptionSettings(Strategy.tags, strip=[]))
    assert found == ["red flower, engraving, ^_^", "blue sky"]


def test_thresholds_characters_and_style_words_are_switches(tagger: Path, pictures: list[Example]) -> None:
    asked = TaggerSettings(str(tagger), threshold=0.85, characters=True)
    assert tags(pictures, asked, CaptionSettings(Strategy.tags))[0] == "some heroine, red flower"
    asked = TaggerSettings(str(tagger), threshold=0.45, character_threshold=0.99)
    assert tags(pictures, asked, CaptionSettings(Strategy.tags, strip=[]))[1].startswith("blue sky, red flower")


def test_tags_are_kept_by_content(tagger: Path, pictures: list[Example], monkeypatch: pytest.MonkeyPatch) -> None:
    settings, strategy = TaggerSettings(str(tagger)), CaptionSettings(Strategy.tags)
    first = tags(pictures, settings, strategy)
    monkeypatch.setattr("trainer.tagger.Tagger", None)  # would not be needed
    assert tags(pictures, settings, strategy) == first
    Image.new("RGB", (40, 40), "green").save(pictures[0].path)
    with pytest.raises(TypeError):
        tags(pictures, settings, strategy)


def test_a_tagger_that_cannot_be_used_is_named(tagger: Path, pictures: list[Example], tmp_path: Path) -> None:
    strategy = CaptionSettings(Strategy.tags)
    for model, told in ((str(tmp_path / "none"), "no such folder"), ("a/tagger", "hf download a/tagger")):
        with pytest.raises(CaptionerDown, match=told):
            tags(pictures, TaggerSettings(model), strategy)
    broken = tmp_path / "broken"
    broken.mkdir()
    with pytest.raises(CaptionerDown, match=r"lacks model\.onnx and selected_tags\.csv"):
        tags(pictures, TaggerSettings(str(broken)), strategy)
    (broken / "model.onnx").write_text("no model")
    (broken / "selected_tags.csv").write_text("name,category\n")
    with pytest.raises(CaptionerDown, match="no ONNX model"):
        tags(pictures, TaggerSettings(str(broken)), strategy)
