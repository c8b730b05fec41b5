"""Pictures in, numbers out: how much of a style arrived, and what it cost.

`score` judges samples against the base's pictures of the same prompts and seeds; `Judge` keeps what a study needs
only once. Importing the room does not import torch: the public names are fetched when they are first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metrics.images import SampleError, ScoreError
    from metrics.settings import Constraint, ScoreSettings
    from metrics.suite import Judge, Scores, score

__all__ = ["VERSION", "Constraint", "Judge", "SampleError", "ScoreError", "ScoreSettings", "Scores", "score"]

# Raised when the same pictures get other numbers, so that an outcome of before is not taken for one of now.
VERSION = 3

_HOMES = {
    "Constraint": "metrics.settings",
    "Judge": "metrics.suite",
    "SampleError": "metrics.images",
    "ScoreError": "metrics.images",
    "ScoreSettings": "metrics.settings",
    "Scores": "metrics.suite",
    "score": "metrics.suite",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metrics' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
