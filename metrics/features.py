"""What is known of one picture, read once and looked up by content.

A sample that equals its base image gets the very same features, so that a LoRA without effect scores exactly 0 style,
whatever the batch it was encoded in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.descriptor import describe
from metrics.encoder import Encoder
from metrics.images import content_key
from metrics.quality import line_statistics, sanity_statistics

Floats = NDArray[np.float64]


class StyleEncoder(StrEnum):
    """The encoders whose style strength is averaged."""

    open_clip = "open_clip"
    descriptor = "descriptor"


@dataclass(frozen=True)
class Features:
    """What is known of one picture."""

    key: str  # of its content
    embedding: Tensor  # (D,) open_clip, unit
    description: Tensor  # (D',) hand-made, raw
    sanity: Floats  # (4,) see quality.SANITY
    lines: Floats  # (4,) see quality.LINES


class FeatureReader:
    """Reads features; those of pictures that return (base images) are kept in memory."""

    def __init__(self, encoder: Encoder, side: int) -> None:
        """Read with `encoder`, texture at the area of a square of `side` px."""
        self.encoder, self.side = encoder, side
        self._kept: dict[str, Features] = {}

    def read(self, images: Sequence[Tensor], *, keep: bool = False) -> list[Features]:
        """Return the features of pictures, equal pictures read once."""
        keys = [content_key(image) for image in images]
        fresh = {key: image for key, image in zip(keys, images, strict=True) if key not in self._kept}
        pictures = list(fresh.values())
        known = dict(self._kept)
        if pictures:
            columns = zip(
                fresh,
                self.encoder.pictures(pictures),
                describe(pictures, self.side),
                sanity_statistics(pictures, self.side),
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


def column(features: Sequence[Features], encoder: StyleEncoder = StyleEncoder.open_clip) -> Tensor:
    """Return (N, D) features of one encoder."""
    return torch.stack([f.embedding if encoder is StyleEncoder.open_clip else f.description for f in features])
