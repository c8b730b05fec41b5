"""How long captions are for the text encoder, counted with the base's own tokenizer, mostly without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trainer.base import BaseError, find_base
from trainer.captions import Count, caption, words_and_commas
from trainer.examples import DatasetError, Example
from trainer.settings import BaseSettings, CaptionSettings


def token_counter(folder: Path) -> Count:
    """A function that counts a text's tokens for the encoder that reads most of it, of a base's folder."""
    return tokenizer_counter(next(folder / name for name in ("tokenizer_2", "tokenizer") if (folder / name).is_dir()))


def counter_of(base: BaseSettings) -> Count:
    """The same for a base that need not be on this machine; without it, words and commas are counted."""
    try:
        return token_counter(find_base(base))
    except BaseError:
        return words_and_commas


def tokenizer_counter(folder: Path) -> Count:
    """Counts a text's tokens, the encoder's own marks counted in; nothing is cut or filled up."""
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
        fast.no_padding()
        fast.no_truncation()
        return lambda text: len(fast.encode(text).ids)
    from transformers import AutoTokenizer  # three seconds, for the older layouts only

    slow = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return lambda text: len(slow(text, verbose=False)["input_ids"])


def caption_lengths(examples: Sequence[Example], settings: CaptionSettings, count: Count) -> dict[str, int]:
    """Tokens of the longest caption of each example, by file name; those without a caption are left out."""
    calm = replace(settings, dropout=0.0)
    lengths = {}
    for example in examples:
        lines = [replace(example, captions=(line,)) for line in example.captions] or [example]
        try:
            lengths[example.path.name] = max(count(caption(each, calm, epoch=0, seed=0, count=count)) for each in lines)
        except DatasetError:
            continue  # told elsewhere
    return lengths


def cut_captions(lengths: dict[str, int], limit: int) -> list[str]:
    """A warning that counts the captions whose end the encoder will not see; empty if there are none."""
    cut = sorted(((length, name) for name, length in lengths.items() if length > limit), reverse=True)
    if not cut:
        return []
    names = ", ".join(f"{name} ({length})" for length, name in cut[:3])
    return [
        f"{len(cut)} of {len(lengths)} captions are longer than `base.max_text_tokens`={limit} tokens, what is beyond"
        f" is cut off: {names}{' …' if len(cut) > 3 else ''}"
    ]
