"""The suite: every metric on one set of samples, two objectives and their constraints.

`Judge` holds what does not change within a study (encoders, features of references, pool and training pictures, and of
base images by their content), so that a trial pays for its samples only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metrics.encoder import Encoder
from metrics.features import FeatureReader, unique
from metrics.images import SampleError, ScoreError, TrainedOnError, check_images, same_pictures
from metrics.leakage import asked_among
from metrics.perceptual import Lpips
from metrics.readings import (
    CopyJudge,
    LayoutJudge,
    NounJudge,
    Pairs,
    Reading,
    SubjectJudge,
    fit_spaces,
    read_adherence,
    read_leakage,
    read_quality,
    read_style,
)
from metrics.settings import Constraint, ScoreSettings
from metrics.statistics import bootstrap_interval, prompt_means, statistic_of, style_objective
from metrics.vision import load_patch_encoder, load_style_encoders

Floats = NDArray[np.float64]
UNRELATED = "unrelated"


class ScoredPrompt(Protocol):
    """What the judge reads of a prompt."""

    @property
    def text(self) -> str:
        """The style-free words the picture was asked for with."""

    @property
    def group(self) -> str:
        """Where it counts: "unrelated" for objectives and constraints, anything else as a diagnostic."""


@dataclass(frozen=True)
class Scores:
    """One LoRA's scores. Every per-image list follows the order of the samples."""

    style: float  # about -0.5 ... 1.1, higher is better; 0 = base, 1 = as close as references are to each other
    composition: float  # -0.5 ... 1, higher is better; 1 = base's layout kept, 0 = unrelated layout
    constraints: dict[str, float]  # Constraint -> value, <= 0 when fine
    intervals: dict[str, tuple[float, float]]  # name in per_image -> bounds of its mean (style: of the objective)
    per_image: dict[str, list[float]]
    diagnostics: dict[str, float]


def score(
    samples: Sequence[Tensor],
    base_images: Sequence[Tensor],
    references: Sequence[Tensor],
    prompts: Sequence[ScoredPrompt],
    settings: ScoreSettings,
    *,
    others: Sequence[Tensor] = (),
    training: Sequence[Tensor] = (),
    training_nouns: Sequence[str] = (),
) -> Scores:
    """Score samples once; whoever scores more than one LoRA keeps a `Judge`. Arguments and errors: see there."""
    judge = Judge(settings, references, others=others, training=training, training_nouns=training_nouns)
    return judge.score(samples, base_images, prompts)


