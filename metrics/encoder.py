"""The open_clip model that judges pictures and words; loaded strictly, from files, never by download.

open_clip builds a *random* model from a folder without weights and only logs a warning; `require_pretrained=True` and
the check of the file here make that an error.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from metrics.images import ScoreError, resized

DEPTHS = (0.25, 0.5, 0.75)  # of the trunk's blocks, from the first (0) to the last (1): where style is read
TEMPLATES = ("a {}", "a picture of a {}", "a drawing of a {}")  # averaged, as in CLIP's zero-shot classification


def choose_device(name: str) -> torch.device:
    """Return the torch device `name`; "auto" takes the accelerator there is.

    Raises:
        ScoreError: if that device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ScoreError(f"`device` is {name!r}, but no CUDA device is available; use device=cpu or auto")
    return torch.device(name)


def file_hash(path: Path) -> str:
    """Return the blake2b of a file's bytes, 32 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


class Encoder:
    """Embeddings of pictures and texts in one space, L2-normalised, float32 on the CPU."""

    def __init__(self, name: str, device: str = "cpu", batch_size: int = 32) -> None:
        """Load `name`: an open_clip folder, or "ARCHITECTURE@WEIGHTS_FILE" such as "ViT-L-14-quickgelu@vit_l.pt".

        Raises:
            ScoreError: if the folder or its weights are missing or do not fit.
        """
        source, weights, pretrained = _locate(name)
        self.id = f"{name}:{file_hash(weights)}"
        self.device = choose_device(device)
        self.batch_size = batch_size
        import open_clip  # 4 s: not before the path is known to be good

        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)  # timm's, from within open_clip
            try:
                model = open_clip.create_model(
                    source, pretrained=pretrained, require_pretrained=True, device=self.device, precision="fp32"
                )
            except RuntimeError as error:
                raise ScoreError(f"`encoder` {name!r} cannot be loaded: {error}") from error
            self._tokenizer = open_clip.get_tokenizer(source)
        self._model: Any = model.eval().requires_grad_(False)
        size = model.visual.image_size
        self.image_size: tuple[int, int] = (size, size) if isinstance(size, int) else (size[0], size[1])
        mean, std = model.visual.preprocess_cfg["mean"], model.visual.preprocess_cfg["std"]
        self._mean = torch.tensor(mean).view(1, 3, 1, 1)
        self._std = torch.tensor(std).view(1, 3, 1, 1)
        last = self._count_blocks() - 1
        self._style_blocks = sorted({round(depth * last) for depth in DEPTHS})
        self._blocks = sorted({*self._style_blocks, last})  # without the last one the trunk would stop early

    @property
    def logit_scale(self) -> float:
        """The factor before the softmax that the model was trained with."""
        return float(self._model.logit_scale.exp())

    def pictures(self, images: Sequence[Tensor]) -> Tensor:
        """Return (N, D) embeddings of (3, H, W) pictures in [0, 1], stretched to the model's size.

        Stretched, not cropped: a border or an empty side is part of the style and must be seen.
        """
        return self.look(images)[0]

    @torch.inference_mode()
    def look(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return (N, D) embeddings and (N, S) style statistics: mean and SD of every channel at DEPTHS of the trunk.

        Where in the picture a channel answers is left out, and the last blocks, which know subjects. Source: adaptive
        instance normalisation, Huang & Belongie 2017 (arXiv 1703.06868), whose styles are these statistics.
        """
        embeddings, statistics = [], []
        for start in range(0, len(images), self.batch_size):
            pixels = (resized(images[start : start + self.batch_size], *self.image_size) - self._mean) / self._std
            found = self._model.visual.forward_intermediates(pixels.to(self.device), indices=self._blocks)
            embeddings.append(functional.normalize(found["image_features"], dim=-1).float().cpu())
            blocks = found["image_intermediates"][: len(self._style_blocks)]  # each (N, C, H, W)
            maps = [block.flatten(2).float() for block in blocks]
            statistics.append(torch.cat([part for m in maps for part in (m.mean(2), m.std(2))], 1).cpu())
        return torch.cat(embeddings), torch.cat(statistics)

    @torch.inference_mode()
    def _count_blocks(self) -> int:
        blank = torch.zeros(1, 3, *self.image_size, device=self.device)
        return len(self._model.visual.forward_intermediates(blank)["image_intermediates"])

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Return (N, D) embeddings of texts."""
        found = [
            self._model.encode_text(self._tokenizer(list(texts[start : start + 256])).to(self.device), normalize=True)
            .float()
            .cpu()
            for start in range(0, len(texts), 256)
        ]
        return torch.cat(found)

    def nouns(self, nouns: Sequence[str]) -> Tensor:
        """Return (N, D) embeddings of nouns, each the mean over TEMPLATES."""
        found = self.texts([template.format(noun) for noun in nouns for template in TEMPLATES])
        return functional.normalize(found.view(len(nouns), len(TEMPLATES), -1).mean(1), dim=-1)


WEIGHT_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


def _locate(name: str) -> tuple[str, Path, str | None]:
    """Return what open_clip calls the model, the weights' file, and its `pretrained` argument."""
    architecture, _, file = name.partition("@")
    if file:
        weights = Path(file).expanduser()
        if not weights.is_file():
            raise ScoreError(f"`encoder` names the weights {file!r}, which is not a file")
        return architecture, weights, str(weights)
    folder = Path(name).expanduser()
    if not (folder / "open_clip_config.json").is_file():
        raise ScoreError(
            f"`encoder` must be a folder with open_clip_config.json and weights, or ARCHITECTURE@WEIGHTS_FILE; "
            f"{name!r} is neither"
        )
    for candidate in WEIGHT_NAMES:
        if (folder / candidate).is_file():
            return f"local-dir:{folder}", folder / candidate, None
    raise ScoreError(f"`encoder` folder {name!r} has no weights; expected one of {', '.join(WEIGHT_NAMES)}")
