"""The encoders whose style strength is averaged, and patch tokens for self-similarity; from files, never by download.

No encoder is enough by itself (facts/metrics.md 0.2, 0.3): a style counts as far as several, trained on different
things, agree. `open_clip` is the judge's own encoder, `descriptor` needs no weights, `csd` and `timm` are for real
pictures. Those two are loaded strictly and tested on tiny models of the same formats, never on their real weights.
"""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from metrics.descriptor import describe
from metrics.encoder import Encoder, choose_device
from metrics.images import ScoreError, resized
from metrics.settings import ScoreSettings, StyleEncoder, style_encoder
from metrics.style import Whitening

PATCHES = 16  # patch tokens are pooled to at most 16 x 16: self-similarity grows with their square


class PictureEncoder(Protocol):
    """Features of pictures for one style space."""

    @property
    def whitening(self) -> Whitening:
        """How its features are scaled."""

    def pictures(self, images: Sequence[Tensor]) -> Tensor:
        """Return (N, D) features of (3, H, W) pictures in [0, 1]."""


class LayerStatistics:
    """What open_clip's trunk says of style; see `Encoder.look`."""

    whitening = Whitening.directions

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def pictures(self, images: Sequence[Tensor]) -> Tensor:
        """Return (N, S) statistics of its blocks."""
        return self.encoder.look(images)[1]


class Descriptor:
    """The hand-made descriptor at the area of a square of `side` px."""

    whitening = Whitening.features

    def __init__(self, side: int) -> None:
        self.side = side

    def pictures(self, images: Sequence[Tensor]) -> Tensor:
        """Return (N, D) raw statistics."""
        return describe(images, self.side)


