"""The subjects of the world as drawings of three tones: body, dark detail and light detail.

A subject is a function that draws on a `Pen` in coordinates -1..1 (x right, y down), later strokes over earlier
ones. Subjects are plain silhouettes that stay recognisable when they are 16 px wide, because what a small model can
learn in an hour is bounded by how alike its subjects are.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

BODY, DARK, LIGHT = 1, 2, 3
RESOLUTION = 320  # px of the square a subject is drawn on before it is placed in a scene
Points = Sequence[tuple[float, float]]


class Pen:
    """Draws label values (0 nothing, 1 body, 2 dark, 3 light) on a square of `RESOLUTION` px that spans -1..1."""

    def __init__(self) -> None:
        self.image = Image.new("L", (RESOLUTION, RESOLUTION), 0)
        self._draw = ImageDraw.Draw(self.image)

    def _px(self, points: Points) -> list[tuple[float, float]]:
        return [((x + 1) / 2 * (RESOLUTION - 1), (y + 1) / 2 * (RESOLUTION - 1)) for x, y in points]

    def oval(self, x: float, y: float, rx: float, ry: float, tone: int = BODY) -> None:
        """Fill an ellipse with centre (x, y) and half axes (rx, ry)."""
        self._draw.ellipse([*self._px([(x - rx, y - ry)])[0], *self._px([(x + rx, y + ry)])[0]], fill=tone)

    def shape(self, points: Points, tone: int = BODY) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._px(points), fill=tone)

    def box(self, x0: float, y0: float, x1: float, y1: float, tone: int = BODY) -> None:
        """Fill a rectangle."""
        self.shape([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], tone)

    def stroke(self, points: Points, width: float, tone: int = BODY) -> None:
        """Draw a round-ended line through `points`, `width` in the same coordinates."""
        for (x0, y0), (x1, y1) in pairwise(points):
            self._draw.line(self._px([(x0, y0), (x1, y1)]), fill=tone, width=max(1, round(width * RESOLUTION / 2)))
        for x, y in points:
            self.oval(x, y, width / 2, width / 2, tone)

    def arc(self, x: float, y: float, rx: float, ry: float, start: float, end: float, width: float, tone: int) -> None:
        """Draw part of an ellipse's edge, angles in turns, clockwise from the right."""
        turns = [start + (end - start) * i / 24 for i in range(25)]
        self.stroke([(x + rx * cos(2 * pi * t), y + ry * sin(2 * pi * t)) for t in turns], width, tone)


def heart(p: Pen) -> None:
    p.stroke([(-0.12, -0.5), (-0.2, -0.95)], 0.26)
    p.stroke([(0.2, -0.5), (0.3, -0.85), (0.62, -0.9)], 0.24)
    p.oval(-0.36, -0.25, 0.5, 0.48)
    p.oval(0.36, -0.25, 0.5, 0.48)
    p.shape([(-0.84, -0.12), (0.84, -0.12), (0.6, 0.32), (0.05, 0.95), (-0.55, 0.35)])
    p.stroke([(-0.05, -0.55), (0.08, 0.0), (-0.1, 0.5)], 0.12, DARK)
    p.stroke([(0.06, -0.05), (0.4, 0.25)], 0.1, DARK)


def hand(p: Pen) -> None:
    p.box(-0.45, 0.0, 0.42, 0.62)
    p.box(-0.3, 0.55, 0.28, 0.98)
    for x, top in ((-0.36, -0.62), (-0.1, -0.86), (0.14, -0.8), (0.36, -0.55)):
        p.stroke([(x, 0.05), (x, top)], 0.2)
    p.stroke([(0.38, 0.42), (0.82, -0.02)], 0.22)
    p.stroke([(-0.3, 0.3), (0.2, 0.22)], 0.07, DARK)


