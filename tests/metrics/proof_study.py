"""What every proof shares: one study's judges on fresh scenes, and the rows of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from proof_world import ANATOMY, MEDIA, STYLES, Pictures, Scenes, scenes, shown, study_pictures
from scenes import Prompt
from torch import Tensor

from metrics import Judge, Scores, ScoreSettings
from metrics.encoder import Encoder
from metrics.features import FeatureReader, Features, style_column
from metrics.perceptual import Lpips
from metrics.readings import Spaces, fit_spaces
from metrics.suite import load_lpips
from metrics.vision import load_style_encoders

REPORTED = "reported"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    test: str  # V number and what
    value: float
    bar: str  # as the issue words it; "reported" where there is none
    passed: bool | None  # None: nothing to pass
    note: str = ""


def at_least(test: str, value: float, bar: float, note: str = "") -> Row:
    return Row(test, value, f">= {bar:g}", value >= bar - 1e-9, note)  # a Spearman of .9 comes out as .8999


def at_most(test: str, value: float, bar: float, note: str = "") -> Row:
    return Row(test, value, f"<= {bar:g}", value <= bar, note)


def must_fail(test: str, value: float, bar: float) -> Row:
    return Row(f"negative control: {test}", value, f"< {bar:g}", value < bar)


class Proofs:
    """Everything that is proved on drawn pictures, with `count` fresh scenes a test."""

    def __init__(self, settings: ScoreSettings, count: int, seed: int) -> None:
        self.settings, self.count, self.seed = settings, count, seed
        self.encoder = Encoder(settings.encoder, settings.device, settings.batch_size)
        self.styles = load_style_encoders(settings, self.encoder)
        self.reader = FeatureReader(self.encoder, self.styles, settings.side)
        self.lpips: Lpips = load_lpips(settings)
        self.scenes: Scenes = scenes(count, 0, seed)
        self.sheets = {medium: shown(self.scenes, medium) for medium in MEDIA}

    @cached_property
    def studies(self) -> dict[str, Pictures]:
        return {style: study_pictures(style) for style in STYLES}

    @cached_property
    def judges(self) -> dict[str, Judge]:
        return {
            style: Judge(self.settings, p.references, p.others, p.training, ANATOMY)
            for style, p in self.studies.items()
        }

    @cached_property
    def spaces(self) -> dict[str, Spaces]:
        sets = {style: (self.read(study.references), self.read(study.others)) for style, study in self.studies.items()}
        return {style: fit_spaces(self.styles, *read) for style, read in sets.items()}

    def read(self, images: Sequence[Tensor]) -> list[Features]:
        return self.reader.read(images, keep=True)

    def scored(self, style: str, samples: Sequence[Tensor], times: int = 1) -> Scores:
        """Score samples against the flat pictures of the scenes; each scene has `times` samples, one after another."""
        base = [image for image in self.sheets["flat"] for _ in range(times)]
        return self.judges[style].score(samples, base, [Prompt(f"scene {i // times}") for i in range(len(base))])

    def similarity(self, style: str, first: list[Tensor], second: list[Tensor], only: int | None = None) -> np.ndarray:
        """Return (N, M) mean cosine over the encoders' spaces of a style, or of one encoder."""
        read = [self.read(images) for images in (first, second)]
        views = list(self.spaces[style].values())
        chosen = range(len(views)) if only is None else [only]
        each = [views[i].unit(style_column(read[0], i)) @ views[i].unit(style_column(read[1], i)).T for i in chosen]
        return torch.stack(each).mean(0).numpy()
