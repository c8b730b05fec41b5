"""The article's best recipe gives a file that other tools apply as it is applied here."""

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import FluxPipeline

from sweep.examples import with_captions
from tests.sweep.test_configurations import composed
from trainer.base import load_base
from trainer.examples import read_examples
from trainer.export import to_kohya
from trainer.loop import train
from trainer.sample import sample


def test_diffusers_draws_the_same_pictures_with_the_file_of_anatomica_v9(tmp_path: Path) -> None:
    """Of `python -m sweep experiment=anatomica_v9` with less to see; in PEFT's layout and kohya's."""
    short = ("train.budget.images_seen=16", "train.checkpoints=1")
    config = composed("experiment=anatomica_v9", *short)
    base = load_base(config.base)
    examples = with_captions(config, read_examples(config.data.path, limit=8))
    (checkpoint,) = train(
        base=base,
        examples=examples,
        captions=config.captions,
        mix=config.mix,
        settings=config.train,
        folder=tmp_path / "run",
        cache=tmp_path / "cache",
    )
    settings = replace(config.sample, steps=2)
    shown = config.eval.prompts[:2]
    plain = sample(base, shown, settings)
    kohya = to_kohya(checkpoint.lora, tmp_path / "kohya.safetensors")
    ours = sample(base, shown, settings, lora=checkpoint.lora)
    again = sample(base, shown, settings, lora=kohya)
    pipeline = FluxPipeline.from_pretrained(config.base.path, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(checkpoint.lora))
    for prompt, without, peft, converted in zip(shown, plain, ours, again, strict=True):
        theirs = pipeline(
            prompt=prompt.text,
            height=round(prompt.height * base.scale),
            width=round(prompt.width * base.scale),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=torch.Generator().manual_seed(prompt.seed),
            max_sequence_length=config.base.max_text_tokens,
            output_type="pt",
        ).images[0]
        assert (peft - theirs).abs().max() < 1e-4
        assert (converted - theirs).abs().max() < 1e-4
        assert (without - theirs).abs().max() > 1e-2