def skull(p: Pen) -> None:
    p.oval(0, -0.22, 0.82, 0.74)
    p.box(-0.46, 0.2, 0.46, 0.92)
    p.oval(-0.34, -0.1, 0.25, 0.27, DARK)
    p.oval(0.34, -0.1, 0.25, 0.27, DARK)
    p.shape([(0, 0.18), (0.12, 0.42), (-0.12, 0.42)], DARK)
    for x in (-0.24, 0.0, 0.24):
        p.stroke([(x, 0.64), (x, 0.9)], 0.07, DARK)


def eye(p: Pen) -> None:
    top = [(-0.98 + 1.96 * i / 20, -0.58 * sin(pi * i / 20)) for i in range(21)]
    p.shape(top + [(x, -y) for x, y in reversed(top)])
    lower = [(0.9 * x, 0.78 * y) for x, y in top]
    p.shape(lower + [(x, -y) for x, y in reversed(lower)], LIGHT)
    p.oval(0, 0, 0.44, 0.44)
    p.oval(0, 0, 0.22, 0.22, DARK)
    for x in (-0.5, 0.0, 0.5):
        p.stroke([(x, -0.52 + 0.2 * abs(x)), (1.3 * x, -0.88 + 0.2 * abs(x))], 0.1)


def bones(p: Pen) -> None:
    for side in (-1, 1):
        p.stroke([(-0.66 * side, -0.66), (0.66 * side, 0.66)], 0.24)
        for end in (-1, 1):
            p.oval(0.6 * side * end, 0.84 * end, 0.2, 0.2)
            p.oval(0.84 * side * end, 0.6 * end, 0.2, 0.2)
    p.stroke([(-0.3, -0.3), (0.3, 0.3)], 0.06, DARK)


def ribs(p: Pen) -> None:
    p.stroke([(0, -0.9), (0, 0.9)], 0.2)
    for i, y in enumerate((-0.62, -0.2, 0.22, 0.62)):
        reach = (0.62, 0.86, 0.86, 0.66)[i]
        for side in (-1, 1):
            p.stroke([(0, y - 0.1), (side * reach * 0.7, y - 0.14), (side * reach, y + 0.12)], 0.15)
    for y in (-0.5, -0.1, 0.3):
        p.box(-0.08, y, 0.08, y + 0.05, DARK)


def girl(p: Pen) -> None:
    p.oval(0, -0.6, 0.4, 0.42, DARK)
    p.box(-0.4, -0.62, -0.2, -0.12, DARK)
    p.box(0.2, -0.62, 0.4, -0.12, DARK)
    p.oval(0, -0.54, 0.26, 0.3, LIGHT)
    p.stroke([(-0.1, -0.1), (-0.62, 0.22)], 0.14, LIGHT)
    p.stroke([(0.1, -0.1), (0.62, 0.22)], 0.14, LIGHT)
    p.stroke([(-0.16, 0.6), (-0.16, 0.94)], 0.15, LIGHT)
    p.stroke([(0.16, 0.6), (0.16, 0.94)], 0.15, LIGHT)
    p.shape([(-0.16, -0.24), (0.16, -0.24), (0.6, 0.68), (-0.6, 0.68)])


def flowers(p: Pen) -> None:
    for x, y in ((-0.66, -0.1), (-0.22, -0.5), (0.26, -0.16), (0.68, -0.46)):
        p.stroke([(x, y), (x, 0.95)], 0.09, DARK)
        p.stroke([(x, y + 0.75), (x + 0.18, y + 0.55)], 0.1, DARK)
        for i in range(5):
            p.oval(x + 0.2 * cos(0.4 * pi * i), y + 0.2 * sin(0.4 * pi * i), 0.16, 0.16)
        p.oval(x, y, 0.12, 0.12, LIGHT)


def dancer(p: Pen) -> None:
    p.oval(0.02, -0.74, 0.18, 0.2, DARK)
    p.stroke([(0, -0.36), (-0.42, -0.66), (-0.72, -0.92)], 0.13, LIGHT)
    p.stroke([(0, -0.36), (0.44, -0.5), (0.78, -0.3)], 0.13, LIGHT)
    p.stroke([(0, 0.2), (-0.1, 0.86)], 0.14, LIGHT)
    p.stroke([(0.1, 0.2), (0.56, 0.56)], 0.14, LIGHT)
    p.shape([(-0.14, -0.5), (0.16, -0.5), (0.14, -0.1), (0.66, 0.26), (-0.56, 0.36), (-0.12, -0.1)])
    for x in (-0.8, -0.48, 0.2, 0.52, 0.84):
        p.oval(x, 0.86, 0.13, 0.13)
        p.oval(x, 0.86, 0.05, 0.05, LIGHT)


