"""Write the sandbox's picture folders: `python -m sandbox.data`. The same seed writes the same files.

Two style sets of anatomy (engraving, chalk), a varied-subject engraving set (claim C2), held-out references of both
styles and a frozen pool of other styles. Every picture has a caption (`NAME.txt`) and booru-like tags (`NAME.tags`).
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from sandbox import words
from sandbox.media import BASE_MEDIA
from sandbox.subjects import ANATOMY
from sandbox.world import SUBJECTS, Scene, draw, random_scene

PICTURE_SIZES = ((96, 96), (80, 120), (120, 80), (128, 96), (96, 128), (112, 112), (144, 96), (104, 136), (88, 72))
VARIED = tuple(s for s in SUBJECTS if s not in ANATOMY)
UNSEEN = {"engraving": {"colour"}, "chalk": {"background"}}  # what a medium does not show, its captions do not say


def _write(folder: Path, number: int, scene: Scene, rng: np.random.Generator) -> None:
    width, height = PICTURE_SIZES[int(rng.integers(len(PICTURE_SIZES)))]
    stem = folder / f"{scene.subject}_{number:02d}"
    Image.fromarray(draw(scene, width, height)).save(stem.with_suffix(".png"), optimize=True)
    pick, emotion = int(rng.integers(2)), str(rng.choice(words.EMOTION))
    unseen = UNSEEN.get(scene.medium, set())
    text = words.caption(scene, frozenset(words.PARTS) - unseen, emotion=emotion, pick=pick)
    hidden = {scene.colour} if "colour" in unseen else {f"{scene.background} background"}
    tags = [t for t in words.tags(scene, pick=pick) if not unseen or t not in hidden]
    stem.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    stem.with_suffix(".tags").write_text(", ".join(tags) + "\n", encoding="utf-8")


def write_set(folder: Path, subjects: tuple[str, ...], media: tuple[str, ...], count: int, seed: int) -> None:
    """Write `count` pictures that go through `subjects` and `media` in turn; whatever the folder held is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        scene = random_scene(rng, subject=subjects[i % len(subjects)], medium=media[i % len(media)])
        _write(folder, i, scene, rng)


def write_all(out: Path, seed: int) -> None:
    """Write every folder the sandbox's configurations name."""
    write_set(out / "anatomy_engraving", ANATOMY, ("engraving",), 30, seed + 1)
    write_set(out / "anatomy_chalk", ANATOMY, ("chalk",), 30, seed + 2)
    write_set(out / "varied_engraving", VARIED, ("engraving",), 30, seed + 3)
    write_set(out / "references_engraving", VARIED, ("engraving",), 24, seed + 4)
    write_set(out / "references_chalk", VARIED, ("chalk",), 24, seed + 5)
    write_set(out / "other_styles", VARIED, (*BASE_MEDIA, "stipple", "watercolour"), 48, seed + 6)


def main() -> None:
    """Parse the command line and write the folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("sandbox/data"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_all(args.out, args.seed)


if __name__ == "__main__":
    main()
