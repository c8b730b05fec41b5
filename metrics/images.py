"""Pictures as the metrics take them: (3, H, W) float in [0, 1], of any size, known by their content."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# Rec. 601 luma and two opponent axes (red-green, blue-yellow), the usual cheap stand-in for Lab.
OPPONENT = torch.tensor([[0.299, 0.587, 0.114], [0.5, -0.5, 0.0], [0.25, 0.25, -0.5]])

LARGEST = (
    1024  # px; edge of the square whose area a judged picture has at most: FLUX.1-dev's own, and more than encoders see
)
SAME_RMS = 0.02  # of the tone range, between two 24 x 24 px copies of one picture


class ScoreError(ValueError):
    """What is given cannot be scored; the message names the input, the rule and the value."""


class TrainedOnError(ScoreError):
    """References that show training pictures."""

    def __init__(
        self, pairs: Sequence[tuple[int, int]], references: Sequence[object] = (), training: Sequence[object] = ()
    ) -> None:
        """Take what `same_pictures` found, and what each picture is called where the caller knows it."""
        self.pairs = pairs
        shown = [
            (references[i] if references else f"references[{i}]", training[j] if training else f"training[{j}]")
            for i, j in pairs
        ]
        listed = "".join(f"\n  {reference} = {picture}" for reference, picture in shown[:10])
        super().__init__(
            f"references must never be trained on, but {len(pairs)} show a training picture, whatever they are called."
            f" Take them out of one of the two folders:{listed}"
        )


class SampleError(ScoreError):
    """These samples cannot be scored: the fault is their LoRA's, and another's samples may be fine."""


def check_images(images: Sequence[Tensor], name: str, error: type[ScoreError] = ScoreError) -> None:
    """Refuse anything but finite (3, H, W) floats in [0, 1] with both edges of at least 16 px.

    Raises:
        ScoreError: or what is given as `error`, naming the first picture at fault.
    """
    for index, image in enumerate(images):
        where = f"{name}[{index}]"
        if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3:
            raise error(f"{where} must be a tensor of shape (3, H, W), got {_shape(image)}")
        if not image.is_floating_point():
            raise error(f"{where} must hold floats in [0, 1], got {image.dtype}")
        if min(image.shape[1:]) < 16:
            raise error(f"{where} must be at least 16 px on both edges, got {_shape(image)}")
        low, high = (float(v) for v in image.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise error(f"{where} must be finite, got NaN or infinity: did the training diverge?")
        if low < -1e-3 or high > 1 + 1e-3:
            raise error(f"{where} must lie in [0, 1], got [{low:.3g}, {high:.3g}]")


def _shape(image: object) -> str:
    return str(tuple(image.shape)) if isinstance(image, Tensor) else type(image).__name__


def content_key(image: Tensor) -> str:
    """Return the blake2b of a picture's shape and float32 pixels: equal pictures, equal keys."""
    pixels = image.detach().to("cpu", torch.float32).contiguous()
    digest = hashlib.blake2b(str(tuple(pixels.shape)).encode(), digest_size=16)
    digest.update(pixels.numpy().tobytes())
    return digest.hexdigest()


def same_pictures(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return the pairs (i, j) that show one picture: saved again, resized or mirrored, whatever the file is called.

    Compared at 24 x 24 px; a JPEG of quality 75 or a copy at half the size differ by less than `SAME_RMS` there, other
    pictures of one style by several times that (tests/metrics/test_bad_input.py).
    """
    if not first or not second:
        return []
    small, other = resized(first, 24, 24).flatten(1), resized(second, 24, 24)
    both = [torch.cdist(small, o.flatten(1)) / small.shape[1] ** 0.5 for o in (other, other.flip(-1))]
    near = torch.minimum(*both) < SAME_RMS
    return [(int(i), int(j)) for i, j in near.nonzero().tolist()]


def resized(images: Sequence[Tensor], height: int, width: int) -> Tensor:
    """Return (N, 3, height, width) float32, stretched with an antialiased bicubic; a picture of that size is kept."""
    return torch.stack([_resize(image.detach().float().clamp(0, 1), height, width) for image in images])


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    if tuple(image.shape[1:]) == (height, width):
        return image
    small = functional.interpolate(image[None], (height, width), mode="bicubic", antialias=True, align_corners=False)
    return small[0].clamp(0, 1)


def reduced(image: Tensor) -> Tensor:
    """Return (3, H, W) with the area of a square of `LARGEST` px; a smaller picture is kept.

    Encoders and statistics look at less, and forty photographs of 24 megapixels as floats are 12 GB.
    """
    height, width = image.shape[1:]
    return image if height * width <= LARGEST**2 else _resize(image, *equal_area(image, LARGEST))


def equal_area(image: Tensor, side: int) -> tuple[int, int]:
    """Return the (height, width) in px with the aspect of `image` and the area of a square of `side`."""
    height, width = image.shape[1:]
    scale = side / math.sqrt(height * width)
    return max(16, round(height * scale)), max(16, round(width * scale))


def opponent(images: Tensor) -> Tensor:
    """Return luma and two opponent colour channels of (N, 3, H, W) RGB."""
    return torch.einsum("ij,njhw->nihw", OPPONENT.to(images), images)


def levelled(image: Tensor) -> Tensor:
    """Return a picture with the darkest and lightest 2 % of its luma at 0 and 1; one of nearly one tone is kept."""
    grey = opponent(image.detach()[None].float())[0, 0].flatten().cpu().numpy()
    places = [round(share * (len(grey) - 1)) for share in (0.02, 0.98)]
    low, high = (float(tone) for tone in np.partition(grey, places)[places])  # a sixth of the time of torch's sort
    return image if high - low < 0.05 else ((image - low) / (high - low)).clamp(0, 1)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Return (N, C, H, W) float32 on the CPU smoothed with a Gaussian of `sigma` px, edges repeated."""
    # Two products of whole matrices: at the few px of a score three to ten times as fast as torch's convolution.
    height, width = images.shape[-2:]
    return _blurring(height, sigma) @ images @ _blurring(width, sigma).T


@lru_cache(maxsize=256)
def _blurring(size: int, sigma: float) -> Tensor:
    """Return (size, size): what smooths a column of `size` px."""
    radius = math.ceil(3 * sigma)
    moves = torch.arange(-radius, radius + 1)
    weights = torch.exp(-(moves.float() ** 2) / (2 * sigma**2))
    places = (torch.arange(size)[:, None] + moves).clamp(0, size - 1)
    return torch.zeros(size, size).scatter_add_(1, places, (weights / weights.sum()).expand(size, -1))


def gradients(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the central differences of (N, C, H, W) along x and y, per px."""
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return (
        (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2,
        (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2,
    )
