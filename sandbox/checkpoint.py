"""Checkpoints of the making-of: a stage continues from its last one and ends when its budget is spent."""

import os
from pathlib import Path
from typing import Any

import torch


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` so that a kill at any moment leaves either the old or the new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """Return the last saved state, or None where there is none yet."""
    return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None
