"""Tensors kept on disk under a hash of everything they were made from.

A key is not stale by itself: another file or cut, another caption or another encoder is another key; a change of how
files are read has to raise `encoding.PIXELS`. (Trainers that key captions by file name silently train on yesterday's
captions.) Any number of processes may share a folder: files appear by one rename, and two that make the same tensor
make the same file.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainer.files import write_atomic


def content_key(*parts: str | int | float | Tensor) -> str:
    """Hex digest of all parts, their types' text and, of tensors, shape and dtype."""
    digest = blake2b(digest_size=20)
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{tuple(part.shape)}{part.dtype}".encode())
            digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(part).encode())
        digest.update(b"\x1f")
    return digest.hexdigest()


def file_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file, byte for byte the same for the same contents: the library writes metadata in any order."""
    data = save(dict(tensors), metadata=dict(metadata))
    length = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:length])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[length:]


class TensorCache:
    """A folder of named tensors by content key."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def load(self, kind: str, key: str) -> dict[str, Tensor] | None:
        """What was stored under the key, or None; a damaged file counts as none and is written anew."""
        try:
            return load(self._path(kind, key).read_bytes())
        except (FileNotFoundError, SafetensorError):
            return None

    def store(self, kind: str, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors under the key."""
        write_atomic(self._path(kind, key), save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}))

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}.safetensors"
