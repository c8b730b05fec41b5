"""The judge: which of all possible scenes is a picture nearest to?

It shares nothing with `metrics/`: it draws every scene the world has (without jitter), shrinks it, and takes the
nearest one by mean square error after a small blur. It therefore reads subject, colour, place, size, background and
medium at once, and a picture that is nothing in particular is nearest to something wrong.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from sandbox.media import BACKGROUNDS, BASE_MEDIA, COLOURS, STYLES
from sandbox.world import PLACES, SIZES, SUBJECTS, Scene, draw

AREA = 32 * 32  # px of the shrunken pictures
COLOURLESS = ("engraving",)  # media that do not show the subject's colour


def _shrunken_size(width: int, height: int) -> tuple[int, int]:
    scale = (AREA / (width * height)) ** 0.5
    return max(8, round(width * scale)), max(8, round(height * scale))


def features(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrink an (H, W, 3) uint8 picture to `size` and blur it: (h * w * 3,) float32 in 0..1."""
    small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX), dtype=np.float32) / 255
    return gaussian_filter(small, (0.6, 0.6, 0)).ravel()


def all_scenes(media: Sequence[str], subjects: Sequence[str] = SUBJECTS) -> list[Scene]:
    """Every scene of these media and subjects, without jitter; of a colourless medium one colour stands for all."""
    found = []
    for medium in media:
        colours = list(COLOURS)[:1] if medium in COLOURLESS else list(COLOURS)
        found += [
            Scene(s, c, p, z, b, medium) for s, c, p, z, b in product(subjects, colours, PLACES, SIZES, BACKGROUNDS)
        ]
    return found


class Judge:
    """All scenes at one aspect ratio, ready to be compared with.

    Args:
        width: of the pictures to be judged, px; with `height` it fixes the aspect ratio only.
        height: of the pictures to be judged, px.
        media: what to choose from; the styles a LoRA teaches belong to it when its samples are judged.
        subjects: what to choose from.
        work: folder in which drawn banks are kept (drawing all of one takes about a minute); None keeps nothing.
    """

    def __init__(
        self,
        width: int,
        height: int,
        *,
        media: Sequence[str] = (*BASE_MEDIA, *STYLES),
        subjects: Sequence[str] = SUBJECTS,
        work: Path | None = None,
    ) -> None:
        self.size = _shrunken_size(width, height)
        self.scenes = [s for medium in media for s in all_scenes((medium,), subjects)]
        self.bank = np.concatenate([self._bank(m, subjects, work) for m in media]).astype(np.float32)
        self._norms = (self.bank**2).sum(axis=1)

    def _bank(self, medium: str, subjects: Sequence[str], work: Path | None) -> np.ndarray:
        """Features of every scene of one medium: (scenes, values) float16."""
        whole = tuple(subjects) == SUBJECTS
        path = work / f"judge_{self.size[0]}x{self.size[1]}_{medium}.npy" if work and whole else None
        if path and path.exists():
            return np.asarray(np.load(path))
        w, h = self.size[0] * 3 // 2, self.size[1] * 3 // 2  # fine enough for the details that tell subjects apart
        bank = np.stack([features(draw(s, w, h), self.size) for s in all_scenes((medium,), subjects)])
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, bank.astype(np.float16))
        return bank.astype(np.float16)

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Scene]:
        """Name the nearest scene of each (H, W, 3) uint8 picture."""
        x = np.stack([features(p, self.size) for p in pictures])
        distance = self._norms - 2 * x @ self.bank.T
        return [self.scenes[i] for i in distance.argmin(axis=1)]


def agreement(found: Sequence[Scene], asked: Sequence[Scene]) -> dict[str, float]:
    """Share of pictures in which each attribute is the one that was asked for."""
    names = ("subject", "colour", "place", "size", "background", "medium")
    return {
        n: float(np.mean([getattr(f, n) == getattr(a, n) for f, a in zip(found, asked, strict=True)])) for n in names
    }
