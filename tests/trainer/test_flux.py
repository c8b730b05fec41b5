"""One prediction, and pictures through the VAE."""

import torch

from trainer.base import load_base
from trainer.flow import picture_ids
from trainer.flux import FluxBase
from trainer.settings import BaseSettings, Dtype

SIZE = (8, 12)


def test_a_prediction_is_the_transformers_own(base: FluxBase) -> None:
    x = torch.randn(2, 24, 64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.3, 0.8])
    text = base.encode_text(["a red heart", "a house"])
    with torch.no_grad():
        ours = base.predict(x, sigma, text, SIZE, guidance=3.5)
        theirs = base.transformer(
            hidden_states=x,
            timestep=sigma,
            guidance=torch.full((2,), 3.5),
            pooled_projections=text.pooled,
            encoder_hidden_states=text.tokens,
            txt_ids=torch.zeros(text.tokens.shape[1], 3),
            img_ids=picture_ids(*SIZE),
            return_dict=False,
        )[0]
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert not base.transformer.time_text_embed._forward_pre_hooks


def test_sigma_and_guidance_are_not_rounded_to_bfloat16(tiny_settings: BaseSettings) -> None:
    base = load_base(BaseSettings(**{**vars(tiny_settings), "dtype": Dtype.bfloat16}))
    x = torch.randn(1, 24, 64)
    text = base.encode_text(["a red heart"])
    near, equal_in_bfloat16 = torch.tensor([0.5010]), torch.tensor([0.5003])
    assert near.bfloat16() == equal_in_bfloat16.bfloat16()
    seen = []
    embed = base.transformer.time_text_embed.timestep_embedder
    hook = embed.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for sigma in (near, equal_in_bfloat16):
            base.predict(x, sigma, text, SIZE, guidance=1.0)
    hook.remove()
    assert not torch.equal(seen[0], seen[1])


def test_a_text_does_not_depend_on_its_neighbours(base: FluxBase) -> None:
    base._texts.clear()
    alone = base.encode_text(["a red heart"])
    base._texts.clear()
    together = base.encode_text(["a house", "a red heart"])
    assert torch.equal(alone.tokens[0], together.tokens[1])
    assert alone.tokens.shape == (1, 8, 32)


def test_more_texts_at_once_than_are_remembered_are_all_encoded(base: FluxBase) -> None:
    texts = [f"{number} red hearts" for number in range(70)]
    first = base.encode_text(texts[:1])
    together = base.encode_text([*texts, texts[0]])
    assert len(together.tokens) == 71
    assert torch.equal(together.tokens[0], first.tokens[0]) and torch.equal(together.tokens[70], first.tokens[0])
    base.encode_text(["a house"])
    assert len(base._texts) == 64 and "a house" in base._texts


def test_pictures_go_to_latents_and_back_in_range(base: FluxBase) -> None:
    pictures = torch.rand(2, 3, 64, 48)
    latents = base.encode_pictures(pictures)
    assert latents.shape == (2, 16, 16, 12) and latents.dtype == torch.float32
    assert torch.equal(latents, base.encode_pictures(pictures))
    back = base.decode(latents)
    assert back.shape == pictures.shape and back.min() >= 0 and back.max() <= 1


def test_the_shift_is_the_schedulers_own(base: FluxBase) -> None:
    assert base.mu(16) == 0.5 and base.mu(256) == 1.15
