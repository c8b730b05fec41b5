"""The encoders for real pictures, on tiny models of the same formats: strict about files, one space each."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from scenes import other_styles, pictures, prompts

from metrics import Judge, ScoreError, ScoreSettings
from metrics.encoder import Encoder
from metrics.settings import Constraint, StyleEncoder
from metrics.structure import distances, layout
from metrics.vision import load_patch_encoder, load_style_encoders


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model("test_vit", num_classes=0).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def csd_state(encoder_folder) -> dict[str, torch.Tensor]:
    """A CSD of the tiny architecture, with the names of the published file."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        visual = open_clip.create_model("tiny-clip", precision="fp32").visual
        head = torch.randn(64, 32)
    trunk = {f"backbone.{k}": v for k, v in visual.state_dict().items() if k != "proj"}
    return trunk | {"last_layer_style": head, "last_layer_content": torch.randn(64, 32)}


@pytest.fixture(scope="module")
def csd_file(csd_state, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("csd") / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in csd_state.items()}, path)
    return path


def gpu_like(settings: ScoreSettings, csd_file: Path, timm_file: Path) -> ScoreSettings:
    """The layout of conf/score/flux.yaml, on tiny weights."""
    names = ["open_clip", f"csd:tiny-clip@{csd_file}", f"timm:test_vit@{timm_file}"]
    return replace(settings, style_encoders=names, patch_encoder=names[2], constraints=[Constraint.failures])


def test_every_network_gives_unit_vectors_of_pictures_of_any_size(settings, csd_file, timm_file):
    found = load_style_encoders(gpu_like(settings, csd_file, timm_file), Encoder(settings.encoder))
    assert list(found) == [StyleEncoder.open_clip, StyleEncoder.csd, StyleEncoder.timm]
    images = [*pictures("flat", range(2)), *pictures("hatch", range(2), (96, 48))]
    for name in (StyleEncoder.csd, StyleEncoder.timm):
        assert found[name].pictures(images).norm(dim=1) == pytest.approx(torch.ones(4), abs=1e-5)
    assert found[StyleEncoder.open_clip].pictures(images).isfinite().all()  # statistics, scaled by the style space


def test_csd_is_the_trunk_without_projection_times_the_style_head(settings, csd_state, csd_file):
    names = ["descriptor", f"csd:tiny-clip@{csd_file}"]
    found = load_style_encoders(replace(settings, style_encoders=names), Encoder(settings.encoder))[StyleEncoder.csd]
    visual = open_clip.create_model("tiny-clip", precision="fp32").visual.eval()
    visual.proj = None
    visual.load_state_dict({k[9:]: v for k, v in csd_state.items() if k.startswith("backbone.")})
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (visual.preprocess_cfg["mean"], visual.preprocess_cfg["std"]))
    picture = pictures("flat", [1])[0]
    with torch.inference_mode():
        expected = (visual(((picture - mean) / std)[None]) @ csd_state["last_layer_style"])[0]
    assert found.pictures([picture])[0] == pytest.approx(expected / expected.norm(), abs=1e-5)


class Bomb:
    """A pickle that makes a file when it is read as pickles are."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_the_published_pickle_with_its_command_line_inside_is_read_without_running_code(settings, csd_state, tmp_path):
    checkpoint = {
        "model_state_dict": {f"module.{name}": tensor for name, tensor in csd_state.items()},
        "args": argparse.Namespace(lr=0.1),
        "best": np.float64(0.5),
    }
    torch.save(checkpoint, tmp_path / "pytorch_model.bin")
    names = ["descriptor", f"csd:tiny-clip@{tmp_path / 'pytorch_model.bin'}"]
    found = load_style_encoders(replace(settings, style_encoders=names), Encoder(settings.encoder))
    assert len(found) == 2

    torch.save(checkpoint | {"args": Bomb(tmp_path / "it ran")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ScoreError):
        load_style_encoders(replace(settings, style_encoders=names), Encoder(settings.encoder))
    assert not (tmp_path / "it ran").exists()


def test_weights_that_are_missing_or_of_another_model_are_refused(settings, csd_file, timm_file, tmp_path):
    encoder = Encoder(settings.encoder)
    (tmp_path / "text.safetensors").write_text("not a model")
    wrong = {
        "timm:test_vit@nowhere.safetensors": "not a file",
        f"timm:test_vit2@{timm_file}": "does not fit timm's test_vit2",
        f"csd:tiny-clip@{timm_file}": "no `last_layer_style`",
        f"csd:ViT-B-32@{csd_file}": "does not fit ViT-B-32",
        f"csd:tiny-clip@{tmp_path / 'text.safetensors'}": "not a file of weights",
    }
    for name, message in wrong.items():
        with pytest.raises(ScoreError, match=message):
            load_style_encoders(replace(settings, style_encoders=["descriptor", name]), encoder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["descriptor"], "at least two encoders"),
        (["descriptor", "descriptor"], "of different kinds"),
        (["descriptor", "dino"], r"knows open_clip, descriptor, csd, timm, got 'dino'"),
        (["descriptor", "timm:vit"], "write csd:ARCHITECTURE@FILE"),
    ],
)
def test_encoders_that_cannot_be_meant_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        ScoreSettings(style_encoders=names)


def test_every_file_the_judges_need_is_named(settings, csd_file, timm_file):
    found = gpu_like(settings, csd_file, timm_file).weights()
    assert found == {
        "encoder": settings.encoder,
        "patch_encoder": str(timm_file),
        "style_encoders.csd": str(csd_file),
        "style_encoders.timm": str(timm_file),
        "lpips_weights": settings.lpips_weights,
    }


def test_self_similarity_joins_composition_and_an_equal_picture_has_all_of_it(settings, csd_file, timm_file):
    configured = gpu_like(settings, csd_file, timm_file)
    loaded = load_style_encoders(configured, Encoder(settings.encoder))
    patches = load_patch_encoder(configured, loaded)
    assert patches is loaded[StyleEncoder.timm]  # loaded once
    found = layout(pictures("flat", range(6)), (96, 96), patches)
    apart = distances(found, found)
    assert apart.diagonal() == pytest.approx(torch.zeros(6), abs=1e-5)
    assert (apart + torch.eye(6)).min() > 0.01


def test_the_suite_runs_on_three_encoders_and_patches(settings, csd_file, timm_file):
    # Three random encoders hardly know a style from another; whether they run together is all that is asked here.
    configured = replace(gpu_like(settings, csd_file, timm_file), style_range_at_least=0.01)
    judge = Judge(configured, pictures("hatch", range(500, 512)), other_styles("hatch"))
    base = pictures("flat", range(8))
    unchanged = judge.score(base, base, prompts(8))
    assert unchanged.style == 0.0 and unchanged.composition == 1.0
    scores = judge.score(pictures("hatch", range(8)), base, prompts(8))
    assert {"style_range_open_clip", "style_range_csd", "style_range_timm"} <= set(scores.diagnostics)
    assert 0 < scores.composition <= 1