def house(p: Pen) -> None:
    p.box(-0.66, -0.14, 0.66, 0.92)
    p.box(0.32, -0.85, 0.54, -0.3, DARK)
    p.shape([(-0.9, -0.1), (0, -0.92), (0.9, -0.1)], DARK)
    p.box(-0.14, 0.34, 0.18, 0.92, DARK)
    p.box(-0.52, 0.08, -0.26, 0.34, LIGHT)
    p.box(0.3, 0.08, 0.54, 0.34, LIGHT)


def cat(p: Pen) -> None:
    p.stroke([(0.5, 0.75), (0.86, 0.4), (0.8, -0.1)], 0.15)
    p.oval(0, 0.42, 0.54, 0.54)
    p.oval(0, -0.34, 0.48, 0.42)
    p.shape([(-0.46, -0.3), (-0.46, -0.96), (-0.06, -0.66)])
    p.shape([(0.46, -0.3), (0.46, -0.96), (0.06, -0.66)])
    p.oval(-0.2, -0.38, 0.09, 0.12, LIGHT)
    p.oval(0.2, -0.38, 0.09, 0.12, LIGHT)
    p.shape([(-0.09, -0.2), (0.09, -0.2), (0, -0.1)], DARK)
    p.oval(0, 0.5, 0.24, 0.34, LIGHT)


def dog(p: Pen) -> None:
    p.box(-0.55, -0.1, 0.6, 0.38)
    for x in (-0.46, -0.22, 0.28, 0.5):
        p.stroke([(x, 0.3), (x, 0.86)], 0.16)
    p.stroke([(0.58, 0.0), (0.9, -0.42)], 0.14)
    p.box(-0.92, -0.36, -0.5, -0.02)
    p.oval(-0.5, -0.36, 0.3, 0.34)
    p.shape([(-0.52, -0.66), (-0.2, -0.6), (-0.22, 0.0), (-0.42, -0.14)], DARK)
    p.oval(-0.92, -0.26, 0.08, 0.08, DARK)
    p.oval(-0.62, -0.42, 0.07, 0.07, LIGHT)


def horse(p: Pen) -> None:
    p.oval(0.1, 0.0, 0.56, 0.3)
    for x in (-0.3, -0.1, 0.34, 0.54):
        p.stroke([(x, 0.15), (x, 0.92)], 0.13)
    p.shape([(-0.46, 0.0), (-0.1, -0.2), (-0.36, -0.86), (-0.62, -0.76)])
    p.stroke([(-0.54, -0.72), (-0.88, -0.46)], 0.24)
    p.stroke([(-0.36, -0.86), (-0.06, -0.2)], 0.14, DARK)
    p.stroke([(0.62, -0.1), (0.86, 0.5)], 0.14, DARK)


def fish(p: Pen) -> None:
    p.oval(-0.16, 0, 0.72, 0.46)
    p.shape([(0.4, 0), (0.96, -0.5), (0.84, 0), (0.96, 0.5)])
    p.shape([(-0.2, -0.4), (0.2, -0.8), (0.28, -0.3)], DARK)
    p.oval(-0.56, -0.1, 0.12, 0.12, LIGHT)
    p.oval(-0.56, -0.1, 0.05, 0.05, DARK)
    p.arc(-0.52, 0, 0.3, 0.4, -0.16, 0.16, 0.07, DARK)


