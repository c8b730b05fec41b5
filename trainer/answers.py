"""What is asked of a captioning model, what counts as an answer, and where answers are kept.

An answer is kept under a hash of everything it depends on: the picture or the words, the prompt's text, the model and
its settings. A picture whose answer is refused, empty or runs away is asked about again, then reported by itself.
"""

import json
import re
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from string import Template
from typing import Protocol

from trainer.captioner_settings import CaptionerSettings
from trainer.files import write_atomic
from trainer.settings import Strategy, Strip

PROMPTS = {
    Strategy.vlm: "vlm_v1",
    Strategy.tags_vlm: "tags_vlm_v1",
    Strategy.edited: "edited_v1",
    Strategy.subject_only: "subject_only_v1",
}
_CLASSES = {
    Strip.style: "style (vintage, realistic, in the manner of an artist, a period)",
    Strip.medium: "medium (engraving, oil painting, photograph)",
    Strip.technique: "technique (cross-hatching, bold lines, muted colours)",
    Strip.emotion: "emotion (eerie, serene mood)",
}
_LONGEST = 120  # words; no caption needs more, a model that loops writes more
_REFUSAL = re.compile(
    r"^\W*(i('| a)?m sorry|sorry|i can(no|')t|i('m| am) (not able|unable)|unable to|as an ai|i (won't|will not)\b)",
    re.I,
)
_PREAMBLE = re.compile(r"^(sure|certainly|of course|okay|here('s| is| are)|caption|answer)\b[^:\n]{0,60}[:!]\s*", re.I)


class CaptionerDown(RuntimeError):
    """No picture can be asked about; the message says why and what to do."""


class NoAnswer(ValueError):
    """This picture has no usable answer; the message says what came instead."""

    def __init__(self, reason: str, *, again: bool = True) -> None:
        super().__init__(reason)
        self.again = again  # whether another attempt may do better


class Captioner(Protocol):
    """A model that answers."""

    name: str  # as told to a person: kind, model, place

    def ask(self, prompt: str, picture: Path | None, *, attempt: int) -> str:
        """One answer, as it came.

        Raises:
            NoAnswer: nothing usable for this picture; worth asking again.
            CaptionerDown: nothing for any picture.
        """
        ...


def prompt_for(strategy: Strategy, strip: tuple[Strip, ...], *, caption: str = "", tags: str = "") -> str:
    """The prompt of a strategy, filled in."""
    text = (Path(__file__).parent / "prompts" / f"{PROMPTS[strategy]}.txt").read_text(encoding="utf-8")
    classes = "; ".join(_CLASSES[name] for name in Strip if name in strip) or "nothing"
    return Template(text).substitute(classes=classes, caption=caption, tags=tags or "none").strip()


class Answers:
    """A captioner with a memory on disk; who only needs what is kept needs neither key nor model."""

    def __init__(self, settings: CaptionerSettings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._captioner: Captioner | None = None

    def __call__(self, prompt: str, picture: Path | None, *, words_at_most: int = _LONGEST) -> str:
        """The answer to a prompt, from disk or from the model.

        Raises:
            NoAnswer: after the last attempt.
            CaptionerDown: at once.
        """
        file = self._folder / f"{self._key(prompt, picture)}.json"
        if file.is_file():
            return str(json.loads(file.read_text(encoding="utf-8"))["answer"])
        self._captioner = self._captioner or open_captioner(self._settings)
        reason = ""
        for attempt in range(self._settings.attempts):
            try:
                answer = checked_answer(self._captioner.ask(prompt, picture, attempt=attempt), words_at_most)
            except NoAnswer as fault:
                reason = f"{fault}"
                if not fault.again:
                    raise
                continue
            record = {"answer": answer, "by": self._captioner.name, "prompt": prompt}
            write_atomic(file, json.dumps(record, ensure_ascii=False, indent=1).encode())
            return answer
        raise NoAnswer(f"{reason} ({self._settings.attempts} times asked)")

    def _key(self, prompt: str, picture: Path | None) -> str:
        asked = self._settings
        parts = [asked.kind, asked.url, asked.model, asked.task, asked.temperature, asked.max_tokens, asked.picture_px]
        shown = blake2b(picture.read_bytes(), digest_size=16).hexdigest() if picture else ""
        return blake2b(json.dumps([*parts, prompt, shown]).encode(), digest_size=20).hexdigest()


def checked_answer(text: str, words_at_most: int = _LONGEST) -> str:
    """The caption in an answer.

    Raises:
        NoAnswer: empty, a refusal, or one that runs away.
    """
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)
    lines = " ".join(text.split())
    caption = _PREAMBLE.sub("", lines).strip().strip("\"'`“”*").strip()
    if not caption:
        raise NoAnswer("the answer is empty")
    if _REFUSAL.match(caption):
        raise NoAnswer(f"the model refused: {caption[:80]}")
    words = caption.lower().split()
    if len(words) > words_at_most:
        raise NoAnswer(f"the answer runs away, {len(words)} words: {caption[:80]} …")
    threes = list(zip(words, words[1:], words[2:], strict=False))
    if len(threes) - len(set(threes)) > 4:
        raise NoAnswer(f"the answer repeats itself: {caption[:80]} …")
    if not any(letter.isalpha() for letter in caption) or "\ufffd" in caption:
        raise NoAnswer(f"the answer is no text: {caption[:80]!r}")
    return caption


def open_captioner(settings: CaptionerSettings) -> Captioner:
    """The captioner that the settings name.

    Raises:
        CaptionerDown: a library, a key or a model is missing.
    """
    from trainer.endpoint import Endpoint  # libraries are loaded on first use
    from trainer.local_captioner import LocalCaptioner

    kinds: dict[str, Callable[[CaptionerSettings], Captioner]] = {"endpoint": Endpoint, "local": LocalCaptioner}
    return kinds[settings.kind](settings)
