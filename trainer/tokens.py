"""How long captions are for the text encoder, counted with the base's own tokenizer and without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from trainer.captions import caption
from trainer.examples import DatasetError, Example
from trainer.settings import CaptionSettings


def token_counter(folder: Path) -> Callable[[str], int] | None:
    """A function that counts the tokens of a text, its end counted in; None where the base has no tokenizer.json."""
    from tokenizers import Tokenizer

    files = [folder / name / "tokenizer.json" for name in ("tokenizer_2", "tokenizer")]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda text: len(tokenizer.encode(text).ids)


def caption_lengths(
    examples: Sequence[Example], settings: CaptionSettings, count: Callable[[str], int]
) -> dict[str, int]:
    """Tokens of the longest caption of each example, by file name; those without a caption are left out."""
    calm = replace(settings, dropout=0.0)
    lengths = {}
    for example in examples:
        lines = [replace(example, captions=(line,)) for line in example.captions] or [example]
        try:
            lengths[example.path.name] = max(count(caption(each, calm, epoch=0, seed=0)) for each in lines)
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
