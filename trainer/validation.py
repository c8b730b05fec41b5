"""A loss that can be compared: the same pictures, noise and noise levels at every checkpoint of every training.

The training's own loss says little, since it moves with the noise levels that were drawn. This one is read at fixed,
evenly spaced levels on pictures that are not trained on; it falls while a LoRA learns the style and rises when it
begins to learn the training pictures by heart.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from trainer.cache import TensorCache
from trainer.captions import caption
from trainer.encoding import Texts, encode_examples
from trainer.examples import DatasetError, Example
from trainer.flow import add_noise, pack
from trainer.flux import FluxBase
from trainer.plan import make_plan
from trainer.seeds import derive_seed
from trainer.settings import CaptionSettings, MixSettings


def validation_loss(
    base: FluxBase,
    examples: Sequence[Example],
    captions: CaptionSettings,
    mix: MixSettings,
    *,
    levels: int,
    cache: TensorCache,
) -> Callable[[], float]:
    """A function that reads the loss of the transformer as it is, with whatever is plugged in.

    Pictures are shown at the side with the most repeats, with their captions whatever the dropout; one whose caption is
    missing is read without text. Neither noise nor levels depend on the training's seed.

    Args:
        levels: noise levels per picture, the middles of that many equal parts of (0, 1).
    """
    side = max(mix.repeats, key=lambda side: (mix.repeats[side], side))
    shown = MixSettings(
        {side: 1},
        no_upscale=mix.no_upscale,
        min_side=mix.min_side,
        max_side=mix.max_side,
        batch_size=1,
        bucket_step=mix.bucket_step,
    )
    plan = make_plan(examples, shown, scale=base.scale, step=base.step_px, seed=0)
    latents = encode_examples(base, examples, plan, cache)
    texts = Texts(base, cache)
    words = [_words(base, example, captions) for example in examples]

    @torch.no_grad()
    def read() -> float:
        total = 0.0
        for index, example in enumerate(examples):
            x = latents[side, index][None]
            for level in range(levels):
                generator = torch.Generator().manual_seed(derive_seed("validation", example.path.name, level))
                n = torch.randn(x.shape, generator=generator).to(base.device)
                sigma = torch.tensor([(level + 0.5) / levels], device=base.device)
                noisy, velocity = add_noise(pack(x), pack(n), sigma)
                size = (x.shape[2], x.shape[3])
                predicted = base.predict(noisy, sigma, texts([words[index]]), size, guidance=1.0)
                total += (predicted - velocity).square().mean().item()
        return total / (len(examples) * levels)

    return read


def _words(base: FluxBase, example: Example, captions: CaptionSettings) -> str:
    try:
        return caption(example, replace(captions, dropout=0.0), epoch=0, seed=0, count=base.count_tokens)
    except DatasetError:
        return ""
