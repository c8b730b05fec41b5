"""The committed weights load where a newcomer's tools would load them, offline, and do what they are for."""

import re
from pathlib import Path

import lpips
import numpy as np
import open_clip
import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file

from sandbox import gates, vae, words
from sandbox.flow import Conditioner, image_ids
from sandbox.media import BASE_MEDIA, MEDIA
from sandbox.world import draw, random_scene

WEIGHTS = Path("sandbox/weights")
GATE_DB = 28  # at side 512, every medium


def test_all_weights_together_stay_below_30_mb() -> None:
    assert sum(p.stat().st_size for p in WEIGHTS.rglob("*") if p.is_file()) <= 30e6


@pytest.fixture(scope="module")
def pipe() -> FluxPipeline:
    return gates.load(WEIGHTS / "base")


def test_the_vae_reconstructs_every_medium_the_held_out_ones_included(pipe: FluxPipeline) -> None:
    found = vae.psnr_by_medium(pipe.vae)
    assert len(found) == len(MEDIA)
    assert {medium: psnr for medium, psnr in found.items() if psnr < GATE_DB} == {}


def test_the_base_draws_what_it_is_asked_for(pipe: FluxPipeline) -> None:
    torch.set_num_threads(1)
    scenes = gates.prompts(4, seed=1)
    drawn = gates.pictures(
        pipe, [words.caption(s, gates.ASKED) for s in scenes], (64, 64), steps=8, guidance=3.5, seed=5
    )
    truth = np.stack([draw(s, 64, 64) for s in scenes]).astype(float)
    distance = np.array([[np.abs(d - t).mean() for t in truth] for d in drawn])
    assert (distance.argmin(axis=1) == np.arange(4)).sum() >= 3


def test_words_of_styles_the_base_never_saw_do_not_upset_it(pipe: FluxPipeline) -> None:
    """Full captions of them once made it predict 200 to 900 where noise minus data has about 5."""
    rng = np.random.default_rng(1)
    held_out = [m for m in MEDIA if m not in BASE_MEDIA]
    texts = [words.caption(random_scene(rng, medium=held_out[i % len(held_out)]), pick=i % 2) for i in range(24)]
    states, pooled = Conditioner(WEIGHTS / "base")(texts)
    ids = image_ids(64, 64)
    noise = torch.randn(len(texts), len(ids), 64, generator=torch.Generator().manual_seed(1))
    for sigma in (0.3, 0.6, 0.95):
        with torch.no_grad():
            velocity = pipe.transformer(
                hidden_states=noise, timestep=torch.full((len(texts),), sigma), guidance=torch.ones(len(texts)),
                pooled_projections=pooled, encoder_hidden_states=states, txt_ids=torch.zeros(states.shape[1], 3),
                img_ids=ids, return_dict=False,
            )[0]  # fmt: skip
        assert velocity.abs().amax() < 40


def test_the_base_has_the_classes_and_the_guidance_embedding_of_flux_dev(pipe: FluxPipeline) -> None:
    assert type(pipe.transformer).__name__ == "FluxTransformer2DModel"
    assert pipe.transformer.config.guidance_embeds is True
    assert pipe.vae_scale_factor == 4 and pipe.vae.config.latent_channels == 16


def test_the_encoder_tells_subjects_apart() -> None:
    name = f"local-dir:{WEIGHTS / 'encoder'}"
    model, _, preprocess = open_clip.create_model_and_transforms(name, require_pretrained=True)
    tokenizer = open_clip.get_tokenizer(name)
    rng = np.random.default_rng(0)
    subjects = ("cat", "house", "skull", "tree", "boat", "heart")
    from PIL import Image

    scenes = [random_scene(rng, subject=s, medium=m) for s in subjects for m in ("flat", "engraving")]
    with torch.no_grad():
        seen = model.encode_image(
            torch.stack([preprocess(Image.fromarray(draw(s, 64, 64))) for s in scenes]), normalize=True
        )
        read = model.encode_text(tokenizer([f"a {s}" for s in subjects]), normalize=True)
    right = (seen @ read.T).argmax(1) == torch.arange(len(scenes)) // 2
    assert right.float().mean() >= 0.8


@pytest.mark.filterwarnings("ignore:The parameter .pretrained.", "ignore:Arguments other than a weight enum")
def test_lpips_loads_its_trunk_offline_and_knows_identity() -> None:
    path = WEIGHTS / "lpips" / "lpips.safetensors"
    metric = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False)
    metric.load_state_dict(load_file(path), strict=True)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        assert float(metric(x, x)) == 0.0
        assert float(metric(x, -x)) > 0.01


def test_the_transformer_was_shown_no_style_that_is_to_be_learned() -> None:
    rng = np.random.default_rng(0)
    said = " ".join(words.random_caption(random_scene(rng), rng) for _ in range(2000))
    assert not re.search(r"engrav|chalk|hatch", said)
