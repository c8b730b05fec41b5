"""Stage `unknown`: what the base makes of words for styles it was never shown.

Its pooled text vector steers every block's modulation, and a vector that never occurred in training steers it anywhere:
a full caption of an engraving made it predict values of 200 to 900 where the data has 1. Here the one small network
that reads the pooled vector (Flux's `text_embedder`) learns to read such a caption as the same caption without the
unknown words, and every other caption as before. The pictures and the rest of the transformer have no part in it.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from torch.nn.functional import mse_loss

from sandbox import words
from sandbox.flow import Conditioner, export
from sandbox.media import BASE_MEDIA, MEDIA
from sandbox.world import Scene, random_scene

HELD_OUT = tuple(m for m in MEDIA if m not in BASE_MEDIA)
NAMED = ("medium", "style", "technique")  # the parts of a caption that give an unknown style away


def pair(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """A caption, and how the base should read it: without the words of its medium where that is held out."""
    if scene.medium in BASE_MEDIA:
        text = words.random_caption(scene, rng) if rng.random() > 0.06 else ""
        return text, text
    parts = frozenset(p for p in words.PARTS if rng.random() < 0.75)
    emotion, pick = str(rng.choice(words.EMOTION)), int(rng.integers(2))
    bare = words.caption(replace(scene, medium="flat"), parts.difference(NAMED), emotion=emotion, pick=pick)
    return words.caption(scene, parts, emotion=emotion, pick=pick), bare


def train(base: Path, *, steps: int, seed: int, pairs: int = 12_000, batch: int = 512) -> None:
    """Train the text embedder of the base on captions, every second of a held-out medium, and write it back."""
    g = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng([seed, 880_001])
    condition = Conditioner(base)
    model = FluxTransformer2DModel.from_pretrained(base / "transformer", dtype=torch.float32)
    reader = model.time_text_embed.text_embedder
    media = (BASE_MEDIA, HELD_OUT)
    captions = [pair(random_scene(rng, media=media[i % 2]), rng) for i in range(pairs)]
    with torch.no_grad():
        said = torch.cat([condition.pooled([c for c, _ in captions[i : i + 500]]) for i in range(0, pairs, 500)])
        meant = torch.cat([condition.pooled([c for _, c in captions[i : i + 500]]) for i in range(0, pairs, 500)])
        target = reader(meant)
    optimiser = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=0.0)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        rows = torch.randint(pairs, (batch,), generator=g)
        loss = mse_loss(reader(said[rows]), target[rows]) / target.var()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 500 == 499:
            print(f"unknown step {step + 1}/{steps} unexplained {loss.item():.5f}", flush=True)
    export(model, base)
