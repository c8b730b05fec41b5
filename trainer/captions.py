"""How the caption of an example is made: one function per strategy.

A caption depends on the example, the settings and (seed, epoch) alone. The trigger word, dropout and shuffling of parts
are switches on top of every strategy that has them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from trainer.examples import DatasetError, Example, list_faults
from trainer.rewriting import keep_subject, strip_words, stripped_tags
from trainer.seeds import derive_seed
from trainer.settings import CaptionSettings, Strategy, Strip


class SheetRow(NamedTuple):
    """One caption of the caption sheet."""

    picture: Path
    strategy: str
    text: str
    tokens: int | None  # as the counter given counts; None without one


def caption(example: Example, settings: CaptionSettings, *, epoch: int, seed: int) -> str:
    """The text an example is trained with in an epoch.

    Random choices (which of several sidecar lines, dropout, shuffling) come from (seed, epoch, name of the picture).

    Raises:
        DatasetError: the sidecar that the strategy reads is missing or empty.
    """
    rng = Random(derive_seed("caption", seed, epoch, example.path.name))
    dropped = rng.random() < settings.dropout
    text = STRATEGIES[settings.strategy](example, settings, rng)
    if dropped:
        return ""
    if settings.shuffle_tags:
        text = _shuffled(text, settings.keep_tokens, rng)
    if settings.trigger and settings.strategy != Strategy.trigger:
        text = f"{settings.trigger}, {text}" if text else settings.trigger
    return text


def check_captions(examples: Sequence[Example], settings: CaptionSettings) -> None:
    """See that every example has the sidecar its strategy reads.

    Raises:
        DatasetError: lists the files that are missing or empty.
    """
    faults = []
    for example in examples:
        try:
            caption(example, settings, epoch=0, seed=0)
        except DatasetError as error:
            faults.append(str(error))
    if faults:
        raise DatasetError(list_faults(f"captions missing for the strategy {settings.strategy}", faults))


def caption_sheet(
    examples: Sequence[Example],
    settings: Mapping[str, CaptionSettings],
    count_tokens: Callable[[str], int] | None = None,
) -> list[SheetRow]:
    """Captions of all examples under several settings, as a table to read; without dropout and shuffling.

    Args:
        settings: name to show -> settings.
        count_tokens: counts a text's tokens, for instance with the base's tokenizer.
    """
    rows = []
    for example in examples:
        for name, each in settings.items():
            calm = CaptionSettings(strategy=each.strategy, trigger=each.trigger, strip=each.strip)
            text = caption(example, calm, epoch=0, seed=0)
            rows.append(SheetRow(example.path, name, text, count_tokens(text) if count_tokens else None))
    return rows


def _none(example: Example, settings: CaptionSettings, rng: Random) -> str:
    return ""


def _trigger(example: Example, settings: CaptionSettings, rng: Random) -> str:
    return settings.trigger


def _original(example: Example, settings: CaptionSettings, rng: Random) -> str:
    if not example.captions:
        raise DatasetError(f"{example.path.with_suffix('.txt')}: no caption")
    return example.captions[0] if len(example.captions) == 1 else rng.choice(example.captions)


def _tags(example: Example, settings: CaptionSettings, rng: Random) -> str:
    if not example.tags:
        raise DatasetError(f"{example.path.with_suffix('.tags')}: no tags")
    return ", ".join(stripped_tags(example.tags, settings.strip))


def _edited(example: Example, settings: CaptionSettings, rng: Random) -> str:
    return _rewritten(strip_words, _original(example, settings, rng), tuple(settings.strip))


def _subject_only(example: Example, settings: CaptionSettings, rng: Random) -> str:
    return _rewritten(keep_subject, _original(example, settings, rng), tuple(settings.strip))


@lru_cache(maxsize=4096)  # a training asks for the same caption at every visit
def _rewritten(rule: Callable[[str, tuple[Strip, ...]], str], text: str, strip: tuple[Strip, ...]) -> str:
    return rule(text, strip)


STRATEGIES: dict[Strategy, Callable[[Example, CaptionSettings, Random], str]] = {
    Strategy.none: _none,
    Strategy.trigger: _trigger,
    Strategy.original: _original,
    Strategy.tags: _tags,
    Strategy.edited: _edited,
    Strategy.subject_only: _subject_only,
}


def _shuffled(text: str, keep: int, rng: Random) -> str:
    parts = text.split(", ")
    rest = parts[keep:]
    rng.shuffle(rest)
    return ", ".join(parts[:keep] + rest)
