"""How the caption of an example is made: one function per strategy, and switches on top that work on any.

A strategy gives all the texts of a picture; a visit takes one of them. What a person wrote in the caption sheet, or a
model answered, lies in the example beforehand (`Example.given`) and wins. A caption depends on the example, the
settings and (seed, epoch, visit) alone.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random

from trainer.examples import DatasetError, Example, list_faults
from trainer.rewriting import keep_subject, strip_words, stripped_tags
from trainer.seeds import derive_seed
from trainer.settings import CaptionSettings, Length, Strategy, Strip, TriggerPlace
from trainer.style_words import GLUE

WITH_STRIP = (Strategy.tags, Strategy.tags_vlm, Strategy.edited, Strategy.subject_only)
_PLACING = frozenset({"at", "to", "near", "under", "over", "behind", "beside", "between", "next", "into", "across"})
_PIECE = re.compile(r"\s*(?:[^\s,]+|,)")
Count = Callable[[str], int]
BY_MODEL = (Strategy.vlm, Strategy.tags_vlm)  # nothing but a model can make these


def words_and_commas(text: str) -> int:
    """What a text is counted in where no base is at hand."""
    return len(_PIECE.findall(text))


def caption(
    example: Example,
    settings: CaptionSettings,
    *,
    epoch: int,
    seed: int,
    visit: int = 0,
    count: Count = words_and_commas,
) -> str:
    """The text an example is trained with at one of its visits.

    Random choices come from (seed, epoch, name of the picture): the order of shuffled parts; and from the visit as
    well: dropout and which of several texts.

    Args:
        visit: tells the showings of an example in an epoch apart.
        count: tokens of a text, as the base's tokenizer has them.

    Raises:
        DatasetError: what the strategy reads is missing or empty.
    """
    rng = Random(derive_seed("caption", seed, epoch, example.path.name, *([visit] if visit else [])))
    dropped = rng.random() < settings.dropout
    made = texts(example, settings, count)
    text = made[0] if len(made) == 1 else rng.choice(made)
    return "" if dropped else _finished(example, text, settings, epoch, seed)


def possible_captions(
    example: Example, settings: CaptionSettings, *, epoch: int, seed: int, count: Count = words_and_commas
) -> list[str]:
    """Every text that the visits of an epoch can show, so that all can be encoded beforehand."""
    made = [_finished(example, text, settings, epoch, seed) for text in texts(example, settings, count)]
    return list(dict.fromkeys([*made, *([""] if settings.dropout else [])]))


def _finished(example: Example, text: str, settings: CaptionSettings, epoch: int, seed: int) -> str:
    """One of an example's texts with its parts in the epoch's order, and the trigger."""
    if settings.shuffle_tags:
        text = _shuffled(text, settings.keep_tokens, Random(derive_seed("order", seed, epoch, example.path.name)))
    return with_trigger(text, settings)


def texts(example: Example, settings: CaptionSettings, count: Count = words_and_commas) -> tuple[str, ...]:
    """All texts a strategy has for a picture, at the length asked for, before trigger, dropout and shuffling.

    Raises:
        DatasetError: what the strategy reads is missing or empty.
    """
    return tuple(shortened(text, settings.length, settings.max_tokens, count) for text in made_texts(example, settings))


def made_texts(example: Example, settings: CaptionSettings) -> tuple[str, ...]:
    """All texts a strategy has for a picture, whole: given by a model or a person, else made.

    Raises:
        DatasetError: what the strategy reads is missing or empty.
    """
    return example.given.get(variant(settings)) or STRATEGIES[settings.strategy](example, settings)


def variant(settings: CaptionSettings) -> str:
    """The name of the words a strategy makes: "edited", or "edited strip=style,medium" where not all are stripped."""
    if settings.strategy not in WITH_STRIP or set(settings.strip) == set(Strip):
        return settings.strategy.value
    return f"{settings.strategy} strip={','.join(name for name in Strip if name in settings.strip) or 'nothing'}"


def with_trigger(text: str, settings: CaptionSettings) -> str:
    """The text with trigger word and class phrase where they stand."""
    said = " ".join(filter(None, (settings.trigger.strip(), settings.class_phrase.strip())))
    parts = [said, text] if settings.trigger_place == TriggerPlace.front else [text, said]
    return ", ".join(filter(None, parts))


def shortened(text: str, length: Length, max_tokens: int | None, count: Count = words_and_commas) -> str:
    """The beginning of a text: half its words or at most so many tokens, without a hanging end."""
    tokens = _PIECE.findall(text)
    most = len(tokens) if length == Length.as_is else (len(tokens) + 1) // 2
    if max_tokens is not None:
        marks = count("")  # the encoder's own
        most = bisect_right(
            range(1, most + 1), max_tokens, key=lambda end: count("".join(tokens[:end]).strip()) - marks
        )
    if most >= len(tokens):
        return text
    ends = [number for number, token in enumerate(tokens, start=1) if not _hangs(token.strip().lower())]
    best = max((end for end in ends if end <= most), default=min(ends, default=len(tokens)))
    return "".join(tokens[:best]).strip()


def _hangs(word: str) -> bool:
    return word in GLUE or word in _PLACING or not word[-1].isalnum()


def check_captions(examples: Sequence[Example], settings: CaptionSettings) -> None:
    """See that every example has what its strategy reads.

    Raises:
        DatasetError: lists the files that are missing or empty.
    """
    faults = []
    for example in examples:
        try:
            texts(example, settings)
        except DatasetError as error:
            faults.append(str(error))
    if faults:
        raise DatasetError(missing_captions(settings, faults))


def missing_captions(settings: CaptionSettings, faults: list[str]) -> str:
    """One message for all pictures without a caption, with the ways out; the same for strategies that read the same."""
    if settings.strategy == Strategy.tags:
        ways = "Write NAME.tags beside each picture, or have tags found with tagger=wd14"
    else:
        ways = (
            "Write NAME.txt beside each picture, or have them described: captioner=florence2, ollama, …"
            " (captions=vlm where captions=original)"
        )
    listed = list_faults("captions missing" if len(faults) > 1 else "caption missing", faults, shown=len(faults))
    return f"{listed}\n  {ways}; or train without: captions=none, or captions=trigger captions.trigger=WORD."


def _none(example: Example, settings: CaptionSettings) -> tuple[str, ...]:
    return ("",)


def _original(example: Example, settings: CaptionSettings) -> tuple[str, ...]:
    if not example.captions:
        raise DatasetError(f"{example.path.with_suffix('.txt')}: no caption")
    return example.captions


def _tags(example: Example, settings: CaptionSettings) -> tuple[str, ...]:
    if not example.tags:
        raise DatasetError(f"{example.path.with_suffix('.tags')}: no tags")
    return (", ".join(stripped_tags(example.tags, settings.strip)),)


def _by_model(example: Example, settings: CaptionSettings) -> tuple[str, ...]:
    raise DatasetError(f"{example.path}: no caption by a model yet; choose one with captioner=NAME")


def _edited(example: Example, settings: CaptionSettings) -> tuple[str, ...]:
    return tuple(_rewritten(strip_words, text, tuple(settings.strip)) for text in _original(example, settings))


def _subject_only(example: Example, settings: CaptionSettings) -> tuple[str, ...]:
    return tuple(_rewritten(keep_subject, text, tuple(settings.strip)) for text in _original(example, settings))


@lru_cache(maxsize=4096)  # a training asks for the same caption at every visit
def _rewritten(rule: Callable[[str, tuple[Strip, ...]], str], text: str, strip: tuple[Strip, ...]) -> str:
    return rule(text, strip)


STRATEGIES: dict[Strategy, Callable[[Example, CaptionSettings], tuple[str, ...]]] = {
    Strategy.none: _none,
    Strategy.trigger: _none,  # the word itself is a switch that every strategy has
    Strategy.original: _original,
    Strategy.tags: _tags,
    Strategy.vlm: _by_model,
    Strategy.tags_vlm: _by_model,
    Strategy.edited: _edited,
    Strategy.subject_only: _subject_only,
}


def _shuffled(text: str, keep: int, rng: Random) -> str:
    parts = text.split(", ")
    rest = parts[keep:]
    rng.shuffle(rest)
    return ", ".join(parts[:keep] + rest)
