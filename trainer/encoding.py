"""Latents and text embeddings through the cache: each is computed once per study, not once per trial."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache as once
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from trainer.buckets import Fit
from trainer.cache import TensorCache, content_key
from trainer.examples import Example
from trainer.files import file_id
from trainer.flux import FluxBase, Text
from trainer.pixels import read_mask, read_picture
from trainer.plan import Plan

PIXELS = "pixels 1"  # to be raised when the same file and bucket give other pixels
_HELD_BYTES = 2**28  # of embeddings kept on the device: 64 texts of FLUX.1-dev, thousands of the sandbox


def fit_pixels(picture: Tensor, fit: Fit) -> Tensor:
    """Resize a picture or mask (C, H, W) and cut its bucket out; antialiased bicubic."""
    width, height = fit.resized
    if picture.shape[1:] != (height, width):
        picture = interpolate(picture[None], size=(height, width), mode="bicubic", antialias=True)[0].clamp(0, 1)
    left, top = fit.crop_xy
    return picture[:, top : top + fit.bucket.height, left : left + fit.bucket.width].contiguous()


def encode_examples(
    base: FluxBase, examples: Sequence[Example], plan: Plan, cache: TensorCache
) -> dict[tuple[int, int], Tensor]:
    """Latents of every example at every side of the plan.

    Returns:
        (side, index of the example) -> (C, h, w), float32, on the base's device.
    """

    def encode(pixels: Tensor) -> Tensor:
        return base.encode_pictures(pixels[None])[0]

    latents = {}
    for index, example in enumerate(examples):
        made_from = file_id(example.path), base.vae_id
        read = partial(read_picture, example.path)
        for side, found in _at_sides(plan, index, read, encode, cache, "latents", made_from):
            latents[side, index] = found.to(base.device)
    return latents


def encode_masks(
    base: FluxBase, examples: Sequence[Example], plan: Plan, cache: TensorCache
) -> dict[tuple[int, int], Tensor]:
    """Where the loss counts, of the examples that say so, cut as their pictures are.

    Returns:
        (side, index of the example) -> (1, h, w) in [0, 1], float32, at the size of the latents.
    """
    shrink = partial(avg_pool2d, kernel_size=base.vae_factor)
    masks = {}
    for index, example in enumerate(examples):
        if example.mask is not None:
            kind = "alpha" if example.mask == example.path else "mask"
            made_from = file_id(example.mask), kind, example.width, example.height, base.vae_factor
            read = partial(read_mask, example)
            for side, found in _at_sides(plan, index, read, shrink, cache, "masks", made_from):
                masks[side, index] = found.to(base.device)
    return masks


def _at_sides(
    plan: Plan,
    index: int,
    read: Callable[[], Tensor],
    make: Callable[[Tensor], Tensor],
    cache: TensorCache,
    kind: str,
    made_from: Sequence[str | int],
) -> Iterator[tuple[int, Tensor]]:
    """What is made of one picture's cut at every side, from the cache or anew.

    It goes by the picture's file and not by its pixels: to decode and resize a photograph takes a second.
    """
    picture = once(read)
    for side in plan.sides:
        fit = side.fits[index]
        key = content_key(PIXELS, *made_from, *fit.resized, *fit.crop_xy, *fit.bucket)
        found = cache.load(kind, key)
        if found is None:
            found = {kind: make(fit_pixels(picture(), fit))}
            cache.store(kind, key, found)
        yield side.side, found[kind]


class Texts:
    """Embeddings by text: from memory, from disk, or from the encoders."""

    def __init__(self, base: FluxBase, cache: TensorCache) -> None:
        self._base = base
        self._cache = cache
        self._held: dict[str, Text] = {}

    def __call__(self, texts: Sequence[str]) -> Text:
        """Embeddings of N texts on the base's device."""
        found = [self._one(text) for text in texts]
        return Text(torch.cat([text.tokens for text in found]), torch.cat([text.pooled for text in found]))

    def prepare(self, texts: Iterable[str]) -> None:
        """Have texts on disk, so that the encoders are needed once and not again in the middle of a training."""
        for text in texts:
            key = self._key(text)
            if self._cache.load("texts", key) is None:
                self._cache.store("texts", key, self._base.encode_text([text])._asdict())

    def _key(self, text: str) -> str:
        return content_key(text, self._base.text_id)

    def _one(self, text: str) -> Text:
        if text not in self._held:
            found = self._read(text)
            if (len(self._held) + 1) * found.tokens.nbytes > _HELD_BYTES and self._held:
                self._held.pop(next(iter(self._held)))
            self._held[text] = found
        return self._held[text]

    def _read(self, text: str) -> Text:
        key = self._key(text)
        found = self._cache.load("texts", key)
        if found is None:
            found = self._base.encode_text([text])._asdict()
            self._cache.store("texts", key, found)
        return Text(**{name: tensor.to(self._base.device) for name, tensor in found.items()})
