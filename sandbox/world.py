"""Scenes of the world and how they are drawn: subject × colour × place × size × background × medium.

`draw(scene, width, height)` is a pure function of its arguments; everything random about a scene is in the scene.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from sandbox.media import BACKGROUNDS, BASE_MEDIA, COLOURS, MEDIA, Layout
from sandbox.subjects import DRAWINGS, RESOLUTION, labels

SUBJECTS = tuple(DRAWINGS)
PLACES = {"centre": (0.0, 0.0), "left": (-1.0, 0.0), "right": (1.0, 0.0), "top": (0.0, -1.0), "bottom": (0.0, 1.0)}
SIZES = {"large": 0.39, "small": 0.27}  # radius as a share of the shorter edge
_OFFSET = {"large": 0.15, "small": 0.22}  # how far a place is from the centre, as a share of that edge's length
_SUPERSAMPLING = 3


@dataclass(frozen=True)
class Scene:
    """One picture's truth. `dx`, `dy` and `zoom` jitter the layout a little; `grain` seeds the texture."""

    subject: str
    colour: str
    place: str
    size: str
    background: str
    medium: str
    dx: float = 0.0
    dy: float = 0.0
    zoom: float = 1.0
    grain: int = 0

    def centre(self) -> tuple[float, float]:
        """The subject's centre as shares of width and height."""
        x, y = PLACES[self.place]
        offset = _OFFSET[self.size]
        return 0.5 + offset * x + self.dx, 0.5 + offset * y + self.dy


def random_scene(rng: np.random.Generator, *, media: tuple[str, ...] = BASE_MEDIA, **fixed: str) -> Scene:
    """Draw every attribute of a scene uniformly, `flat` somewhat more often where it is among the media."""
    if "flat" in media and rng.random() < 0.25:
        media = ("flat",)
    chosen = {
        "subject": str(rng.choice(SUBJECTS)),
        "colour": str(rng.choice(list(COLOURS))),
        "place": str(rng.choice(list(PLACES))),
        "size": str(rng.choice(list(SIZES))),
        "background": str(rng.choice(list(BACKGROUNDS))),
        "medium": str(rng.choice(media)),
    }
    c = chosen | fixed
    scene = Scene(c["subject"], c["colour"], c["place"], c["size"], c["background"], c["medium"])
    return jitter(scene, rng)


def jitter(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same scene a little displaced and scaled, with a texture of its own."""
    dx, dy = rng.uniform(-0.02, 0.02, 2)
    return replace(scene, dx=dx, dy=dy, zoom=rng.uniform(0.96, 1.04), grain=int(rng.integers(2**31)))


def layout(scene: Scene, width: int, height: int) -> Layout:
    """Place the scene's subject on a supersampled canvas of `width` × `height` px."""
    w, h = width * _SUPERSAMPLING, height * _SUPERSAMPLING
    radius = SIZES[scene.size] * scene.zoom * min(w, h)
    x, y = scene.centre()
    scale = RESOLUTION / (2 * radius)  # canvas px -> label px
    affine = (scale, 0, RESOLUTION / 2 - scale * x * w, 0, scale, RESOLUTION / 2 - scale * y * h)
    placed = np.asarray(
        Image.fromarray(labels(scene.subject)).transform(
            (w, h), Image.Transform.AFFINE, affine, Image.Resampling.NEAREST
        )
    )
    body, dark, light = (np.asarray(placed == tone, dtype=np.float32) for tone in (1, 2, 3))
    unit = (width * height) ** 0.5 / 64 * _SUPERSAMPLING
    return Layout(body, dark, light, scene.colour, scene.background, unit, np.random.default_rng(scene.grain))


def draw(scene: Scene, width: int, height: int) -> np.ndarray:
    """Draw a scene.

    Returns:
        (height, width, 3) uint8.
    """
    picture = MEDIA[scene.medium](layout(scene, width, height))
    s = _SUPERSAMPLING
    small = picture.reshape(height, s, width, s, 3).mean(axis=(1, 3))
    return np.asarray(np.clip(small * 255 + 0.5, 0, 255), dtype=np.uint8)


def silhouette(scene: Scene, width: int, height: int) -> np.ndarray:
    """Coverage of the subject: (height, width) float 0..1."""
    s = _SUPERSAMPLING
    return layout(scene, width, height).filled.reshape(height, s, width, s).mean(axis=(1, 3))
