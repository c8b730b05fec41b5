"""The plan of a training: which pictures are shown at which size, in which batches, in which order.

A mix enters the same folder once per side, each with its own repeats, as kohya's datasets do: an epoch is the sum over
the sides of pictures x repeats. With `random_side` it is OneTrainer's meaning instead: an epoch shows each picture
once, at one side, drawn anew with the repeats as odds. A plan is known before any GPU work and prints itself.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from random import Random
from typing import NamedTuple, Protocol

from trainer.buckets import Bucket, Fit, fit_picture
from trainer.examples import DatasetError, list_faults
from trainer.seeds import derive_seed
from trainer.settings import MixSettings


class PlanError(ValueError):
    """The sides of a mix cannot be laid out on this base; the message names the setting."""


class Sized(Protocol):
    """What a plan needs to know of a picture."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


class Batch(NamedTuple):
    """Pictures shown together: all at one side and in one bucket."""

    bucket: Bucket  # px of the base
    side: int  # FLUX px
    indices: tuple[int, ...]  # into the examples


@dataclass(frozen=True)
class SidePlan:
    """How the folder is shown at one side."""

    side: int  # FLUX px
    pixels: int  # the side in px of the base
    repeats: int
    batch_size: int
    fits: tuple[Fit, ...]  # one per example
    too_small: int  # examples with less than pixels x pixels

    @cached_property
    def buckets(self) -> dict[Bucket, tuple[int, ...]]:
        """Bucket -> the examples in it, sorted."""
        table: dict[Bucket, list[int]] = {}
        for index, fit in enumerate(self.fits):
            table.setdefault(fit.bucket, []).append(index)
        return {bucket: tuple(table[bucket]) for bucket in sorted(table)}

    @property
    def batches_per_epoch(self) -> int:
        return sum(ceil(len(indices) * self.repeats / self.batch_size) for indices in self.buckets.values())

    @property
    def crop_loss(self) -> float:
        """Mean share of a picture that is cut away, in [0, 1)."""
        return sum(fit.crop_loss for fit in self.fits) / len(self.fits)


@dataclass(frozen=True)
class Plan:
    """The seeded sequence of batches that mix, repeats and buckets produce."""

    sides: tuple[SidePlan, ...]
    step: int  # px of the base per token edge
    seed: int
    accumulation: int  # batches per optimiser step
    scale: float = 1.0  # px of the base per FLUX px
    random_side: bool = False  # one random side per picture and epoch, instead of every side

    @property
    def images_per_epoch(self) -> int:
        return len(self.sides[0].fits) if self.random_side else self._shown

    @property
    def _shown(self) -> int:
        return sum(len(side.fits) * side.repeats for side in self.sides)

    @property
    def batches_per_epoch(self) -> int:
        """With a random side: of the first epoch, others differ by a few."""
        if self.random_side:
            return len(self.batches(0))
        return sum(side.batches_per_epoch for side in self.sides)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps; the last of an epoch may have fewer batches."""
        return ceil(self.batches_per_epoch / self.accumulation)

    @property
    def tokens_per_image(self) -> float:
        """Mean number of picture tokens, over an epoch: what a picture costs, up to the base's own speed."""
        tokens = sum(
            side.repeats * fit.bucket.width * fit.bucket.height for side in self.sides for fit in side.fits
        ) / (self.step * self.step)
        return tokens / self._shown

    def epochs(self, images_seen: int) -> int:
        """Epochs begun when that many pictures have been shown."""
        return ceil(images_seen / self.images_per_epoch)

    def batches(self, epoch: int) -> list[Batch]:
        """The batches of an epoch in order; random by (seed, epoch) alone."""
        rng = Random(derive_seed("order", self.seed, epoch))
        batches = []
        drawn = self._drawn_sides(epoch) if self.random_side else None
        for side in self.sides:
            for bucket, indices in side.buckets.items():
                shown = list(indices) * side.repeats
                if drawn is not None:
                    shown = [index for index in indices if drawn[index] == side.side]
                rng.shuffle(shown)
                for start in range(0, len(shown), side.batch_size):
                    batches.append(Batch(bucket, side.side, tuple(shown[start : start + side.batch_size])))
        rng.shuffle(batches)
        return batches

    def _drawn_sides(self, epoch: int) -> list[int]:
        """The side of every picture in an epoch."""
        sides, odds = [side.side for side in self.sides], [side.repeats for side in self.sides]
        rng = Random(derive_seed("side", self.seed, epoch))
        return rng.choices(sides, odds, k=len(self.sides[0].fits))

    def steps(self, images_seen: float) -> Iterator[tuple[int, list[Batch]]]:
        """(epoch, batches) of every optimiser step until `images_seen` pictures have been shown or just more."""
        epoch = seen = 0
        while seen < images_seen:
            batches = self.batches(epoch)
            for start in range(0, len(batches), self.accumulation):
                step = batches[start : start + self.accumulation]
                yield epoch, step
                seen += sum(len(batch.indices) for batch in step)
                if seen >= images_seen:
                    return
            epoch += 1

    @property
    def warnings(self) -> list[str]:
        """What a person would want to know before spending a night on this plan."""
        return [warning for side in self.sides for warning in _warnings(side)]

    def __str__(self) -> str:
        lines = [
            f"{len(self.sides[0].fits)} pictures, {self.images_per_epoch} shown per epoch"
            f" in {self.batches_per_epoch} batches, {self.steps_per_epoch} steps;"
            f" {self.tokens_per_image:.0f} tokens per picture"
            + (", each at one random side" if self.random_side else ""),
            "side  repeats  batch  buckets  cut away",
        ]
        for side in self.sides:
            sizes = ", ".join(f"{b.width}x{b.height}: {len(i)}" for b, i in side.buckets.items())
            lines.append(
                f"{side.side:>4}  {side.repeats:>7}  {side.batch_size:>5}  {len(side.buckets):>7}"
                f"  {side.crop_loss:>7.1%}   {sizes}"
            )
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])


