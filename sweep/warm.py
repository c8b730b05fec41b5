"""The one place with state of the process: base and judge stay loaded from trial to trial.

Loading FLUX.1-dev takes minutes and the sandbox's judges take seconds; what they depend on is compared before they are
used again. The base is left as it was found by whoever plugs a LoRA into it (`FluxBase`'s context managers).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from metrics.settings import ScoreSettings
from trainer.files import file_state
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


@contextmanager
def _to_stay() -> Iterator[None]:
    """For what is imported and made in the block to stay: the search for unreachable objects leaves it out, now and
    later. The libraries make a million objects, and to look through them again and again takes a third of the start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def warm_base(settings: BaseSettings) -> FluxBase:
    """The base, loaded on first use, and the libraries of a training with it."""
    from trainer.base import load_base

    def make() -> FluxBase:
        with _to_stay():
            import trainer.loop  # noqa: F401

            return load_base(settings)

    return _BASE.get(repr(settings), make)


def warm_judge(
    settings: ScoreSettings,
    *,
    references: Sequence[Example],
    others: Sequence[Example],
    training: Sequence[Example],
    training_nouns: Sequence[str],
) -> Judge:
    """The judge of a style, with the features of everything that does not change between trials."""

    def make() -> Judge:
        with _to_stay():
            from metrics.suite import Judge

            return Judge(
                settings, _pictures(references), _pictures(others), _pictures(training), training_nouns=training_nouns
            )

    files = [[file_state(e.path) for e in folder] for folder in (references, others, training)]
    return _JUDGE.get(repr((settings, files, tuple(training_nouns))), make)


def _pictures(examples: Sequence[Example]) -> list[Tensor]:
    from metrics.images import reduced
    from trainer.pixels import read_picture

    return [reduced(read_picture(example.path)) for example in examples]