def bird(p: Pen) -> None:
    p.shape([(0.3, 0.1), (0.96, -0.1), (0.92, 0.3)])
    p.oval(0, 0.16, 0.6, 0.42)
    p.oval(-0.48, -0.4, 0.32, 0.32)
    p.shape([(-0.74, -0.5), (-1.0, -0.3), (-0.72, -0.26)], DARK)
    p.shape([(-0.3, -0.02), (0.44, 0.02), (0.1, 0.44)], DARK)
    p.oval(-0.54, -0.46, 0.08, 0.08, LIGHT)
    p.stroke([(-0.12, 0.5), (-0.12, 0.92)], 0.08, DARK)
    p.stroke([(0.12, 0.5), (0.12, 0.92)], 0.08, DARK)


def butterfly(p: Pen) -> None:
    for side in (-1, 1):
        p.oval(0.5 * side, -0.36, 0.46, 0.44)
        p.oval(0.4 * side, 0.42, 0.36, 0.4)
        p.oval(0.52 * side, -0.36, 0.2, 0.2, LIGHT)
        p.oval(0.42 * side, 0.44, 0.14, 0.14, LIGHT)
        p.stroke([(0, -0.5), (0.22 * side, -0.94)], 0.06, DARK)
    p.stroke([(0, -0.5), (0, 0.62)], 0.16, DARK)


def snail(p: Pen) -> None:
    p.stroke([(-0.7, 0.66), (0.86, 0.66)], 0.3, LIGHT)
    p.stroke([(-0.7, 0.6), (-0.8, -0.06)], 0.26, LIGHT)
    p.stroke([(-0.8, -0.1), (-0.96, -0.5)], 0.07, LIGHT)
    p.stroke([(-0.76, -0.1), (-0.62, -0.5)], 0.07, LIGHT)
    p.oval(0.2, 0.02, 0.62, 0.62)
    p.arc(0.2, 0.02, 0.36, 0.36, 0.0, 0.8, 0.11, DARK)
    p.oval(0.24, 0.04, 0.13, 0.13, DARK)


def tree(p: Pen) -> None:
    p.box(-0.13, 0.2, 0.13, 0.95, DARK)
    for x, y in ((-0.42, -0.02), (0.42, -0.02), (0, -0.46)):
        p.oval(x, y, 0.46, 0.44)
    for x, y in ((-0.4, 0.0), (0.36, 0.06), (0.02, -0.44)):
        p.oval(x, y, 0.12, 0.12, LIGHT)


def mushroom(p: Pen) -> None:
    p.shape([(-0.2, -0.05), (0.2, -0.05), (0.3, 0.92), (-0.3, 0.92)], LIGHT)
    cap = [(-0.92 * cos(pi * i / 16), 0.06 - 0.92 * sin(pi * i / 16)) for i in range(17)]
    p.shape(cap)
    for x, y in ((-0.46, -0.3), (0.06, -0.56), (0.5, -0.22)):
        p.oval(x, y, 0.15, 0.15, LIGHT)


def leaf(p: Pen) -> None:
    edge = [(0.56 * sin(pi * i / 16), -0.94 + 1.5 * i / 16) for i in range(17)]
    p.shape(edge + [(-x, y) for x, y in reversed(edge)])
    p.stroke([(0, -0.7), (0, 0.96)], 0.09, DARK)
    for y in (-0.3, 0.02, 0.34):
        p.stroke([(0, y), (0.34, y - 0.26)], 0.06, DARK)
        p.stroke([(0, y), (-0.34, y - 0.26)], 0.06, DARK)


def boat(p: Pen) -> None:
    p.shape([(-0.95, 0.36), (0.95, 0.36), (0.6, 0.86), (-0.6, 0.86)], DARK)
    p.stroke([(0, 0.36), (0, -0.94)], 0.08, DARK)
    p.shape([(0.08, -0.9), (0.08, 0.24), (0.78, 0.24)])
    p.shape([(-0.08, -0.66), (-0.08, 0.24), (-0.62, 0.24)], LIGHT)