def make_plan(
    examples: Sequence[Sized],
    mix: MixSettings,
    *,
    scale: float,
    step: int,
    seed: int,
    batch_size: int | None = None,
) -> Plan:
    """Lay out a training.

    Args:
        examples: pictures with width and height in px.
        scale: px of the base per FLUX px.
        step: px of the base per token edge (VAE factor x patch); bucket edges are multiples of it, or of the mix's own
            step, which is a multiple of it.
        seed: of the order.
        batch_size: instead of the mix's.

    Raises:
        DatasetError: pictures with an edge below one step, or no pictures.
        PlanError: a side smaller than one step, or limits that exclude it; a step of the mix's that no token fits.
    """
    if not examples:
        raise DatasetError("a plan needs at least one picture")
    edge = step if mix.bucket_step is None else round(mix.bucket_step * scale)
    if edge < step or edge % step:
        raise PlanError(f"`mix.bucket_step` must be a multiple of {round(step / scale)} px here, got {mix.bucket_step}")
    sides = tuple(
        _plan_side(examples, mix, side, repeats, scale, edge, mix.batch_sizes.get(side, batch_size or mix.batch_size))
        for side, repeats in sorted(mix.repeats.items())
        if repeats
    )
    return Plan(sides, step, seed, mix.gradient_accumulation, scale, mix.random_side)


def _plan_side(
    examples: Sequence[Sized], mix: MixSettings, side: int, repeats: int, scale: float, step: int, batch_size: int
) -> SidePlan:
    pixels = round(side * scale)
    if pixels < step:
        raise PlanError(
            f"`mix.repeats.{side}`: {pixels} px at scale {scale} is less than one step of {step} px;"
            f" sides of at least {ceil(step / scale)} can be trained"
        )
    low = pixels // 2 if mix.min_side is None else round(mix.min_side * scale)
    high = pixels * 2 if mix.max_side is None else round(mix.max_side * scale)
    if not mix.no_upscale and not low <= pixels <= high:
        raise PlanError(f"`mix.repeats.{side}` lies outside mix.min_side={mix.min_side} … mix.max_side={mix.max_side}")
    low = max(low, step)  # an edge of no px is no bucket
    fits, faults = [], []
    for index, example in enumerate(examples):
        try:
            fits.append(
                fit_picture(
                    example.width,
                    example.height,
                    side=pixels,
                    step=step,
                    min_side=low,
                    max_side=high,
                    no_upscale=mix.no_upscale,
                )
            )
        except ValueError as error:
            faults.append(f"{getattr(example, 'path', f'picture {index}')}: {error}")
    if faults:
        raise DatasetError(list_faults(f"pictures that do not fit side {side}", faults))
    too_small = sum(example.width * example.height < pixels * pixels for example in examples)
    return SidePlan(side, pixels, repeats, batch_size, tuple(fits), too_small)


def _warnings(side: SidePlan) -> list[str]:
    warnings = []
    if side.too_small:
        warnings.append(
            f"side {side.side}: smaller than {side.pixels}x{side.pixels} px:"
            f" {side.too_small} of {len(side.fits)} pictures"
        )
    shapes = Counter(bucket.width == bucket.height for bucket in side.buckets)
    if not shapes[False] and side.crop_loss > 0.1:
        warnings.append(f"side {side.side}: every picture is cut square, {side.crop_loss:.0%} of the area is lost")
    alone = sum(len(indices) == 1 for indices in side.buckets.values())
    if alone and side.batch_size > 1 and len(side.fits) > 1:
        warnings.append(f"side {side.side}: {alone} of {len(side.buckets)} buckets hold a single picture")
    return warnings
