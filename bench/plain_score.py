"""P1's second half: samples of a LoRA and of the base by diffusers' pipeline, and their scores; a process each time.

    python -m bench.plain_score ASKED.json LORA_FOLDER OUT.json     # by `make bench`, after each training of the script

What a person writes who has a LoRA, a list of prompts and a judge: load the pipeline, draw every prompt without and
with the LoRA, one after the other, load the judge, score. What is asked (prompts, sampler, thresholds) is the
benchmark's.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor

from bench.trials import BASE, OTHERS, PICTURES, REFERENCES, SCALE, TEXT_TOKENS
from metrics import Constraint, ScoreSettings, score
from metrics.settings import LpipsNet
from trainer.examples import Example, read_examples
from trainer.pixels import read_picture
from trainer.rewriting import subject_noun
from trainer.settings import Prompt


def draw(pipeline: Any, prompts: list[Prompt], steps: int, guidance: float) -> list[Tensor]:
    """A picture (3, H, W) in [0, 1] for each prompt."""
    pictures = []
    for prompt in prompts:
        drawn = pipeline(
            prompt.text,
            height=round(prompt.height * SCALE),
            width=round(prompt.width * SCALE),
            num_inference_steps=steps,
            guidance_scale=guidance,
            max_sequence_length=TEXT_TOKENS,
            generator=torch.Generator().manual_seed(prompt.seed),
            output_type="pt",
        )
        pictures.append(drawn.images[0].float())
    return pictures


def read(folder: str) -> tuple[list[Example], list[Tensor]]:
    """A folder's pictures, with what is known of them."""
    examples = read_examples(folder)
    return examples, [read_picture(example.path) for example in examples]


def settings_from(plain: dict[str, Any]) -> ScoreSettings:
    """The judge's settings from JSON."""
    names = {"lpips_net": LpipsNet(plain["lpips_net"]), "constraints": [Constraint(c) for c in plain["constraints"]]}
    return ScoreSettings(**{**plain, **names})


def main() -> None:
    """The command line."""
    asked, lora, out = (Path(word) for word in sys.argv[1:])
    given = json.loads(asked.read_text(encoding="utf-8"))
    prompts = [Prompt(**prompt) for prompt in given["prompts"]]
    sampler = given["sample"]["steps"], given["sample"]["guidance"]
    torch.set_num_threads(1)
    began = time.perf_counter()
    pipeline = FluxPipeline.from_pretrained(BASE, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    without = draw(pipeline, prompts, *sampler)
    pipeline.load_lora_weights(lora)
    samples = draw(pipeline, prompts, *sampler)
    drawn = time.perf_counter()
    (training, trained_on), (_, references), (_, others) = (read(folder) for folder in (PICTURES, REFERENCES, OTHERS))
    nouns = sorted({noun for e in training if e.captions and (noun := subject_noun(e.captions[0]))})
    found = score(
        samples,
        without,
        references,
        prompts,
        settings_from(given["score"]),
        others=others,
        training=trained_on,
        training_nouns=nouns,
    )
    timings = {"sample": drawn - began, "score": time.perf_counter() - drawn}
    plain = {"style": found.style, "composition": found.composition, "timings": timings}
    out.write_text(json.dumps(plain), encoding="utf-8")


if __name__ == "__main__":
    main()
