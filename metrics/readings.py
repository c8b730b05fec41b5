"""Every aspect of a LoRA read from one set of pairs (sample, base image): values per picture, constraint, diagnostics.

Each function reads one aspect and returns a `Reading`; the suite merges them. Rates and means are over the pairs that
count (`chosen`, the unrelated prompts) unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.adherence import adherence_change
from metrics.composition import (
    RANGE_AT_LEAST,
    composition,
    distance_matrix,
    floor_distance,
    floor_distances,
    null_distance,
)
from metrics.diversity import diversity_ratio
from metrics.encoder import Encoder
from metrics.features import Features, embeddings, style_column
from metrics.leakage import asked_for, leaks, noun_probabilities
from metrics.memorisation import copies, memorisation_gap
from metrics.perceptual import Lpips, lpips_distances
from metrics.quality import failed, line_quality
from metrics.settings import Constraint, ScoreSettings, StyleEncoder
from metrics.style import StyleSpace, style_gain
from metrics.vision import PictureEncoder, VisionTransformer

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Samples and the base images of the same prompts and seeds, in one order."""

    samples: Sequence[Tensor]
    base_images: Sequence[Tensor]
    texts: Sequence[str]
    chosen: list[int]  # positions of the unrelated prompts
    found: Sequence[Features]  # of the samples
    known: Sequence[Features]  # of the base images


@dataclass
class Reading:
    """What one aspect says."""

    per_image: dict[str, Floats] = field(default_factory=dict)
    constraints: dict[Constraint, float] = field(default_factory=dict)
    diagnostics: dict[str, float] = field(default_factory=dict)

    def add(self, other: Reading) -> None:
        """Take over another aspect."""
        self.per_image |= other.per_image
        self.constraints |= other.constraints
        self.diagnostics |= other.diagnostics


Spaces = dict[StyleEncoder, StyleSpace]


def fit_spaces(
    styles: Mapping[StyleEncoder, PictureEncoder], references: Sequence[Features], others: Sequence[Features]
) -> Spaces:
    """Return every encoder's view of the style."""
    return {
        name: StyleSpace.fit(style_column(references, i), style_column(others, i), whiten=encoder.whiten)
        for i, (name, encoder) in enumerate(styles.items())
    }


def read_style(pairs: Pairs, spaces: Spaces, pool: Sequence[Features], range_at_least: float) -> Reading:
    """Return the style gain; ScoreError if the style cannot be told from the base."""
    # A base image that stands in the pool is neither its own nor its sample's neighbour.
    allowed = torch.tensor([[other.key != base.key for other in pool] for base in pairs.known])
    after = [space.sigma(style_column(pairs.found, i), allowed) for i, space in enumerate(spaces.values())]
    before = [space.sigma(style_column(pairs.known, i), allowed) for i, space in enumerate(spaces.values())]
    diagnostics = {}
    for (encoder, space), a, b in zip(spaces.items(), after, before, strict=True):
        width = space.ceiling - float(b[pairs.chosen].mean())
        diagnostics[f"style_range_{encoder}"] = width
        if width >= range_at_least:  # an encoder that cannot tell this style has no gain of its own
            diagnostics[f"style_gain_{encoder}"] = float((a - b)[pairs.chosen].mean()) / width
    base = np.mean(before, axis=0)
    ceiling, level = float(np.mean([space.ceiling for space in spaces.values()])), float(base[pairs.chosen].mean())
    gains = style_gain(np.mean(after, axis=0), base, base_level=level, ceiling=ceiling, range_at_least=range_at_least)
    return Reading({"style": gains}, {}, diagnostics | {"style_range": ceiling - level})


def read_composition(pairs: Pairs, floors: dict[str, list[float]], patches: VisionTransformer | None = None) -> Reading:
    """Return composition kept, and the diversity of layouts; `floors` keeps each base image's redrawings' distances.

    Samples that are as near to other prompts' base images as a restyling is (`composition_collapsed`) keep nothing, 0.

    Raises:
        ScoreError: if the base images of different prompts cannot be told apart either.
    """
    for image, features in zip(pairs.base_images, pairs.known, strict=True):
        if features.key not in floors:
            floors[features.key] = floor_distances(image, patches)
    floor = floor_distance([floors[pairs.known[i].key] for i in pairs.chosen])
    matrix = distance_matrix(pairs.base_images, pairs.samples, patches)
    texts = [pairs.texts[i] for i in pairs.chosen]
    null = null_distance(matrix[np.ix_(pairs.chosen, pairs.chosen)], texts)
    some, before = ([images[i] for i in pairs.chosen] for images in (pairs.samples, pairs.base_images))
    base_matrix = distance_matrix(before, before, patches)
    ratio = diversity_ratio(distance_matrix(some, some, patches), base_matrix)
    # The base's own pictures can be told apart, and these samples cannot: their fault, so their score.
    collapsed = null - floor < RANGE_AT_LEAST <= null_distance(base_matrix, texts) - floor
    kept = np.zeros(len(matrix)) if collapsed else composition(matrix.diagonal(), null=null, floor=floor)
    marks = {"composition_null": null, "composition_floor": floor, "composition_collapsed": float(collapsed)}
    marks["diversity_layout"] = ratio
    return Reading({"composition": kept}, {}, marks)


def read_adherence(pairs: Pairs, encoder: Encoder, loss: float) -> Reading:
    """Return how much less the prompt is followed than by the base, with `loss` nats allowed."""
    bank = list(dict.fromkeys(pairs.texts))
    own = [bank.index(text) for text in pairs.texts]
    change = adherence_change(embeddings(pairs.found), embeddings(pairs.known), encoder.texts(bank), own)
    mean = float(change[pairs.chosen].mean())
    return Reading({"adherence": change}, {Constraint.adherence: -mean - loss}, {"adherence_change": mean})


