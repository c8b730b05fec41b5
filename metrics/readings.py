"""Every aspect of a LoRA read from one set of pairs (sample, base image): values per picture, constraint, diagnostics.

Each function reads one aspect and returns a `Reading`; the suite merges them. Rates and means are over the pairs that
count (`chosen`, the unrelated prompts) unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from metrics.adherence import adherence_change
from metrics.composition import (
    RANGE_AT_LEAST,
    Floor,
    composition,
    distance_matrix,
    null_distance,
    redrawn_distances,
)
from metrics.diversity import diversity_ratio
from metrics.encoder import Encoder
from metrics.features import Features, embeddings, style_column
from metrics.images import levelled
from metrics.leakage import asked_for, leaks, noun_probabilities, picture_leak, subject_directions
from metrics.memorisation import copies, memorisation_gap
from metrics.perceptual import Lpips, lpips_distances
from metrics.quality import failed, line_quality
from metrics.settings import NEUTRAL_NOUNS, Constraint, ScoreSettings, StyleEncoder
from metrics.structure import Layouts
from metrics.style import StyleSpace, style_gain
from metrics.vision import PictureEncoder, VisionTransformer

Floats = NDArray[np.float64]
BASE_SETS = 2  # of base images, kept with their layouts: those of a rung and those of the end take turns


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
        name: StyleSpace.fit(style_column(references, i), style_column(others, i), whitening=encoder.whitening)
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


class LayoutJudge:
    """Composition, and diversity of layouts; what concerns base images alone is read once."""

    def __init__(self, patches: VisionTransformer | None = None) -> None:
        """Read edges and gradients, and the self-similarity of `patches` where there are any."""
        self._patches = patches
        self._redrawn: dict[str, list[list[float]]] = {}  # each base image's distances to its redrawings
        self._base: dict[tuple[str, ...], tuple[Layouts, Floats]] = {}  # keys of a set -> its layouts and distances

    def read(self, pairs: Pairs, gains: Floats) -> Reading:
        """Return composition kept, per picture, whose style gains say how much a restyling may have cost.

        Samples as near to other prompts' base images as a restyling is (`composition_collapsed`) keep nothing, 0.

        Raises:
            ScoreError: if the base images of different prompts cannot be told apart either.
        """
        base, base_matrix = self._known(pairs)
        floor = Floor.of([self._redrawn[pairs.known[i].key] for i in pairs.chosen])
        samples = Layouts(pairs.samples, self._patches)
        matrix, among = distance_matrix(base, samples), distance_matrix(samples, samples)
        counted = np.ix_(pairs.chosen, pairs.chosen)
        texts = [pairs.texts[i] for i in pairs.chosen]
        null = null_distance(matrix[counted], texts)
        # The base's own pictures can be told apart, and these samples cannot: their fault, so their score.
        collapsed = null - floor.whole < RANGE_AT_LEAST <= null_distance(base_matrix[counted], texts) - floor.whole
        own = matrix.diagonal()
        kept = np.zeros(len(matrix)) if collapsed else composition(own, null=null, floor=floor, dose=gains)
        marks = {"composition_null": null, "composition_floor": floor.whole, "composition_collapsed": float(collapsed)}
        marks["diversity_layout"] = diversity_ratio(among[counted], base_matrix[counted])
        return Reading({"composition": kept}, {}, marks)

    def _known(self, pairs: Pairs) -> tuple[Layouts, Floats]:
        """Return the base images' layouts and the distances among them."""
        for image, features in zip(pairs.base_images, pairs.known, strict=True):
            if features.key not in self._redrawn:
                self._redrawn[features.key] = redrawn_distances(image, self._patches)
        keys = tuple(features.key for features in pairs.known)
        if keys not in self._base:
            layouts = Layouts(pairs.base_images, self._patches)
            self._base = dict([*self._base.items()][-(BASE_SETS - 1) :])
            self._base[keys] = layouts, distance_matrix(layouts, layouts)
        return self._base[keys]


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


class SubjectJudge:
    """How much nearer samples came to training pictures, in the directions in which nouns differ."""

    def __init__(
        self, encoder: Encoder, nouns: Sequence[str], references: Sequence[Features], training: Sequence[Features]
    ) -> None:
        """Take `nouns` of any subjects, and the references and training pictures as they were read."""
        self._directions = subject_directions(encoder.nouns(nouns or NEUTRAL_NOUNS))
        self._centre = embeddings([*references, *training]).mean(0)
        self._references, self._training = self._subjects(references), self._subjects(training)

    def read(self, pairs: Pairs) -> Reading:
        """Return leakage by picture, a diagnostic."""
        after, before = self._subjects(pairs.found), self._subjects(pairs.known)
        found = picture_leak(after, before, self._training, self._references)
        return Reading({"leak_picture": found}, {}, {"leak_picture": float(found[pairs.chosen].mean())})

    def _subjects(self, features: Sequence[Features]) -> Tensor:
        return functional.normalize((embeddings(features) - self._centre) @ self._directions.T, dim=1)


