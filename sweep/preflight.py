"""What can be known before any training: data, weights and room on the disk, for every configuration at once.

Needs no torch, so that a wrong path costs a second. All faults are found and named together.
"""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from metrics.settings import ScoreSettings
from sweep.errors import Faults
from sweep.examples import with_captions
from sweep.lines import StepProgress
from sweep.schema import Config
from sweep.settings import study_folder
from trainer.base import BaseError, find_base, step_px
from trainer.captioner_settings import CaptionerKind
from trainer.captions import check_captions
from trainer.device import find_device, named_device
from trainer.estimate import known_shape, lora_weights, read_shape
from trainer.examples import ALPHA, DatasetError, Example, read_examples
from trainer.extras import missing_extras, unusable_together
from trainer.plan import make_plan
from trainer.settings import BaseSettings, Group, Quantize
from trainer.targets import TargetsError

GB = 1e9
ROOT = Path(__file__).parents[1]
_SANDBOX = "sandbox/data/"
_OBJECTIVES = ["style", "composition"]
_TO_BE_GIVEN = {
    "data.path": "`data.path` must be given: the folder of your pictures, data.path=MY_PICTURES, each with its caption"
    " beside it as NAME.txt",
    "data.references": "`data.references` must be given: a folder of pictures of the style that are not trained on,"
    " data.references=HELD_OUT_PICTURES; keep 10 to 30 aside",
}
# What a check depends on, its name first; and the faults it finds when it is run.
Check = tuple[tuple[Any, ...], Iterator[str]]


def check_inputs(configs: Mapping[str, Config], done: set[str] | None = None) -> None:
    """Looks at everything the trials will read.

    Args:
        configs: what was chosen -> the configuration it gives; "" is the one without any choice.
        done: the checks that the command has made before, which are not made again; those of this call are added.

    Raises:
        Faults: all of them, each with its file or key and what to do.
    """
    _raise_all((check for config in configs.values() for check in _checks(config)), set() if done is None else done)


def check_plan(configs: Mapping[str, Config]) -> None:
    """Looks at what `sweep.plan` reads: the pictures, the mix and the base, unless its sizes are known without it."""
    checks = (
        check
        for config in configs.values()
        for check in _checks(config)
        if check[0][0] in ("data", "plan", "layers") or (check[0][0] == "base" and known_shape(config.base) is None)
    )
    _raise_all(checks, set())


def _raise_all(checks: Iterable[Check], done: set[str]) -> None:
    faults: list[str] = []
    for key, check in checks:
        if repr(key) not in done:
            done.add(repr(key))
            faults += (fault for fault in check if fault not in faults)
    if not Path(_SANDBOX).exists():
        faults = _sandbox_at_once(faults)
    if faults:
        raise Faults(faults)


def _sandbox_at_once(faults: list[str]) -> list[str]:
    """The faults with one in the place of all that a missing sandbox explains."""
    explained = [fault for fault in faults if re.search(r"[: =]sandbox/(data|weights)/", fault)]
    if not explained:
        return faults
    keys = ", ".join(re.findall(r"^`[\w.]+`", "\n".join(explained), re.MULTILINE))
    return [
        *(fault for fault in faults if fault not in explained),
        f"the sandbox is looked for in the working folder: run the command in {ROOT}, or set {keys}",
    ]


def _checks(config: Config) -> Iterator[Check]:
    """Every check with what it depends on, so that no folder is read twice."""
    data = config.data
    yield ("base", config.base.path, config.base.parts), _base(config.base)
    yield ("device", config.base, config.score.device, config.study.slots), _devices(config)
    if config.eval.lora:
        yield ("lora", config.eval.lora), _given(config.eval.lora)
        yield ("pictures", data), _training_pictures(config)
    else:
        yield ("needs", config.base, config.train), _needs(config)
        yield ("layers", config.base, config.train.lora), _layers(config)
        yield ("data", data, config.captions, config.captioner, config.tagger), _data(config)
        yield ("plan", config.base.path, config.base.scale, data, config.mix, config.train.seed), _plan(config)
    least = config.score.references_at_least
    yield ("references", data.path, data.references, least), _references(data.path, data.references, config.score)
    yield ("others", config.eval.others), _others(config.eval.others)
    yield ("score", config.score), _score(config.score)
    yield ("prompts", config.eval, config.base.path, config.base.scale, config.score), _prompts(config)
    yield ("objectives", config.search.objectives), _objectives(config.search.objectives)
    yield ("disk", config.study), _disk(study_folder(config.study), config.study.min_free_gb)


def _objectives(names: list[str]) -> Iterator[str]:
    if names != _OBJECTIVES:
        yield (
            f"`search.objectives` must be [{', '.join(_OBJECTIVES)}], which is what a trial is scored on; got"
            f" [{', '.join(names)}]. Other names are for jobs of your own"
        )


def _base(base: BaseSettings) -> Iterator[str]:
    try:
        find_base(base)
    except BaseError as fault:
        yield str(fault)


def _devices(config: Config) -> Iterator[str]:
    """What is wrong with them; torch is not loaded to be asked for what every machine has."""
    base, score, everywhere = config.base, config.score.device, ("auto", "cpu")
    for key, name in (("base.device", base.device), ("score.device", score)):
        if config.study.slots > 1 and re.fullmatch(r"cuda:[1-9]\d*", name):
            yield f"`{key}`={name}: each of study.slots={config.study.slots} sees one card, its own; set {key}=auto"
            return
    asked: list[Callable[[], object]] = []
    if base.device not in everywhere or base.group_offload or base.quantize == Quantize.nf4:
        asked.append(lambda: find_device(base))
    if score not in everywhere:
        asked.append(lambda: named_device("score.device", score))
    for ask in asked:
        try:
            ask()
        except BaseError as fault:
            yield str(fault)