class Judge:
    """Scores the LoRAs of one study against one style."""

    def __init__(
        self,
        settings: ScoreSettings,
        references: Sequence[Tensor],
        others: Sequence[Tensor] = (),
        training: Sequence[Tensor] = (),
        training_nouns: Sequence[str] = (),
    ) -> None:
        """Load the encoders and read everything that stays.

        Args:
            settings: thresholds, encoders, device.
            references: held-out pictures of the style, (3, H, W) float in [0, 1], any sizes.
            others: frozen pool of other styles; without it the base images themselves are the style to leave.
            training: the pictures trained on; without them memorisation is not read.
            training_nouns: their subjects; without them leakage is not read. A constraint that is wanted and not
                read has a diagnostic, such as `leakage_unmeasured`, of 1.

        Raises:
            ScoreError: for too few references, pictures that are not pictures, references that were trained on, or
                encoders without weights.
        """
        _check_sets(references, others, training, settings)
        self.settings = settings
        self.encoder = Encoder(settings.encoder, settings.device, settings.batch_size)
        self._styles = load_style_encoders(settings, self.encoder)
        self._layouts = LayoutJudge(load_patch_encoder(settings, self._styles))
        self._reader = FeatureReader(self.encoder, self._styles, settings.side)
        self._references = self._reader.read(references)
        self._others = unique(self._reader.read(others))
        self._training = self._reader.read(training)
        self._spaces = fit_spaces(self._styles, self._references, self._others) if self._others else None
        wanted = set(settings.constraints)
        self._nouns: NounJudge | None = None
        if any(noun.strip() for noun in training_nouns):
            self._nouns = NounJudge(self.encoder, training_nouns, settings.neutral_nouns)
        self._subjects: SubjectJudge | None = None
        if training:
            self._subjects = SubjectJudge(self.encoder, settings.neutral_nouns, self._references, self._training)
        self._copies: CopyJudge | None = None
        if wanted & {Constraint.memorisation, Constraint.diversity}:
            self._copies = CopyJudge(load_lpips(settings), references, training)

    def score(
        self, samples: Sequence[Tensor], base_images: Sequence[Tensor], prompts: Sequence[ScoredPrompt]
    ) -> Scores:
        """Score samples against the base images of the same prompts, seeds and sampler.

        Args:
            samples: pictures with the LoRA, (3, H, W) float in [0, 1]; sizes may differ between prompts.
            base_images: the same without it, pair by pair of one size.
            prompts: one per pair; objectives and constraints are read where group is "unrelated".

        Raises:
            SampleError: a ScoreError, for samples that are no pictures (NaN): this LoRA's fault alone.
            ScoreError: for unequal lengths or sizes, bad base images, fewer than two unrelated prompts, or a style or
                layouts of the base that cannot be told apart.
        """
        chosen = _check_pairs(samples, base_images, prompts)
        known = self._reader.read(base_images, keep=True)
        found = self._reader.read(samples)
        pairs = Pairs(samples, base_images, [prompt.text for prompt in prompts], chosen, found, known)
        return self._summary(self._readings(pairs), pairs)

    def asked_among(self, prompts: Sequence[ScoredPrompt]) -> dict[str, list[str]]:
        """Return the unrelated prompts that ask for training subjects: no leak of these can be seen there."""
        texts = [prompt.text for prompt in prompts if prompt.group == UNRELATED]
        return asked_among(texts, self._nouns.nouns) if self._nouns else {}

    def _readings(self, pairs: Pairs) -> Reading:
        reading = self._style(pairs)
        reading.add(self._layouts.read(pairs, reading.per_image["style"]))
        reading.add(read_adherence(pairs, self.encoder, self.settings.adherence_loss))
        reading.add(read_quality(pairs, self._references, self.settings))
        if self._nouns is not None:
            reading.add(read_leakage(pairs, self._nouns, self._training, self.settings.leak_rate))
        if self._subjects is not None:
            reading.add(self._subjects.read(pairs))
        if self._copies is not None:
            reading.add(self._copies.read(pairs, self.settings, reading.diagnostics["diversity_layout"]))
        if reading.diagnostics["composition_collapsed"]:
            reading.constraints[Constraint.diversity] = self.settings.diversity_ratio  # as if nothing of it were left
        return reading

    def _style(self, pairs: Pairs) -> Reading:
        pool = self._others or unique([pairs.known[i] for i in pairs.chosen])
        least = self.settings.references_at_least
        if len(pool) < least:
            raise ScoreError(
                f"without `others`, at least {least} different base images are needed to measure style against, "
                f"got {len(pool)}"
            )
        spaces = self._spaces or fit_spaces(self._styles, self._references, pool)
        return read_style(pairs, spaces, pool, self.settings.style_range_at_least)

    def _summary(self, reading: Reading, pairs: Pairs) -> Scores:
        texts = [pairs.texts[i] for i in pairs.chosen]
        means = {name: prompt_means(values[pairs.chosen], texts) for name, values in reading.per_image.items()}
        tail = style_objective(means["style"], tail_weight=1.0, tail_share=self.settings.tail_share)
        unread = [name for name in self.settings.constraints if name not in reading.constraints]
        # Without training nouns, or training pictures, a wanted constraint is neither met nor broken: say so.
        reading.diagnostics |= {f"{name}_unmeasured": 1.0 for name in unread}
        diagnostics = reading.diagnostics | {"style_mean": means["style"].mean(), "style_tail": tail}
        diagnostics |= self._by_size(reading, pairs)
        rest = np.setdiff1d(np.arange(len(pairs.texts)), pairs.chosen)
        if len(rest):
            diagnostics |= {f"{name}_in_domain": values[rest].mean() for name, values in reading.per_image.items()}
        wanted = [name for name in self.settings.constraints if name in reading.constraints]
        return Scores(
            style=float(statistic_of("style", self.settings)(means["style"])),
            composition=float(means["composition"].mean()),
            constraints={name.value: float(reading.constraints[name]) for name in wanted},
            intervals={name: self._interval(name, reading, pairs.chosen, texts) for name in reading.per_image},
            per_image={name: [float(v) for v in values] for name, values in reading.per_image.items()},
            diagnostics={name: float(value) for name, value in diagnostics.items()},
        )

    def _by_size(self, reading: Reading, pairs: Pairs) -> dict[str, float]:
        """Return objectives and line quality at each size, where there are several: does it stay crisp elsewhere?"""
        sizes = [_size(tuple(pairs.samples[i].shape)) for i in pairs.chosen]
        if len(set(sizes)) < 2:
            return {}
        return {
            f"{name}_{size}": float(
                np.mean([reading.per_image[name][i] for i, s in zip(pairs.chosen, sizes, strict=True) if s == size])
            )
            for name in ("style", "composition", "line_quality")
            for size in dict.fromkeys(sizes)
        }

    def _interval(self, name: str, reading: Reading, chosen: list[int], texts: Sequence[str]) -> tuple[float, float]:
        return bootstrap_interval(
            reading.per_image[name][chosen],
            texts,
            statistic=statistic_of(name, self.settings),
            samples=self.settings.bootstrap_samples,
            confidence=self.settings.confidence,
            seed=self.settings.seed,
        )


