"""Equal settings with other files behind them are another study, and another trial."""

from pathlib import Path

import pytest

from metrics.settings import ScoreSettings
from sweep.contents import content_id, contents, judge_files
from sweep.errors import StudyMismatch
from sweep.schema import Config, DataNode
from sweep.settings import EvalSettings, SearchSettings
from sweep.study import open_study
from sweep.trial import identify
from trainer.settings import BaseSettings, Group, Prompt

PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
CLASSES = (
    *("FluxTransformer2DModel", "AutoencoderKL", "CLIPTextModel", "T5EncoderModel", "CLIPTokenizer", "T5Tokenizer"),
    "FlowMatchEulerDiscreteScheduler",
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Every folder a study reads, with a few letters where pictures and weights would be."""
    for name in ("pictures", "references", "encoder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one").write_text(name)
    (tmp_path / "lpips.pt").write_text("lpips")
    for part in PARTS:
        (tmp_path / "base" / part).mkdir(parents=True)
        (tmp_path / "base" / part / "model.safetensors").write_text(part)
    index = ", ".join(f'"{part}": ["x", "{kind}"]' for part, kind in zip(PARTS, CLASSES, strict=True))
    (tmp_path / "base" / "model_index.json").write_text(f"{{{index}}}")
    return Config(
        base=BaseSettings(path=str(tmp_path / "base")),
        data=DataNode(path=str(tmp_path / "pictures"), references=str(tmp_path / "references")),
        eval=EvalSettings(prompts=[Prompt("a house", seed=0, group=Group.unrelated)]),
        score=ScoreSettings(encoder=str(tmp_path / "encoder"), lpips_weights=str(tmp_path / "lpips.pt")),
    )


def test_a_hidden_file_does_not_count_and_a_new_name_does(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    before = content_id(tmp_path)
    (tmp_path / ".DS_Store").write_text("hidden")
    assert content_id(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert content_id(tmp_path) != before


def test_a_named_architecture_is_its_weights_file() -> None:
    score = ScoreSettings(encoder="ViT-B-32@weights/clip.safetensors", lpips_weights="w.pt")
    assert judge_files(score) == {"score.encoder": "weights/clip.safetensors", "score.lpips_weights": "w.pt"}


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("pictures/two", "data.path"),
        ("references/one", "data.references"),
        ("encoder/one", "score.encoder"),
        ("lpips.pt", "score.lpips_weights"),
        ("base/vae/model.safetensors", "vae"),
    ],
)
def test_a_study_is_not_continued_with_other_files_and_says_which(
    file: str, named: str, config: Config, tmp_path: Path
) -> None:
    study = tmp_path / "multirun" / "one"
    open_study(study, SearchSettings(), {}, contents({"": config})).ask()  # without a trial it may begin anew
    open_study(study, SearchSettings(), {}, contents({"": config}))
    (tmp_path / file).write_text("something else")
    with pytest.raises(StudyMismatch) as refused:
        open_study(study, SearchSettings(), {}, contents({"": config}))
    changed = [line for line in str(refused.value).splitlines() if "is now" in line]
    assert len(changed) == 1 and named in changed[0]


@pytest.mark.parametrize("file", ["pictures/one", "references/two", "encoder/one", "lpips.pt"])
def test_a_trial_is_another_one_with_other_files(file: str, config: Config, tmp_path: Path) -> None:
    before = identify(config, "base")
    assert identify(config, "base") == before
    (tmp_path / file).write_text("something else")
    assert identify(config, "base") != before
