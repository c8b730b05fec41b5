"""What is known of one picture, read once and looked up by content.

A sample that equals its base image gets the very same features, so that a LoRA without effect scores exactly 0 style,
whatever the batch it was encoded in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, stack

from metrics.encoder import Encoder
from metrics.images import content_key
from metrics.quality import Sanity, line_statistics, sanity
from metrics.settings import StyleEncoder
from metrics.vision import PictureEncoder

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """What is known of one picture."""

    key: str  # of its content
    embedding: Tensor  # (D,) open_clip, unit
    style: tuple[Tensor, ...]  # (D',) by each style encoder, in their order
    sanity: Sanity
    lines: Floats  # (4,) see quality.LINES


class FeatureReader:
    """Reads features; those of pictures that return (base images) are kept in memory."""

    def __init__(self, encoder: Encoder, styles: Mapping[StyleEncoder, PictureEncoder], side: int) -> None:
        """Read with `encoder` and the style encoders, statistics at the area of a square of `side` px."""
        self.encoder, self.styles, self.side = encoder, styles, side
        self._kept: dict[str, Features] = {}

    def read(self, images: Sequence[Tensor], *, keep: bool = False) -> list[Features]:
        """Return the features of pictures, equal pictures read once."""
        keys = [content_key(image) for image in images]
        fresh = {key: image for key, image in zip(keys, images, strict=True) if key not in self._kept}
        pictures = list(fresh.values())
        known = dict(self._kept)
        if pictures:
            embeddings, layers = self.encoder.look(pictures)
            by_style = [
                layers if name is StyleEncoder.open_clip else encoder.pictures(pictures)
                for name, encoder in self.styles.items()
            ]
            columns = zip(
                fresh,
                embeddings,
                zip(*by_style, strict=True),
                sanity(pictures, self.side),
                line_statistics(pictures, self.side),
                strict=True,
            )
            known |= {row[0]: Features(*row) for row in columns}
        if keep:
            self._kept = known
        return [known[key] for key in keys]


def unique(features: Sequence[Features]) -> list[Features]:
    """Return the features of different pictures, in order."""
    return list({f.key: f for f in features}.values())


def embeddings(features: Sequence[Features]) -> Tensor:
    """Return (N, D) open_clip embeddings."""
    return stack([f.embedding for f in features])


def style_column(features: Sequence[Features], position: int) -> Tensor:
    """Return (N, D) features by the style encoder at `position`."""
    return stack([f.style[position] for f in features])