def _needs(config: Config) -> Iterator[str]:
    yield from missing_extras(config.base, config.train.optimizer)
    yield from unusable_together(config.base, config.train)


def _layers(config: Config) -> Iterator[str]:
    try:
        lora_weights(known_shape(config.base) or read_shape(find_base(config.base)), config.train)
    except TargetsError as fault:
        yield str(fault)
    except BaseError:
        return  # told elsewhere


def _given(lora: str) -> Iterator[str]:
    if Path(lora).suffix != ".safetensors" or not Path(lora).is_file():
        yield f"`eval.lora`: no such LoRA file (.safetensors): {lora}"


def _training_pictures(config: Config) -> Iterator[str]:
    """What a LoRA of another trainer was trained on, to be seen in what it draws; their captions are not read."""
    try:
        read_pictures("data.path", config.data.path)
    except DatasetError as fault:
        yield str(fault)


def _data(config: Config) -> Iterator[str]:
    masks = config.data.masks
    if masks not in ("", ALPHA) and not Path(masks).is_dir():
        yield f"`data.masks`: no such folder: {masks}. Name one with a mask NAME.png for every picture, or `alpha`"
        masks = ""
    try:
        examples = read_pictures("data.path", config.data.path, config.data.limit, config.data.subset_seed, masks)
        # models are asked here, once for all trials: a refused picture is known before any training
        check_captions(with_captions(config, examples, StepProgress()), config.captions)
    except DatasetError as fault:
        yield str(fault)
        if config.captioner.kind == CaptionerKind.rules and not config.tagger.model:
            try:  # no model is asked about a folder that cannot be trained on
                check_captions(with_captions(config, fault.readable, StepProgress()), config.captions)
            except DatasetError as missing:
                yield str(missing)


def _plan(config: Config) -> Iterator[str]:
    """What keeps pictures and sides from becoming batches; what is wrong with either alone is told elsewhere."""
    data = config.data
    try:
        step = step_px(find_base(config.base))
        examples = read_examples(data.path, limit=data.limit, subset_seed=data.subset_seed)
    except (BaseError, DatasetError):
        return
    try:
        make_plan(examples, config.mix, scale=config.base.scale, step=step, seed=config.train.seed)
    except ValueError as fault:
        yield str(fault)


def _references(pictures: str, path: str, score: ScoreSettings) -> Iterator[str]:
    if path.startswith(_SANDBOX) and not pictures.startswith(_SANDBOX):
        yield (
            f"`data.references` is still the sandbox's, {path}, while `data.path` is {pictures}: set it to held-out"
            " pictures of your style, they judge it; keep 10 to 30 aside, data.references=HELD_OUT_PICTURES"
        )
        return
    try:
        references = read_pictures("data.references", path)
    except DatasetError as fault:
        yield str(fault)
        return
    if len(references) < score.references_at_least:
        yield (
            f"`data.references`: at least {score.references_at_least} held-out pictures are needed to say what the"
            f" style is, {path} has {len(references)}"
        )


def _others(path: str) -> Iterator[str]:
    if path.strip():
        try:
            read_pictures("eval.others", path)
        except DatasetError as fault:
            yield str(fault)


def read_pictures(
    key: str, path: str, limit: int | None = None, subset_seed: int = 0, masks: str = ""
) -> list[Example]:
    """The pictures of the folder that a setting names; what is wrong with them is told with its key.

    Raises:
        DatasetError: no folder is given, or pictures in it cannot be used (all listed).
    """
    if not path.strip():
        raise DatasetError(_TO_BE_GIVEN[key])
    try:
        return read_examples(path, limit=limit, subset_seed=subset_seed, masks=masks)
    except DatasetError as fault:
        raise DatasetError(f"`{key}`: {fault}", fault.readable) from fault


def _score(score: ScoreSettings) -> Iterator[str]:
    places: dict[str, list[str]] = {}
    for key, place in score.weights().items():
        places.setdefault(place, []).append(f"`score.{key}`")
    for place, keys in places.items():
        if not Path(place).expanduser().exists():
            way_out = f". To fetch it:\n    {score.fetch[place]}" if place in score.fetch else ""
            yield f"{', '.join(keys)}: no such file or folder: {place}{way_out}"


def _prompts(config: Config) -> Iterator[str]:
    texts = {prompt.text for prompt in config.eval.prompts if prompt.group == Group.unrelated}
    if len(texts) < 2:
        yield (
            "`eval.prompts` must hold at least two different prompts of the group unrelated:"
            " composition is read between them"
        )
    asked = {(p.text, p.seed, p.width, p.height) for p in config.eval.prompts if p.group == Group.unrelated}
    least = config.score.references_at_least
    if not config.eval.others and len(asked) < least:
        yield (
            f"`eval.prompts` must hold at least {least} prompts of the group unrelated, got {len(asked)}, or"
            " `eval.others` name a folder of pictures in other styles: style is measured against them"
        )
    try:
        step = step_px(find_base(config.base))
    except BaseError:
        return  # told elsewhere
    for width, height in sorted({(prompt.width, prompt.height) for prompt in config.eval.prompts}):
        if any(
            round(edge * config.base.scale) % step or round(edge * config.base.scale) < step for edge in (width, height)
        ):
            yield (
                f"`eval.prompts`: {width}x{height} is no size this base can draw: width and height must be multiples of"
                f" {step / config.base.scale:g}"
            )


def _disk(folder: Path, min_free_gb: float) -> Iterator[str]:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free / GB
    if free < min_free_gb:
        yield (
            f"no room: {free:.2f} GB are free where {folder} lies, `study.min_free_gb` asks for {min_free_gb:g}."
            " Free some, put the study elsewhere with study.folder=, or lower study.min_free_gb"
        )