def read_quality(pairs: Pairs, references: Sequence[Features], settings: ScoreSettings) -> Reading:
    """Return failed pictures and the quality of lines and contrast.

    One failed picture alone never breaks the constraint: among fewer pictures than 1 / `failure_rate`, it would stand
    for a rate that so few cannot show, and one sound picture in twenty may be flagged by mistake (proof V10's bar).
    """
    found, base = ([f.sanity for f in some] for some in (pairs.found, pairs.known))
    normal = [*(f.sanity for f in references), *base]
    after, before = (failed(some, base, normal) for some in (found, base))
    rate, base_rate = float(after[pairs.chosen].mean()), float(before[pairs.chosen].mean())
    lines = [np.stack([f.lines for f in some]) for some in (pairs.found, pairs.known, references)]
    quality = line_quality(*lines)
    mean = float(quality[pairs.chosen].mean())
    return Reading(
        {"failed": after.astype(float), "line_quality": quality},
        {
            Constraint.failures: round(rate - base_rate - max(settings.failure_rate, 1 / len(pairs.chosen)), 9),
            Constraint.lines: settings.line_quality - mean,
        },
        {"failed_rate": rate, "failed_rate_base": base_rate, "line_quality": mean},
    )


class CopyJudge:
    """LPIPS of the samples to training pictures, references and each other."""

    def __init__(self, lpips: Lpips, references: Sequence[Tensor], training: Sequence[Tensor]) -> None:
        """Read references and training pictures once."""
        self.lpips = lpips
        self._count = len(training)
        if training:
            self._training = self._variants(training, CROPS)
            self._squares = self._training.square().sum(1)
            self._references = self._variants(references, CROPS[:1])
            self._usual = self._to_training(self._references[: len(references)]).min(1)
        self._base: dict[str, Tensor] = {}
        self._of_base: dict[str, Floats] = {}  # each base image's distances to the training pictures

    def read(self, pairs: Pairs, settings: ScoreSettings, layout_ratio: float) -> Reading:
        """Return memorisation, over all pairs, and diversity; `layout_ratio` is the diversity of layouts."""
        fresh = {f.key: i for f, i in zip(pairs.known, pairs.base_images, strict=True) if f.key not in self._base}
        if fresh:
            vectors = self._vectors(list(fresh.values()))
            self._base |= dict(zip(fresh, vectors, strict=True))
            if self._count:
                self._of_base |= dict(zip(fresh, self._to_training(vectors).min(1), strict=True))
        after = self._vectors(pairs.samples)
        before = torch.stack([self._base[features.key] for features in pairs.known])
        some, known = after[pairs.chosen], before[pairs.chosen]
        ratio = diversity_ratio(_distances(some, some), _distances(known, known))
        # A style's texture lowers the LPIPS ratio only; a collapse lowers both.
        reading = Reading(
            {},
            {Constraint.diversity: settings.diversity_ratio - max(ratio, layout_ratio)},
            {"diversity_lpips": ratio},
        )
        if self._count:
            of_base = np.stack([self._of_base[features.key] for features in pairs.known])
            reading.add(self._memorisation(after, of_base, pairs.chosen, settings))
        return reading

    def _variants(self, images: Sequence[Tensor], crops: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        """Return the pictures' crops, then the first MIRRORED of these mirrored: (variants * N, D).

        A trainer crops and flips, and a sample may have another aspect: a copy is looked for in each of these.
        """
        mirrored = [lambda image, crop=crop: crop(image).flip(-1) for crop in crops[:MIRRORED]]
        return self._vectors(variant(image) for variant in (*crops, *mirrored) for image in images)

    def _vectors(self, images: Iterable[Tensor]) -> Tensor:
        """Return LPIPS vectors of pictures at full contrast: a paler copy is a copy."""
        return self.lpips.vectors(levelled(image) for image in images)

    def _to_training(self, vectors: Tensor) -> Floats:
        """Return (N, variants, training pictures) distances of pictures."""
        found = lpips_distances(vectors, self._training, self._squares).double().numpy()
        return np.asarray(found.reshape(len(vectors), -1, self._count))

    def _memorisation(self, after: Tensor, of_base: Floats, chosen: list[int], settings: ScoreSettings) -> Reading:
        near = self._to_training(after)
        references = _distances(after, self._references).reshape(len(after), 2, -1)
        # Both as they are and mirrored, no crops, so that the two can be compared.
        gap = memorisation_gap(near[:, [0, len(CROPS)]].min(1), references.min(1))
        flags = copies(near.min(1), self._usual, share=settings.copy_distance, base_to_training=of_base)
        rate = float(flags.mean())
        return Reading(
            {"memorisation_gap": gap, "copy": flags.astype(float)},
            {Constraint.memorisation: rate - settings.copy_rate},
            {"memorisation_gap": float(gap[chosen].mean()), "copy_rate": rate},
        )


def _cut(rows: int, columns: int) -> Callable[[Tensor], Tensor]:
    """Return what takes 7/8 of each edge; `rows` and `columns` sixteenths are left out before it, the rest behind."""

    def crop(image: Tensor) -> Tensor:
        height, width = image.shape[1:]
        top, left = rows * height // 16, columns * width // 16
        return image[:, top : top + height - height // 8, left : left + width - width // 8]

    return crop


def _square(image: Tensor) -> Tensor:
    """Return the square in the middle of a picture."""
    height, width = image.shape[1:]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    return image[:, top : top + edge, left : left + edge]


def _whole(image: Tensor) -> Tensor:
    return image


# Whole, its square, the middle and the four corners.
CROPS = (_whole, _square, *(_cut(rows, columns) for rows, columns in ((1, 1), (0, 0), (0, 2), (2, 0), (2, 2))))
MIRRORED = 3  # the corners are not: seven crops of every picture cost enough


def _distances(first: Tensor, second: Tensor) -> Floats:
    return lpips_distances(first, second).double().numpy()
