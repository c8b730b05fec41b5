"""Small drawn scenes with known truth: the same layout in several media, for the proofs of `metrics`.

A scene says what is where; a medium says how it is drawn. So "restyle only" is the same scene in another medium and
"move things only" is another scene in the same medium, without any model. Drawn at twice the size and reduced, with
hatching and dots of 3 to 4 px at the final size: the texture that makes composition hard to measure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

Mask = NDArray[np.float64]


class Medium(StrEnum):
    """How a scene is drawn."""

    flat = "flat"
    hatch = "hatch"  # engraving: dark 45 degree lines on cream paper
    chalk = "chalk"  # light grainy strokes on slate: contrast inverted
    halftone = "halftone"  # one ink in dots
    outline = "outline"  # pen lines only
    neon = "neon"  # glowing outlines on black


SHAPES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0, -1), (0.95, 0.8), (-0.95, 0.8)],
    "house": [(-0.75, 0.9), (-0.75, -0.1), (-1, -0.1), (0, -1), (1, -0.1), (0.75, -0.1), (0.75, 0.9)],
    "cross": [
        (-0.3, -1),
        (0.3, -1),
        (0.3, -0.3),
        (1, -0.3),
        (1, 0.3),
        (0.3, 0.3),
        (0.3, 1),
        (-0.3, 1),
        (-0.3, 0.3),
        (-1, 0.3),
        (-1, -0.3),
        (-0.3, -0.3),
    ],
    "arrow": [(-1, -0.35), (0.1, -0.35), (0.1, -0.9), (1, 0), (0.1, 0.9), (0.1, 0.35), (-1, 0.35)],
    "diamond": [(0, -1), (0.7, 0), (0, 1), (-0.7, 0)],
    "circle": [(float(np.cos(a)), float(np.sin(a))) for a in np.linspace(0, 2 * np.pi, 40)],
    "star": [
        (float(r * np.sin(a)), float(-r * np.cos(a)))
        for r, a in zip([1.0, 0.42] * 5, np.linspace(0, 2 * np.pi, 11)[:10], strict=True)
    ],
}
COLOURS = {
    "red": (0.80, 0.15, 0.15),
    "green": (0.20, 0.60, 0.25),
    "blue": (0.15, 0.30, 0.75),
    "yellow": (0.92, 0.80, 0.20),
    "purple": (0.50, 0.20, 0.60),
    "orange": (0.93, 0.50, 0.12),
}
BACKGROUNDS = {
    "grey": (0.72, 0.72, 0.72),
    "white": (0.95, 0.95, 0.93),
    "sky": (0.62, 0.80, 0.92),
    "dark": (0.22, 0.24, 0.30),
}


@dataclass(frozen=True)
class Thing:
    """One object; place and radius as shares of the edge."""

    shape: str
    colour: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """A background and the things before it."""

    background: str
    things: tuple[Thing, ...]

    def shifted(self, dx: float, dy: float = 0.0) -> Scene:
        """Return the scene with every thing moved by shares of the edge."""
        return replace(self, things=tuple(replace(t, x=t.x + dx, y=t.y + dy) for t in self.things))


def scene(seed: int, things: int = 2) -> Scene:
    """Return a random scene; the same seed gives the same scene."""
    rng = np.random.default_rng(seed)
    drawn = [
        Thing(
            shape=str(rng.choice(list(SHAPES))),
            colour=str(rng.choice(list(COLOURS))),
            x=float(rng.uniform(0.25, 0.75)),
            y=float(rng.uniform(0.25, 0.75)),
            radius=float(rng.uniform(0.13, 0.30)),
        )
        for _ in range(things)
    ]
    return Scene(str(rng.choice(list(BACKGROUNDS))), tuple(drawn))


def draw(scene: Scene, medium: Medium | str, size: int | tuple[int, int] = 64, seed: int = 0) -> Tensor:
    """Draw a scene: (3, H, W) float in [0, 1]; `size` is an edge or (width, height); `seed` moves grain and phase."""
    width, height = (size, size) if isinstance(size, int) else size
    rng = np.random.default_rng([seed, 7])
    picture = DRAWERS[Medium(medium)](scene, width, height, rng)
    return torch.from_numpy(np.clip(picture, 0, 1).astype(np.float32)).permute(2, 0, 1).contiguous()


def masks(scene: Scene, width: int, height: int) -> list[Mask]:
    """Return the coverage of every thing, (H, W) in [0, 1], occluded by those before it."""
    edge = min(width, height)
    found: list[Mask] = []
    for thing in scene.things:
        image = Image.new("L", (width * 4, height * 4), 0)
        points = [
            ((thing.x * width + px * thing.radius * edge) * 4, (thing.y * height + py * thing.radius * edge) * 4)
            for px, py in SHAPES[thing.shape]
        ]
        ImageDraw.Draw(image).polygon(points, fill=255)
        mask = np.asarray(image.resize((width, height), Image.Resampling.BOX), dtype=np.float64) / 255
        found = [m * (1 - mask) for m in found] + [mask]
    return found


def luminance(colour: tuple[float, float, float]) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def contour(mask: Mask, radius: int = 1) -> Mask:
    """Return a line about 2 * radius px wide along the edge of a mask."""
    image = Image.fromarray((mask * 255).astype(np.uint8))
    size = 2 * radius + 1
    grown = np.asarray(image.filter(ImageFilter.MaxFilter(size)), dtype=np.float64)
    shrunk = np.asarray(image.filter(ImageFilter.MinFilter(size)), dtype=np.float64)
    return (grown - shrunk) / 255


def tone(scene: Scene, width: int, height: int) -> Mask:
    """Return the luminance of the flat picture, (H, W)."""
    value = np.full((height, width), luminance(BACKGROUNDS[scene.background]))
    for thing, mask in zip(scene.things, masks(scene, width, height), strict=True):
        value = value * (1 - mask) + luminance(COLOURS[thing.colour]) * mask
    return value


def paint(
    shape: tuple[int, int], paper: tuple[float, float, float], ink: tuple[float, float, float], cover: Mask
) -> Mask:
    """Return ink over paper where `cover` says so, (H, W, 3)."""
    cover = np.clip(cover, 0, 1)[..., None]
    return np.broadcast_to(np.array(paper), (*shape, 3)) * (1 - cover) + np.array(ink) * cover


def grid(width: int, height: int) -> tuple[Mask, Mask]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    return x, y


def draw_flat(scene: Scene, width: int, height: int, rng: np.random.Generator) -> Mask:
    picture = np.broadcast_to(np.array(BACKGROUNDS[scene.background]), (height, width, 3)).copy()
    for thing, mask in zip(scene.things, masks(scene, width, height), strict=True):
        picture = picture * (1 - mask[..., None]) + np.array(COLOURS[thing.colour]) * mask[..., None]
    return picture


def draw_hatch(scene: Scene, width: int, height: int, rng: np.random.Generator) -> Mask:
    x, y = grid(width, height)
    period = float(rng.uniform(3.4, 4.0))
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * ((x + y) / np.sqrt(2) / period + rng.uniform()))
    dark = 1 - tone(scene, width, height)
    cover = np.clip((wave - (1 - 1.1 * dark)) * 3 + 0.3, 0, 1) * (0.25 + 0.6 * dark)
    for mask in masks(scene, width, height):
        cover = np.maximum(cover, 0.9 * contour(mask))
    return paint((height, width), (0.93, 0.88, 0.76), (0.16, 0.11, 0.09), cover)


def draw_chalk(scene: Scene, width: int, height: int, rng: np.random.Generator) -> Mask:
    grain = rng.uniform(0, 1, (height, width))
    cover = np.zeros((height, width))
    for thing, mask in zip(scene.things, masks(scene, width, height), strict=True):
        strength = 0.25 + 0.5 * luminance(COLOURS[thing.colour])
        cover = cover * (1 - mask) + mask * strength * (grain > 0.35)
        cover = np.maximum(cover, contour(mask) * (0.65 + 0.35 * grain))
    cover = np.maximum(cover, 0.06 * grain)
    return paint((height, width), (0.13, 0.20, 0.18), (0.93, 0.93, 0.88), cover)


def draw_halftone(scene: Scene, width: int, height: int, rng: np.random.Generator) -> Mask:
    x, y = grid(width, height)
    u, v = (x + y) / np.sqrt(2) / 4.0 + rng.uniform(), (x - y) / np.sqrt(2) / 4.0 + rng.uniform()
    wave = 0.5 + 0.25 * (np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v))
    cover = np.clip((wave - tone(scene, width, height)) * 5 + 0.5, 0, 1)
    for mask in masks(scene, width, height):  # without it a yellow thing on a light ground is truly gone
        cover = np.maximum(cover, 0.6 * contour(mask))
    return paint((height, width), (0.96, 0.93, 0.90), (0.12, 0.20, 0.55), cover)


def draw_outline(scene: Scene, width: int, height: int, rng: np.random.Generator) -> Mask:
    cover = np.zeros((height, width))
    for mask in masks(scene, width, height):
        cover = np.maximum(cover * (1 - mask), contour(mask))
    return paint((height, width), (0.98, 0.98, 0.96), (0.08, 0.08, 0.10), cover)


def draw_neon(scene: Scene, width: int, height: int, rng: np.random.Generator) -> Mask:
    picture = np.broadcast_to(np.array((0.04, 0.03, 0.09)), (height, width, 3)).copy()
    for thing, mask in zip(scene.things, masks(scene, width, height), strict=True):
        line = Image.fromarray((contour(mask) * 255).astype(np.uint8))
        glow = np.asarray(line.filter(ImageFilter.GaussianBlur(2)), dtype=np.float64)[..., None] / 255
        sharp = np.asarray(line, dtype=np.float64)[..., None] / 255
        colour = np.clip(np.array(COLOURS[thing.colour]) * 1.3 + 0.1, 0, 1)
        picture = picture * (1 - 0.8 * mask[..., None]) + glow * colour * 1.2 + sharp * 0.5
    return picture


DRAWERS = {
    Medium.flat: draw_flat,
    Medium.hatch: draw_hatch,
    Medium.chalk: draw_chalk,
    Medium.halftone: draw_halftone,
    Medium.outline: draw_outline,
    Medium.neon: draw_neon,
}


@dataclass(frozen=True)
class Prompt:
    """The least that the judge needs of a prompt."""

    text: str
    group: str = "unrelated"


def pictures(medium: Medium | str, seeds: Iterable[int], size: int | tuple[int, int] = 64) -> list[Tensor]:
    """Return one picture per seed, with one to three things."""
    return [draw(scene(seed, 1 + seed % 3), medium, size, seed) for seed in seeds]


def other_styles(style: Medium | str) -> list[Tensor]:
    """Return a frozen pool: six pictures in each other medium."""
    media = [medium for medium in Medium if medium != style]
    return [p for i, medium in enumerate(media) for p in pictures(medium, range(700 + 9 * i, 706 + 9 * i))]


def prompts(count: int, seeds: int = 1) -> list[Prompt]:
    """Return prompts for `count` pictures, `seeds` pictures each."""
    return [Prompt(f"scene {i // seeds}") for i in range(count)]
