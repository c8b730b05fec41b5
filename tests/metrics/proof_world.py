"""The sandbox's world as the proofs use it: scenes whose layout, subject and medium are known, from seeds of their own.

No picture folder or encoder has seen these seeds. Settings are chosen on scenes of DEVELOPMENT; the table of
metrics/README.md is made on those of PROOF, which nothing is chosen on: who has looked at them and changes a metric
takes another number here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metrics.folders import read_folder
from metrics.images import gaussian_blur, opponent
from sandbox.data import VARIED
from sandbox.media import MEDIA, STYLES
from sandbox.subjects import ANATOMY
from sandbox.world import Scene, draw, random_scene

__all__ = ["ANATOMY", "MEDIA", "STYLES"]  # the world's own names, for the proofs

DEVELOPMENT, PROOF = 20_261_124, 20_261_604
SIDE = 64  # px of a sample of the sandbox at side 512
DATA = Path(__file__).parents[2] / "sandbox" / "data"
Scenes = list[Scene]


@dataclass(frozen=True)
class Pictures:
    """The pictures a study of one style has."""

    references: list[Tensor]
    training: list[Tensor]
    others: list[Tensor]


def study_pictures(style: str) -> Pictures:
    """Return the sandbox's folders for a style of the study."""
    names = (f"references_{style}", f"anatomy_{style}", "other_styles")
    return Pictures(*(list(read_folder(DATA / name).values()) for name in names))


def scenes(count: int, stream: int, seed: int, subjects: Sequence[str] = VARIED) -> Scenes:
    """Return fresh scenes that go through the subjects in turn; another `stream` or `seed`, other scenes."""
    rngs = [np.random.default_rng([seed, stream, i]) for i in range(count)]
    return [random_scene(rng, subject=subjects[i % len(subjects)]) for i, rng in enumerate(rngs)]


def shown(some: Scenes, medium: str) -> list[Tensor]:
    """Draw scenes in a medium, (3, SIDE, SIDE) floats in [0, 1]."""
    drawn = [draw(replace(scene, medium=medium), SIDE, SIDE) for scene in some]
    return [torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1).contiguous() for picture in drawn]


def moved(some: Scenes, px: Sequence[float]) -> Scenes:
    """Return the scenes with their subjects moved to the right, in px of 96."""
    return [replace(scene, dx=scene.dx + by / 96) for scene, by in zip(some, px, strict=True)]


def with_subjects(some: Scenes, subjects: Sequence[str]) -> Scenes:
    """Return the scenes with other subjects in their places."""
    return [replace(scene, subject=subjects[i % len(subjects)]) for i, scene in enumerate(some)]


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return P(positive > negative), ties half: the area under the ROC curve."""
    apart = np.asarray(positive, dtype=float)[:, None] - np.asarray(negative, dtype=float)[None]
    return float((apart > 0).mean() + 0.5 * (apart == 0).mean())


def ssim(first: Tensor, second: Tensor) -> float:
    """Return the mean SSIM of two pictures' luma, Wang et al. 2004, Gaussian window of 1.5 px; a negative control."""
    x, y = opponent(first[None])[:, :1], opponent(second[None])[:, :1]
    mx, my = gaussian_blur(x, 1.5), gaussian_blur(y, 1.5)
    xx, yy, xy = (gaussian_blur(a * b, 1.5) - c for a, b, c in ((x, x, mx * mx), (y, y, my * my), (x, y, mx * my)))
    found = (2 * mx * my + 1e-4) * (2 * xy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (xx + yy + 9e-4))
    return float(found.mean())
