"""The one place with state of the process: base and judge stay loaded from trial to trial.

Loading FLUX.1-dev takes minutes and the sandbox's judges take seconds; what they depend on is compared before they are
used again. The base is left as it was found by whoever plugs a LoRA into it (`FluxBase`'s context managers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from metrics.settings import ScoreSettings
from trainer.settings import BaseSettings

if TYPE_CHECKING:
    from torch import Tensor

    from metrics.suite import Judge
    from trainer.examples import Example
    from trainer.flux import FluxBase

Made = TypeVar("Made")


@dataclass
class _Kept:
    """The last thing made of its kind, and what it was made from."""

    made_from: str = ""
    thing: Any = None

    def get(self, made_from: str, make: Callable[[], Made]) -> Made:
        if self.thing is None or self.made_from != made_from:
            self.thing = None  # two bases at once would not fit a card
            self.thing, self.made_from = make(), made_from
        return self.thing


_BASE, _JUDGE = _Kept(), _Kept()


def is_cold() -> bool:
    """Whether nothing has been loaded yet."""
    return _BASE.thing is None


def warm_base(settings: BaseSettings) -> FluxBase:
    """The base, loaded on first use."""
    from trainer.base import load_base

    return _BASE.get(repr(settings), lambda: load_base(settings))


def warm_judge(
    settings: ScoreSettings,
    *,
    references: Sequence[Example],
    others: Sequence[Example],
    training: Sequence[Example],
    training_nouns: Sequence[str],
) -> Judge:
    """The judge of a style, with the features of everything that does not change between trials."""
    from metrics.suite import Judge

    def make() -> Judge:
        return Judge(
            settings, _pictures(references), _pictures(others), _pictures(training), training_nouns=training_nouns
        )

    files = [
        [(str(e.path), e.path.stat().st_mtime_ns, e.path.stat().st_size) for e in folder]
        for folder in (references, others, training)
    ]
    return _JUDGE.get(repr((settings, files, tuple(training_nouns))), make)


def _pictures(examples: Sequence[Example]) -> list[Tensor]:
    from trainer.examples import read_picture

    return [read_picture(Path(example.path)) for example in examples]