class NounJudge:
    """Zero-shot classification among the training nouns and neutral ones."""

    def __init__(self, encoder: Encoder, nouns: Sequence[str], neutral: Sequence[str]) -> None:
        """Embed the nouns; a neutral noun that was trained on is left out."""
        self.nouns = list(dict.fromkeys(noun.strip().lower() for noun in nouns if noun.strip()))
        self._training = encoder.nouns(self.nouns)
        # Words a small tokenizer does not know all read the same; together they would outweigh a known one.
        self._neutral = torch.unique(encoder.nouns([n for n in neutral if n.lower() not in self.nouns]), dim=0)
        self._scale = encoder.logit_scale

    def probabilities(self, features: Sequence[Features]) -> Floats:
        """Return (N, K) P(training noun | picture)."""
        return noun_probabilities(embeddings(features), self._training, self._neutral, self._scale)


def read_leakage(pairs: Pairs, judge: NounJudge, training: Sequence[Features], rate: float) -> Reading:
    """Return which samples show a training noun nobody asked for, with a share of `rate` allowed."""
    asked = asked_for(pairs.texts, judge.nouns)
    flags = leaks(judge.probabilities(pairs.found), judge.probabilities(pairs.known), asked)
    found = float(flags[pairs.chosen].mean())
    diagnostics = {"leak_rate": found}
    if training:
        # The share of training pictures that the encoder calls a training noun: near 0, it cannot see leaks either.
        diagnostics["leak_sensitivity"] = float((judge.probabilities(training) > 0.5).any(1).mean())
    return Reading({"leak": flags.astype(float)}, {Constraint.leakage: found - rate}, diagnostics)


def read_quality(pairs: Pairs, references: Sequence[Features], settings: ScoreSettings) -> Reading:
    """Return failed pictures and the quality of lines and contrast."""
    normal = np.stack([f.sanity for f in [*references, *pairs.known]])
    after = failed(np.stack([f.sanity for f in pairs.found]), normal)
    before = failed(np.stack([f.sanity for f in pairs.known]), normal)
    rate, base_rate = float(after[pairs.chosen].mean()), float(before[pairs.chosen].mean())
    lines = [np.stack([f.lines for f in some]) for some in (pairs.found, pairs.known, references)]
    quality = line_quality(*lines)
    mean = float(quality[pairs.chosen].mean())
    return Reading(
        {"failed": after.astype(float), "line_quality": quality},
        {
            Constraint.failures: rate - base_rate - settings.failure_rate,
            Constraint.lines: settings.line_quality - mean,
        },
        {"failed_rate": rate, "failed_rate_base": base_rate, "line_quality": mean},
    )


class CopyJudge:
    """LPIPS of the samples to training pictures, references and each other."""

    def __init__(self, lpips: Lpips, references: Sequence[Tensor], training: Sequence[Tensor]) -> None:
        """Read references and training pictures once."""
        self.lpips = lpips
        self._references = self._both_ways(references)
        self._training: Tensor | None = None
        if len(training):
            self._training = self._both_ways(training)
            self._usual = _nearer(self._references[: len(references)], self._training)
        self._base: dict[str, Tensor] = {}

    def read(self, pairs: Pairs, settings: ScoreSettings, layout_ratio: float) -> Reading:
        """Return memorisation, over all pairs, and diversity; `layout_ratio` is the diversity of layouts."""
        fresh = {f.key: i for f, i in zip(pairs.known, pairs.base_images, strict=True) if f.key not in self._base}
        if fresh:
            self._base |= dict(zip(fresh, self.lpips.vectors(list(fresh.values())), strict=True))
        after = self.lpips.vectors(pairs.samples)
        before = torch.stack([self._base[pairs.known[i].key] for i in pairs.chosen])
        some = after[pairs.chosen]
        ratio = diversity_ratio(_distances(some, some), _distances(before, before))
        # A style's texture lowers the LPIPS ratio only; a collapse lowers both.
        reading = Reading(
            {},
            {Constraint.diversity: settings.diversity_ratio - max(ratio, layout_ratio)},
            {"diversity_lpips": ratio},
        )
        if self._training is not None:
            reading.add(self._memorisation(after, self._training, pairs.chosen, settings))
        return reading

    def _both_ways(self, images: Sequence[Tensor]) -> Tensor:
        """Return (2N, D): the pictures, then the pictures mirrored, as trainers flip them."""
        return self.lpips.vectors([*images, *(image.flip(-1) for image in images)])

    def _memorisation(self, after: Tensor, training: Tensor, chosen: list[int], settings: ScoreSettings) -> Reading:
        near = _nearer(after, training)
        gap = memorisation_gap(near, _nearer(after, self._references))
        flags = copies(near, self._usual, share=settings.copy_distance)
        rate = float(flags.mean())
        return Reading(
            {"memorisation_gap": gap, "copy": flags.astype(float)},
            {Constraint.memorisation: rate - settings.copy_rate},
            {"memorisation_gap": float(gap[chosen].mean()), "copy_rate": rate},
        )


def _nearer(pictures: Tensor, both_ways: Tensor) -> Floats:
    """Return (N, M) LPIPS to the nearer of a picture and its mirror image, from (2M, D)."""
    straight, mirrored = both_ways.chunk(2)
    return np.minimum(_distances(pictures, straight), _distances(pictures, mirrored))


def _distances(first: Tensor, second: Tensor) -> Floats:
    return lpips_distances(first, second).double().numpy()
