"""The base's gates: `python -m sandbox.gates`. Does it draw what it is asked for, at every side and aspect ratio?

200 prompts it was not tuned on, one picture each, judged by the world's own renderer (`sandbox.judge`). With
`--lora FILE --style engraving` the gate for learning instead: unrelated subjects, asked for without a word of style.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image

from sandbox import words
from sandbox.judge import Judge, agreement
from sandbox.media import BASE_MEDIA, STYLES
from sandbox.subjects import ANATOMY
from sandbox.text import MAX_TOKENS
from sandbox.world import SUBJECTS, Scene, random_scene

SIZES = {"512": (64, 64), "256": (32, 32), "768": (96, 96), "1024": (128, 128), "2:3": (48, 72), "3:2": (72, 48)}
ASKED = frozenset({"medium", "size", "colour", "place", "background"})
BARS = {"512": {"subject": 0.85, "colour": 0.95, "place": 0.95, "medium": 0.95}}
OTHER_BARS = {"subject": 0.75, "colour": 0.90, "place": 0.90}


def prompts(count: int, seed: int) -> list[Scene]:
    """Scenes to ask for, the media in turn."""
    rng = np.random.default_rng([seed, 990_001])
    scenes = [random_scene(rng, medium=BASE_MEDIA[i % len(BASE_MEDIA)]) for i in range(count)]
    return [replace(s, dx=0.0, dy=0.0, zoom=1.0) for s in scenes]


def pictures(
    pipe: FluxPipeline,
    texts: list[str],
    size: tuple[int, int],
    *,
    steps: int,
    guidance: float,
    seed: int,
    batch: int = 25,
) -> list[np.ndarray]:
    """One picture a text: (H, W, 3) uint8; picture i uses the seed `seed + i`."""
    drawn: list[np.ndarray] = []
    for start in range(0, len(texts), batch):
        chunk = texts[start : start + batch]
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(chunk))]
        images = pipe(
            chunk, width=size[0], height=size[1], num_inference_steps=steps, guidance_scale=guidance,
            generator=generators, max_sequence_length=MAX_TOKENS, output_type="np",
        ).images  # fmt: skip
        drawn += [np.asarray(i * 255 + 0.5, dtype=np.uint8) for i in np.clip(images, 0, 1)]
    return drawn


def contact_sheet(drawn: list[np.ndarray], columns: int) -> np.ndarray:
    """Tile equal pictures into one."""
    rows = [np.concatenate(drawn[i : i + columns], axis=1) for i in range(0, len(drawn) // columns * columns, columns)]
    return np.concatenate(rows, axis=0)


def load(base: Path) -> FluxPipeline:
    """Load the pipeline in float32, quiet."""
    pipe = FluxPipeline.from_pretrained(base, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def judge_lora(args: argparse.Namespace, pipe: FluxPipeline) -> None:
    """Draw unrelated subjects with a LoRA and without; print how often style and subject are what they should be.

    A style may be unable to show what a prompt asks for: an engraving has one ink on cream paper, and "a red house on a
    grey background" pulls against it. Both readings are printed, with the colours asked for and without.
    """
    rng = np.random.default_rng([args.seed, 990_002])
    unrelated = [s for s in SUBJECTS if s not in ANATOMY]
    scenes = [random_scene(rng, subject=unrelated[i % len(unrelated)], medium=args.style) for i in range(args.count)]
    asked = {"colours": ASKED - {"medium"}, "plain": ASKED - {"medium", "colour", "background"}}
    judge = Judge(*SIZES["512"], work=args.work)
    for name in ("base", "lora"):
        if name == "lora":
            pipe.load_lora_weights(args.lora.parent, weight_name=args.lora.name, adapter_name=name)
            pipe.set_adapters(name, args.strength)
        for kind, parts in asked.items():
            texts = [words.caption(s, parts) for s in scenes]
            drawn = pictures(
                pipe, texts, SIZES["512"], steps=args.steps, guidance=args.guidance, seed=20_000 + args.seed
            )
            found = agreement(judge(drawn), scenes)
            print(
                f"learning {name} {kind:7s} n={args.count} style {found['medium']:.3f} subject {found['subject']:.3f}"
                f" place {found['place']:.3f}",
                flush=True,
            )
            Image.fromarray(contact_sheet(drawn, 20)).save(args.work / f"learning_{name}_{kind}.png")


def main() -> None:
    """Judge the base at the sizes asked for, print a row each, and keep a sheet of every size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=Path("sandbox/weights/base"))
    parser.add_argument("--work", type=Path, default=Path("sandbox/checkpoints"))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=3.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lora", type=Path, help="judge this LoRA instead of the base")
    parser.add_argument("--strength", type=float, default=1.0, help="of this LoRA")
    parser.add_argument("--style", default="engraving", choices=STYLES)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.lora:
        judge_lora(args, load(args.base))
        return
    pipe, scenes = load(args.base), prompts(args.count, args.seed)
    texts = [words.caption(s, ASKED) for s in scenes]
    for name in args.sizes:
        drawn = pictures(pipe, texts, SIZES[name], steps=args.steps, guidance=args.guidance, seed=10_000 + args.seed)
        found = agreement(Judge(*SIZES[name], media=BASE_MEDIA, work=args.work)(drawn), scenes)
        bars = BARS.get(name, OTHER_BARS)
        passed = all(found[k] >= bar for k, bar in bars.items())
        row = " ".join(f"{k} {v:.3f}" for k, v in found.items())
        print(f"gate {name:5s} n={args.count} {row} {'passed' if passed else 'not yet'}", flush=True)
        Image.fromarray(contact_sheet(drawn, 20)).save(args.work / f"gate_{SIZES[name][0]}x{SIZES[name][1]}.png")


if __name__ == "__main__":
    main()
