"""Small encoders in the real formats, with random seeded weights, and sets of drawn scenes.

A random encoder is enough for everything that is about arithmetic, files and order; what needs an encoder that knows
something is proved with the sandbox's trained one (test_trained_encoder.py).
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import lpips
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from metrics.settings import ScoreSettings

TINY_CLIP = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random open_clip model of 3.5 M parameters as a local folder."""
    folder = tmp_path_factory.mktemp("encoder")
    file = folder / "tiny-clip.json"
    file.write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(file)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = open_clip.create_model("tiny-clip")
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    config = {"model_cfg": TINY_CLIP, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def lpips_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LPIPS(squeeze) with a random trunk and the package's heads, as one state dict."""
    path = tmp_path_factory.mktemp("lpips") / "lpips.pt"
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, about how lpips calls it
        torch.manual_seed(0)
        model = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def settings(encoder_folder: Path, lpips_file: Path) -> ScoreSettings:
    return ScoreSettings(encoder=str(encoder_folder), lpips_weights=str(lpips_file), bootstrap_samples=500)
