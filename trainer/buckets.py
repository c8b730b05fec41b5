"""Aspect buckets: which size a picture of any shape is trained at.

The arithmetic is that of kohya's sd-scripts, established as facts from its behaviour (tests/trainer/vectors). Two
modes: with upscaling, a picture goes to the nearest aspect of a fixed table; without, it is shrunk to the side's area
if it is larger and then cut to multiples of the step, so no table is needed.
"""

from functools import cache
from math import isqrt, sqrt
from typing import NamedTuple


class Bucket(NamedTuple):
    """Size in px a group of pictures is trained at; both multiples of the step."""

    width: int
    height: int


class Fit(NamedTuple):
    """How one picture reaches its bucket: resize it to `resized`, then cut the bucket out at `crop_xy` (left, top)."""

    bucket: Bucket
    resized: tuple[int, int]
    crop_xy: tuple[int, int]

    @property
    def crop_loss(self) -> float:
        """Share of the resized picture's area that is cut away, in [0, 1)."""
        return 1 - (self.bucket.width * self.bucket.height) / (self.resized[0] * self.resized[1])


def kohya_bucket(
    width: int, height: int, *, side: int, step: int, min_side: int | None, max_side: int | None, no_upscale: bool
) -> Bucket:
    """The bucket of a picture of `width` x `height` px; see `fit_picture`."""
    return fit_picture(
        width, height, side=side, step=step, min_side=min_side, max_side=max_side, no_upscale=no_upscale
    ).bucket


def fit_picture(
    width: int, height: int, *, side: int, step: int, min_side: int | None, max_side: int | None, no_upscale: bool
) -> Fit:
    """Find bucket, resize and crop of one picture.

    Args:
        width, height: the picture, px.
        side: edge in px of the square with the area to train at.
        step: bucket edges are multiples of it, px (VAE factor x patch).
        min_side, max_side: shortest and longest bucket edge, px; not used, and may be None, with `no_upscale`.
        no_upscale: never enlarge; a picture of less than side x side px keeps its size.

    Raises:
        ValueError: the picture is narrower than one step.
    """
    if no_upscale:
        resized = _shrunk(width, height, side, step)
        bucket = Bucket(_floor(resized[0], step), _floor(resized[1], step))
    else:
        if min_side is None or max_side is None:
            raise ValueError("with upscaling, buckets need `min_side` and `max_side`")
        bucket = _nearest_bucket(width / height, bucket_table(side, step, min_side, max_side), (width, height))
        resized = _covering(width, height, bucket)
    if not (bucket.width and bucket.height):
        raise ValueError(
            f"{width}x{height} px is too narrow, an edge would be below {step} px at side {side}: crop or leave it out"
        )
    return Fit(bucket, resized, ((resized[0] - bucket.width) // 2, (resized[1] - bucket.height) // 2))


@cache
def bucket_table(side: int, step: int, min_side: int, max_side: int) -> tuple[Bucket, ...]:
    """All buckets of an area, sorted: for every width the largest height that keeps the area, in both orientations."""
    area = side * side
    square = _floor(isqrt(area), step)
    low, high = _floor(min_side, step), -_floor(-max_side, step)
    table = {Bucket(square, square)}
    for width in range(low, high + 1, step):
        height = min(high, _floor(area // width, step))
        if height >= low:
            table |= {Bucket(width, height), Bucket(height, width)}
    return tuple(sorted(table))


def _nearest_bucket(aspect: float, table: tuple[Bucket, ...], exact: tuple[int, int]) -> Bucket:
    if exact in table:
        return Bucket(*exact)
    return min(table, key=lambda bucket: abs(bucket.width / bucket.height - aspect))


def _covering(width: int, height: int, bucket: Bucket) -> tuple[int, int]:
    """The size at which the picture just covers the bucket."""
    scale = max(bucket.width / width, bucket.height / height)
    return int(width * scale + 0.5), int(height * scale + 0.5)


def _shrunk(width: int, height: int, side: int, step: int) -> tuple[int, int]:
    """The size at which the picture has the side's area at most, one edge a multiple of the step.

    Of the two edges that can be rounded, the one is taken whose bucket keeps the aspect better.
    """
    if width * height <= side * side:
        return width, height
    aspect = width / height
    wide = _floor(int(sqrt(side * side * aspect) + 0.5), step)
    high = _floor(int(side * side / sqrt(side * side * aspect) + 0.5), step)
    by_width = (wide, int(wide / aspect + 0.5))
    by_height = (int(high * aspect + 0.5), high)
    return by_width if _aspect_error(by_width, step, aspect) < _aspect_error(by_height, step, aspect) else by_height


def _aspect_error(size: tuple[int, int], step: int, aspect: float) -> float:
    width, height = _floor(size[0], step), _floor(size[1], step)
    return abs(width / height - aspect) if height else float("inf")


def _floor(value: int, step: int) -> int:
    return value // step * step
