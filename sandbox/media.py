"""The media of the world: how a layout of tones becomes a picture.

Every medium is a function of the same layout, so the truth about a picture (what is where) is independent of its
style. Textures are sized relative to the picture (`unit` is 1/64 of its side), as in a scan of a print: a smaller
copy of an engraving has finer hatching, which is what makes the training side matter.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

COLOURS = {
    "red": (0.84, 0.13, 0.13),
    "orange": (0.95, 0.56, 0.08),
    "green": (0.13, 0.60, 0.22),
    "blue": (0.12, 0.32, 0.84),
    "purple": (0.54, 0.16, 0.66),
}
BACKGROUNDS = {
    "white": (0.97, 0.97, 0.97),
    "grey": (0.62, 0.63, 0.65),
    "sand": (0.88, 0.79, 0.58),
    "sky": (0.66, 0.83, 0.94),
}
INK, PAPER, BOARD, CHALK = (0.12, 0.09, 0.08), (0.93, 0.88, 0.77), (0.12, 0.19, 0.16), (0.95, 0.95, 0.90)
_BACKGROUND_TONE = {"white": 0.0, "grey": 0.26, "sand": 0.13, "sky": 0.18}  # how dense a print draws each background


@dataclass(frozen=True)
class Layout:
    """What is drawn where, at supersampled resolution.

    Attributes:
        body, dark, light: (H, W) float 0..1, coverage of the three tones; disjoint.
        colour, background: names from `COLOURS` and `BACKGROUNDS`.
        unit: 1/64 of the picture's side in supersampled px.
        rng: draws the grain.
    """

    body: np.ndarray
    dark: np.ndarray
    light: np.ndarray
    colour: str
    background: str
    unit: float
    rng: np.random.Generator

    @property
    def filled(self) -> np.ndarray:
        return np.clip(self.body + self.dark + self.light, 0, 1)

    @property
    def ink(self) -> np.ndarray:
        """RGB of the subject's colour."""
        return np.asarray(COLOURS[self.colour])

    @property
    def ground(self) -> np.ndarray:
        """RGB of the background."""
        return np.asarray(BACKGROUNDS[self.background])

    def outline(self, width: float) -> np.ndarray:
        """Coverage of the lines between tones, `width` in units."""
        reach = max(3, round(width * self.unit) | 1)
        masks = [np.asarray(m * 255, dtype=np.uint8) for m in (self.filled, self.dark, self.light)]
        edges = [maximum_filter(m, reach) - minimum_filter(m, reach) for m in masks]
        return np.maximum.reduce(edges) / 255

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y in units."""
        y, x = np.mgrid[: self.body.shape[0], : self.body.shape[1]]
        return x / self.unit, y / self.unit

    def tone(self, body: float, dark: float, light: float, ground: float = 0.0) -> np.ndarray:
        """A tone map (0 paper, 1 full ink), the body lit from the upper left."""
        x, y = self.grid()
        slope = np.clip((x / x.max() + y / y.max()) - 1, -1, 1)
        return self.body * (body + 0.22 * slope) + self.dark * dark + self.light * light + ground * (1 - self.filled)

    def noise(self, size: float) -> np.ndarray:
        """Smooth noise of mean 0 and deviation 1 with grains of `size` units."""
        field = gaussian_filter(self.rng.standard_normal(self.body.shape), size * self.unit)
        return field / field.std()


def mix(a: np.ndarray, b: np.ndarray | tuple[float, float, float], amount: np.ndarray | float) -> np.ndarray:
    """Blend colour `b` over `a`; `amount` 0..1 may be a map."""
    t = np.asarray(amount)[..., None] if np.ndim(amount) else amount
    return a * (1 - t) + np.asarray(b) * t


def _plain(layout: Layout, rgb: np.ndarray | tuple[float, float, float]) -> np.ndarray:
    return np.broadcast_to(np.asarray(rgb, dtype=float), (*layout.body.shape, 3))


def _lines(coordinate: np.ndarray, period: float, tone: np.ndarray) -> np.ndarray:
    """Coverage of parallel lines whose share of the period is `tone`."""
    distance = np.abs((coordinate / period) % 1 - 0.5) * 2  # 0 on a line's middle, 1 between lines
    return np.clip((tone - distance) * period * 1.2 + 0.5, 0, 1) * (tone > 0.02)


def flat(la: Layout) -> np.ndarray:
    picture = mix(_plain(la, la.ground), la.ink, la.body)
    picture = mix(picture, la.ink * 0.4, la.dark)
    return mix(picture, mix(la.ink, (1, 1, 1), 0.72), la.light)


def ink_outline(la: Layout) -> np.ndarray:
    picture = mix(_plain(la, la.ground), mix(la.ink, (1, 1, 1), 0.85), la.body + la.light)
    picture = mix(picture, la.ink * 0.75, la.dark * 0.75)
    return mix(picture, la.ink * 0.8, la.outline(2.6))


def halftone(la: Layout) -> np.ndarray:
    x, y = la.grid()
    u, v = (x + y) / 8.0, (x - y) / 8.0
    tone = la.tone(0.62, 0.95, 0.2)
    radius = np.hypot(u % 1 - 0.5, v % 1 - 0.5) * 2
    dots = np.clip((1.25 * np.sqrt(np.clip(tone, 0, 1)) - radius) * 4 + 0.5, 0, 1) * (tone > 0.05)
    return mix(_plain(la, mix(la.ground, (1, 1, 1), 0.35)), la.ink, dots)


def neon(la: Layout) -> np.ndarray:
    line = la.outline(2.0)
    glow = np.clip(gaussian_filter(line, 2.2 * la.unit) * 1.5, 0, 1)
    picture = _plain(la, la.ground * 0.2)
    picture = mix(picture, la.ink, np.clip(glow * 0.85 + la.body * 0.18, 0, 1))
    return mix(picture, mix(la.ink, (1, 1, 1), 0.45), line)


def engraving(la: Layout) -> np.ndarray:
    x, y = la.grid()
    tone = np.clip(la.tone(0.42, 0.8, 0.1, 0.0), 0, 0.9)
    wave = 0.7 * np.sin(x / 5)
    hatch = _lines(y + 0.45 * x + wave, 6.0, tone)
    cross = _lines(y - 0.6 * x, 6.0, np.clip(tone * 1.6 - 0.75, 0, 0.6))
    back = _lines(y, 6.0, np.full_like(tone, _BACKGROUND_TONE[la.background])) * (1 - la.filled)
    coverage = np.maximum.reduce([hatch, cross, 0.5 * back, la.outline(1.7)])
    return mix(_plain(la, PAPER), INK, np.clip(coverage, 0, 1))


def chalk(la: Layout) -> np.ndarray:
    x, y = la.grid()
    scribble = _lines(x - y + 0.8 * np.sin(y / 3), 7.0, np.clip(la.tone(0.6, 0.12, 0.95), 0, 1))
    dust = 0.10 + 0.3 * _BACKGROUND_TONE[la.background]
    grain = np.clip(0.78 + 0.4 * la.noise(0.66), 0, 1)
    coverage = np.maximum(scribble * la.filled * 0.72, la.outline(2.4)) * grain
    board = mix(_plain(la, BOARD), CHALK, np.clip(dust * (0.5 + 0.5 * la.noise(3.0)), 0, 0.3))
    return mix(board, mix(la.ink, CHALK, 0.72), np.clip(coverage, 0, 1))


def stipple(la: Layout) -> np.ndarray:
    tone = la.tone(0.5, 0.9, 0.12, _BACKGROUND_TONE[la.background] * 0.6)
    dots = np.clip((la.noise(1.3) - (1.9 - 3.2 * tone)) * 2, 0, 1)
    return mix(_plain(la, (0.98, 0.97, 0.95)), la.ink * 0.45, np.maximum(dots, la.outline(1.6) * 0.6))


def watercolour(la: Layout) -> np.ndarray:
    wash = np.clip(gaussian_filter(la.body * 0.7 + la.dark + la.light * 0.15, 1.0 * la.unit), 0, 1)
    wash = wash * np.clip(0.8 + 0.16 * la.noise(2.0), 0, 1.1)
    paper = mix(_plain(la, (0.98, 0.97, 0.94)), la.ground, np.clip(0.55 + 0.18 * la.noise(4.0), 0, 1))
    return mix(paper, la.ink * 0.9, np.clip(wash, 0, 1))


MEDIA: dict[str, Callable[[Layout], np.ndarray]] = {
    f.__name__: f for f in (flat, ink_outline, halftone, neon, engraving, chalk, stipple, watercolour)
}
BASE_MEDIA = ("flat", "ink_outline", "halftone", "neon")  # what the base's transformer is shown
STYLES = ("engraving", "chalk")  # what a LoRA has to teach it
