"""LoRAs that are there already, `eval.lora`: scored as they are, in the place of a training."""

import json
from dataclasses import dataclass
from pathlib import Path

from sweep.outcome import mix_text
from sweep.schema import Config

NOTHING_KNOWN = ("", "")
COMMENT = "ss_training_comment"  # where our own files say what they were trained with


@dataclass(frozen=True)
class GivenLora:
    """Stands where a training's checkpoint would."""

    lora: Path
    step: int = 0  # not known
    images_seen: int = 0  # not known
    validation: float | None = None
    peak_bytes: int = 0


def recipe_words(config: Config) -> tuple[str, str]:
    """Caption strategy and mix: the configuration's, or those that the given file names; empty where it names none."""
    if not config.eval.lora:
        return config.captions.strategy.value, mix_text(config.mix)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(config.eval.lora, framework="numpy") as file:
            told = json.loads((file.metadata() or {}).get(COMMENT, "{}"))
        repeats = told["mix"]["repeats"]
        sides = sorted((int(side), count) for side, count in repeats.items() if count)
        return str(told["captions"]["strategy"]), "+".join(f"{side}x{count}" for side, count in sides)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError):  # others write other comments
        return NOTHING_KNOWN