def load_lpips(settings: ScoreSettings) -> Lpips:
    """Return the LPIPS that the settings name."""
    return Lpips(
        settings.lpips_weights,
        settings.lpips_net,
        side=settings.lpips_side,
        device=settings.device,
        batch_size=settings.batch_size,
    )


def _check_sets(
    references: Sequence[Tensor], others: Sequence[Tensor], training: Sequence[Tensor], settings: ScoreSettings
) -> None:
    for name, images in [("references", references), ("others", others), ("training", training)]:
        check_images(images, name)
    least = settings.references_at_least
    if len(references) < least:
        raise ScoreError(f"at least {least} references are needed (`references_at_least`), got {len(references)}")
    if 0 < len(others) < least:
        raise ScoreError(f"the pool of other styles needs at least {least} pictures or none, got {len(others)}")
    shared = same_pictures(references, training)
    if shared:
        raise TrainedOnError(shared)


def _check_pairs(
    samples: Sequence[Tensor], base_images: Sequence[Tensor], prompts: Sequence[ScoredPrompt]
) -> list[int]:
    """Return the positions that count for the objectives."""
    if not len(samples) == len(base_images) == len(prompts):
        raise ScoreError(
            "samples, base_images and prompts must be of one length, "
            f"got {len(samples)}, {len(base_images)} and {len(prompts)}"
        )
    check_images(samples, "samples", SampleError)
    check_images(base_images, "base_images")
    sizes = [(tuple(sample.shape), tuple(base.shape)) for sample, base in zip(samples, base_images, strict=True)]
    differ = [f"samples[{i}] is {_size(s)}, base_images[{i}] {_size(b)}" for i, (s, b) in enumerate(sizes) if s != b]
    if differ:
        raise ScoreError(
            f"a sample and its base image must be of one size, {len(differ)} of {len(sizes)} pairs are not: "
            + "; ".join(differ[:10])
        )
    chosen = [i for i, prompt in enumerate(prompts) if prompt.group == UNRELATED]
    texts = {prompts[i].text for i in chosen}
    if len(texts) < 2:
        raise ScoreError(f'at least 2 different prompts of group "{UNRELATED}" are needed, got {len(texts)}')
    return chosen


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]}"