def car(p: Pen) -> None:
    p.shape([(-0.5, -0.06), (-0.3, -0.5), (0.36, -0.5), (0.6, -0.06)])
    p.box(-0.96, -0.1, 0.96, 0.4)
    p.shape([(-0.34, -0.08), (-0.2, -0.38), (0.0, -0.38), (0.0, -0.08)], LIGHT)
    p.shape([(0.1, -0.08), (0.1, -0.38), (0.3, -0.38), (0.44, -0.08)], LIGHT)
    for x in (-0.52, 0.52):
        p.oval(x, 0.42, 0.26, 0.26, DARK)
        p.oval(x, 0.42, 0.1, 0.1, LIGHT)


def cup(p: Pen) -> None:
    p.arc(0.5, 0.0, 0.36, 0.34, 0.0, 1.0, 0.16, BODY)
    p.shape([(-0.7, -0.5), (0.56, -0.5), (0.36, 0.72), (-0.5, 0.72)])
    p.oval(-0.07, -0.5, 0.63, 0.18, DARK)
    p.stroke([(-0.46, -0.1), (-0.36, 0.5)], 0.1, LIGHT)


def bottle(p: Pen) -> None:
    p.box(-0.14, -0.95, 0.14, -0.3)
    p.box(-0.2, -0.98, 0.2, -0.8, DARK)
    p.oval(0, -0.2, 0.4, 0.26)
    p.box(-0.4, -0.2, 0.4, 0.94)
    p.box(-0.4, 0.14, 0.4, 0.56, LIGHT)


def key(p: Pen) -> None:
    p.oval(-0.52, 0, 0.44, 0.44)
    p.oval(-0.52, 0, 0.2, 0.2, 0)
    p.stroke([(-0.1, 0), (0.9, 0)], 0.18)
    p.box(0.46, 0.0, 0.6, 0.42)
    p.box(0.76, 0.0, 0.92, 0.5)


def umbrella(p: Pen) -> None:
    p.stroke([(0, -0.9), (0, 0.72)], 0.09, DARK)
    p.arc(0.16, 0.72, 0.16, 0.16, 0.0, 0.5, 0.09, DARK)
    p.shape([(-0.95 * cos(pi * i / 16), 0.0 - 0.8 * sin(pi * i / 16)) for i in range(17)])
    for x in (-0.63, 0.0, 0.63):
        p.oval(x, 0.02, 0.3, 0.14, 0)
    p.stroke([(0, -0.1), (0, 0.5)], 0.09, DARK)
    p.stroke([(0, -0.76), (-0.32, -0.1)], 0.05, DARK)
    p.stroke([(0, -0.76), (0.32, -0.1)], 0.05, DARK)


def star(p: Pen) -> None:
    radius = (0.98, 0.42)
    p.shape([(radius[i % 2] * sin(pi * i / 5), 0.05 - radius[i % 2] * cos(pi * i / 5)) for i in range(10)])
    p.oval(0, 0.05, 0.16, 0.16, LIGHT)


def crown(p: Pen) -> None:
    p.shape([(-0.8, 0.6), (-0.9, -0.5), (-0.42, 0.0), (0, -0.8), (0.42, 0.0), (0.9, -0.5), (0.8, 0.6)])
    p.box(-0.8, 0.44, 0.8, 0.76, DARK)
    for x, y in ((-0.9, -0.54), (0.0, -0.84), (0.9, -0.54)):
        p.oval(x * 0.94, y, 0.13, 0.13, LIGHT)
    p.oval(0, 0.6, 0.1, 0.1, LIGHT)


ANATOMY = ("heart", "hand", "skull", "eye", "bones", "ribs")
DRAWINGS: dict[str, Callable[[Pen], None]] = {
    f.__name__: f
    for f in (
        heart, hand, skull, eye, bones, ribs, girl, flowers, dancer, house, cat, dog, horse, fish, bird, butterfly,
        snail, tree, mushroom, leaf, boat, car, cup, bottle, key, umbrella, star, crown,
    )
}  # fmt: skip


@cache
def labels(subject: str) -> np.ndarray:
    """Return the subject's label map: (RESOLUTION, RESOLUTION) uint8 of 0 nothing, 1 body, 2 dark, 3 light."""
    pen = Pen()
    DRAWINGS[subject](pen)
    return np.asarray(pen.image)
