"""Pools of drawn scenes that the base is trained on, per picture size, kept on disk because drawing is slow.

A pool holds pictures, silhouettes (the loss looks harder where the subject is) and the scenes themselves, so that
captions are made anew at every visit.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sandbox.media import BASE_MEDIA
from sandbox.world import Scene, draw, random_scene, silhouette

FACTOR = 4  # of the VAE


@dataclass(frozen=True)
class Pool:
    """Pictures of one size.

    Attributes:
        pictures: (N, H, W, 3) uint8.
        masks: (N, H/4, W/4) uint8, coverage of the subject, 255 = covered.
        scenes: the truth about each picture.
    """

    pictures: np.ndarray
    masks: np.ndarray
    scenes: list[Scene]


def load(work: Path, width: int, height: int, count: int, seed: int) -> Pool:
    """Draw `count` scenes of the base's media at one size, or read them where that was done before."""
    name = f"pool_{width}x{height}_{count}_{seed}"
    path = work / f"{name}.npz"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, width, height])
        scenes = [random_scene(rng, media=BASE_MEDIA) for _ in range(count)]
        pictures = np.stack([draw(s, width, height) for s in scenes])
        masks = np.stack([_mask(s, width, height) for s in scenes])
        temporary = path.with_suffix(f".{os.getpid()}.npz")  # processes that train together may draw the same pool
        np.savez(temporary, pictures=pictures, masks=masks, scenes=json.dumps([asdict(s) for s in scenes]))
        temporary.replace(path)
    data = np.load(path)
    return Pool(data["pictures"], data["masks"], [Scene(**s) for s in json.loads(str(data["scenes"]))])


def _mask(scene: Scene, width: int, height: int) -> np.ndarray:
    cover = silhouette(scene, width, height).reshape(height // FACTOR, FACTOR, width // FACTOR, FACTOR)
    return np.asarray(cover.mean(axis=(1, 3)) * 255, dtype=np.uint8)