class VisionTransformer:
    """A network for pictures alone, stretched to its size: a border is part of the style and must be seen."""

    whitening = Whitening.directions

    def __init__(self, network: Any, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
        """Wrap a network in evaluation mode whose `forward` gives (N, D)."""
        self.network, self.size = network, size
        self._mean, self._std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        self.device, self.batch_size = torch.device("cpu"), 32

    @torch.inference_mode()
    def pictures(self, images: Sequence[Tensor]) -> Tensor:
        """Return (N, D) unit embeddings, float32 on the CPU."""
        return functional.normalize(self._batches(images, self.network), dim=1)

    @torch.inference_mode()
    def patches(self, images: Sequence[Tensor]) -> Tensor:
        """Return (N, T, D) patch tokens on a grid of at most PATCHES x PATCHES, T = rows * columns."""
        return self._batches(images, self._tokens)

    def _tokens(self, pixels: Tensor) -> Tensor:
        tokens = self.network.forward_features(pixels)[:, self.network.num_prefix_tokens :]
        rows, columns = self.network.patch_embed.grid_size
        grid = tokens.transpose(1, 2).unflatten(2, (rows, columns))
        grid = functional.adaptive_avg_pool2d(grid, (min(rows, PATCHES), min(columns, PATCHES)))
        return grid.flatten(2).transpose(1, 2)

    def _batches(self, images: Sequence[Tensor], read: Callable[[Tensor], Tensor]) -> Tensor:
        found = []
        for start in range(0, len(images), self.batch_size):
            pixels = (resized(images[start : start + self.batch_size], *self.size) - self._mean) / self._std
            found.append(read(pixels.to(self.device)).float().cpu())
        return torch.cat(found)


def load_style_encoders(settings: ScoreSettings, encoder: Encoder) -> dict[StyleEncoder, PictureEncoder]:
    """Return the encoders that `style_encoders` names, in its order; `encoder` serves as open_clip's.

    Raises:
        ScoreError: for weights that are missing or do not fit.
    """
    return {style_encoder(name): _load(name, settings, encoder) for name in settings.style_encoders}


def load_patch_encoder(settings: ScoreSettings, loaded: dict[StyleEncoder, PictureEncoder]) -> VisionTransformer | None:
    """Return the network of `patch_encoder`, the one already loaded if it is the same; None if none is named."""
    if not settings.patch_encoder:
        return None
    known = loaded.get(StyleEncoder.timm)
    if settings.patch_encoder in settings.style_encoders and isinstance(known, VisionTransformer):
        return known
    return _timm(settings.patch_encoder.partition(":")[2], settings)


def _load(name: str, settings: ScoreSettings, encoder: Encoder) -> PictureEncoder:
    kind, where = style_encoder(name), name.partition(":")[2]
    if kind is StyleEncoder.open_clip:
        return LayerStatistics(encoder)
    if kind is StyleEncoder.descriptor:
        return Descriptor(settings.side)
    return (_csd if kind is StyleEncoder.csd else _timm)(where, settings)


def _csd(where: str, settings: ScoreSettings) -> VisionTransformer:
    """Return CSD from "ARCHITECTURE@FILE": CLIP's visual trunk without projection, then the style head.

    Source: Somepalli et al. 2024 (arXiv 2404.01292). The published file is known to fall short of the paper
    (facts/metrics.md 0.3), so it is one encoder of several.
    """
    architecture, file = _named(where)
    saved = {key.removeprefix("module."): tensor for key, tensor in _weights(file).items()}
    head = saved.get("last_layer_style")
    if head is None:
        raise ScoreError(f"`style_encoders`: {file} has no `last_layer_style`, so it is no file of CSD")
    import open_clip

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # timm's, from within open_clip
        visual = open_clip.create_model(architecture, precision="fp32").visual
    visual.proj = None
    trunk = {key.removeprefix("backbone."): tensor for key, tensor in saved.items() if key.startswith("backbone.")}
    try:
        visual.load_state_dict({key: tensor.float() for key, tensor in trunk.items()}, strict=True)
    except RuntimeError as error:
        raise ScoreError(f"`style_encoders`: {file} does not fit {architecture}: {error}") from error
    size = visual.image_size
    size = (size, size) if isinstance(size, int) else (size[0], size[1])
    prepared = visual.preprocess_cfg
    return _placed(VisionTransformer(_Headed(visual, head.float()), size, prepared["mean"], prepared["std"]), settings)


class _Headed(torch.nn.Module):
    """A trunk and the matrix after it."""

    def __init__(self, trunk: torch.nn.Module, head: Tensor) -> None:
        super().__init__()
        self.trunk, self.head = trunk, torch.nn.Parameter(head)

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.trunk(pixels) @ self.head
        return found


def _timm(where: str, settings: ScoreSettings) -> VisionTransformer:
    """Return a model of timm from "NAME@FILE", such as DINOv2: its pooled features, and its patch tokens."""
    name, file = _named(where)
    import timm

    with torch.random.fork_rng():
        try:
            network: Any = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, num_classes=0
            )
        except (RuntimeError, SafetensorError, pickle.UnpicklingError, EOFError, KeyError) as error:
            raise ScoreError(f"`style_encoders`: {file} does not fit timm's {name}: {error}") from error
    # timm only warns about tensors the model has no place for: a file of another model would half load.
    extra = sorted(set(_weights(file)) - set(network.state_dict()) - {"mask_token"})
    if extra:
        raise ScoreError(f"`style_encoders`: {file} does not fit timm's {name}: it has no place for {extra[:3]}")
    prepared = network.pretrained_cfg
    size = (int(prepared["input_size"][1]), int(prepared["input_size"][2]))
    return _placed(VisionTransformer(network, size, prepared["mean"], prepared["std"]), settings)


def _placed(model: VisionTransformer, settings: ScoreSettings) -> VisionTransformer:
    model.device, model.batch_size = choose_device(settings.device), settings.batch_size
    model.network = model.network.eval().requires_grad_(False).to(model.device)
    return model


def _named(where: str) -> tuple[str, Path]:
    name, _, file = where.partition("@")
    path = Path(file).expanduser()
    if not path.is_file():
        raise ScoreError(f"`style_encoders` names the weights {file!r}, which is not a file")
    return name, path


def _weights(file: Path) -> dict[str, Tensor]:
    """Return a file's tensors. CSD's own pickle holds its command line and optimiser too: let those in, no code."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        harmless: list[Any] = [argparse.Namespace, np.dtype, np.dtypes.Float64DType, np.dtypes.Int64DType]
        scalar = np.float64(0).__reduce__()[0]  # numpy 1 and 2 keep it in different places
        harmless += [scalar, (scalar, "numpy.core.multiarray.scalar")]
        with torch.serialization.safe_globals(harmless):
            saved = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ScoreError(f"`style_encoders`: {file} is not a file of weights: {error}") from error
    return dict(saved.get("model_state_dict", saved))
