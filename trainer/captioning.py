"""Captions made ready for a training: tags by a tagger, words by a model, and a person's corrections on top.

The result lies in the examples (`Example.given`, `Example.tags`), so that whoever trains or shows captions need not
know where they came from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainer.answers import PROMPTS, Answers, CaptionerDown, NoAnswer, prompt_for
from trainer.captioner_settings import CaptionerKind, CaptionerSettings, TaggerSettings
from trainer.captions import BY_MODEL, STRATEGIES, variant
from trainer.examples import DatasetError, Example, list_faults
from trainer.rewriting import stripped_tags
from trainer.settings import CaptionSettings, Strategy
from trainer.sheet import Row, corrected, picture_name

_REWRITTEN = (Strategy.edited, Strategy.subject_only)
_SILENT = 5  # pictures in a row without an answer, after which the others are not asked about
_LONGER = 5  # words that a rewritten caption may have beyond the original's


@dataclass
class Captioned:
    """Examples with the words of one strategy."""

    examples: list[Example]
    by: str  # who made the words: "rules", "sidecar", "model … (prompt …)"
    faults: dict[Path, str] = field(default_factory=dict)  # picture -> why it has none


def make_captions(
    examples: Sequence[Example],
    settings: CaptionSettings,
    captioner: CaptionerSettings,
    tagger: TaggerSettings,
    *,
    rows: Sequence[Row] = (),
    kept: Path,
    say: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> Captioned:
    """Give every example what its strategy needs.

    Args:
        rows: of the caption sheet; a person's win, and no model is asked for them.
        kept: folder in which models' answers are kept.
        say: told before a picture is asked about: what, how many are done, of how many.

    Raises:
        DatasetError: the strategy needs a model and none is chosen.
        CaptionerDown: no model can answer; what was answered so far is kept.
    """
    if tagger.model and settings.strategy in (Strategy.tags, Strategy.tags_vlm):
        from trainer.tagger import tag_examples  # with numpy; a refusal of wrong settings does without

        examples = tag_examples(examples, tagger, kept)
    if not asks_model(settings, captioner):
        by = made_by(settings, captioner, tagger)
        return Captioned([corrected(example, settings, rows) for example in examples], by)
    if captioner.kind == CaptionerKind.rules:
        raise DatasetError(
            f"`captions.strategy={settings.strategy}` needs a vision-language model and captioner=rules has none:"
            " choose captioner=ollama, captioner=endpoint, captioner=florence2, …"
        )
    if captioner.task and settings.strategy not in (Strategy.vlm, *_REWRITTEN):
        raise DatasetError(
            f"`captions.strategy={settings.strategy}`: captioner.model={captioner.model} only knows its task"
            f" {captioner.task}; choose another captioner"
        )
    return _ask_all(list(examples), settings, captioner, rows, kept, say)


def asks_model(settings: CaptionSettings, captioner: CaptionerSettings) -> bool:
    """Whether a captioner may be asked for a strategy's words."""
    return settings.strategy in BY_MODEL or (settings.strategy in _REWRITTEN and captioner.kind != CaptionerKind.rules)


def made_by(settings: CaptionSettings, captioner: CaptionerSettings, tagger: TaggerSettings) -> str:
    """Who makes the words of a strategy, said plainly."""
    if settings.strategy in BY_MODEL or (asks_model(settings, captioner) and captioner.rewrites):
        place = f"at {captioner.url}" if captioner.kind == CaptionerKind.endpoint else "on this machine"
        return f"model {captioner.model} {place}, {captioner.task or 'prompt ' + PROMPTS[settings.strategy]}"
    if asks_model(settings, captioner):
        return f"rules; where there is no sidecar, on a description by {captioner.model}"
    if settings.strategy in _REWRITTEN:
        return "rules, without a model"
    if settings.strategy == Strategy.tags:
        return f"tagger {tagger.model}" if tagger.model else "the sidecar's tags"
    if settings.strategy == Strategy.trigger:
        return f"the word “{settings.trigger}”"
    return "the sidecar's text" if settings.strategy == Strategy.original else "empty texts"


def _ask_all(
    examples: list[Example],
    settings: CaptionSettings,
    captioner: CaptionerSettings,
    rows: Sequence[Row],
    kept: Path,
    say: Callable[[str, int, int], None],
) -> Captioned:
    name = variant(settings)
    written = {row.picture for row in rows if row.edited and row.strategy == name}
    answers = Answers(captioner, kept)
    done = Captioned([], made_by(settings, captioner, TaggerSettings()))
    silent = 0  # pictures in a row that the server failed on
    for number, example in enumerate(examples):
        if picture_name(example.path) not in written or len(example.captions) > 1:
            say(f"captions: {name} by {captioner.model}", number, len(examples))
            try:
                example = replace(
                    example, given={**example.given, name: _asked(example, settings, answers, captioner.rewrites)}
                )
                silent = 0
            except NoAnswer as fault:
                silent = 0 if fault.again else silent + 1
                if silent == _SILENT:
                    raise CaptionerDown(
                        f"{silent} pictures in a row have no answer, the last since: {fault}"
                    ) from fault
                if picture_name(example.path) not in written:
                    done.faults[example.path] = str(fault)
        done.examples.append(corrected(example, settings, rows))
    say(f"captions: {name} by {captioner.model}", len(examples), len(examples))
    return done


def _asked(example: Example, settings: CaptionSettings, answers: Answers, rewrites: bool) -> tuple[str, ...]:
    """What the model says to one picture; a caption to be rewritten comes from the sidecar, else from the model."""
    strip = tuple(settings.strip)
    if settings.strategy == Strategy.vlm:
        return (answers(prompt_for(Strategy.vlm, strip), example.path),)
    if settings.strategy == Strategy.tags_vlm:
        if not example.tags:
            raise NoAnswer(f"no tags for it: {example.path.with_suffix('.tags')} is missing, and no tagger is chosen")
        tags = ", ".join(stripped_tags(example.tags, strip))
        return (answers(prompt_for(Strategy.tags_vlm, strip, tags=tags), example.path),)
    sources = example.captions or (answers(prompt_for(Strategy.vlm, strip), example.path),)
    if not rewrites:
        return STRATEGIES[settings.strategy](replace(example, captions=sources), settings)
    return tuple(
        answers(prompt_for(settings.strategy, strip, caption=source), None, words_at_most=len(source.split()) + _LONGER)
        for source in sources
    )


def fault_list(captioned: Captioned, settings: CaptionSettings) -> str:
    """One message for all pictures that have no caption; empty if there are none."""
    if not captioned.faults:
        return ""
    faults = [f"{path}: {fault}" for path, fault in captioned.faults.items()]
    return (
        list_faults(
            f"of {len(captioned.examples)} pictures have no caption {variant(settings)}", faults, shown=len(faults)
        )
        + "\n  The others are kept. The same command asks for these again; or write them into the caption sheet."
    )
