"""The plan of a training as a tree a person reads, from the pictures down to the warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sweep.numbers import plural
from sweep.schema import Config
from sweep.settings import Checkpoints
from trainer.settings import Kind

if TYPE_CHECKING:
    from rich.tree import Tree

    from trainer.estimate import Shape
    from trainer.examples import Example
    from trainer.plan import Plan, SidePlan

_BUCKETS_SHOWN = 6
_ENOUGH = 10  # pictures; README asks for 20 to 50
_NIGHT_S = 8 * 3600
_TIGHT = 0.95  # of a card's memory can be used


def plan_tree(config: Config, examples: Sequence[Example], plan: Plan, shape: Shape) -> Tree:
    """The plan from the pictures down to the warnings."""
    from rich.tree import Tree

    tree = Tree(f"a training on {plural(len(examples), 'picture')} of {config.data.path}")
    lengths = _captions(tree, config, examples)
    _mix(tree, config, plan)
    _budget(tree, config, plan)
    _lora(tree, config, shape)
    _cost(tree, config, plan, shape)
    _memory(tree, config, plan, shape)
    warnings = plan_warnings(config, examples, plan, lengths)
    if warnings:
        branch = tree.add(f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}")
        for warning in warnings:
            branch.add(warning)
    return tree


def plan_warnings(
    config: Config, examples: Sequence[Example], plan: Plan, lengths: Mapping[str, int] | None = None
) -> list[str]:
    """What a person would want to know before spending a night: pictures, captions, sides and buckets."""
    from trainer.examples import oddities
    from trainer.extras import missing_extras
    from trainer.tokens import cut_captions

    if lengths is None:
        lengths = _lengths(config, examples)
    return [
        *missing_extras(config.base, config.train.optimizer),
        *_file_warnings(config),
        *_few(examples),
        *oddities(list(examples)),
        *cut_captions(dict(lengths), config.base.max_text_tokens),
        *plan.warnings,
    ]


def _few(examples: Sequence[Example]) -> list[str]:
    if len(examples) >= _ENOUGH:
        return []
    count = f"{len(examples)} pictures are" if len(examples) > 1 else "1 picture is"
    return [f"{count} few for a style: of so few a LoRA learns the pictures themselves; 20 to 50 are usual"]


def _file_warnings(config: Config) -> list[str]:
    """Where the LoRA file will not act in other tools as it does here."""
    lora = config.train.lora
    if lora.kind == Kind.dora:
        return ["a DoRA file is read here and by diffusers, not by ComfyUI and Forge: they need train.lora.kind=lora"]
    if lora.kind == Kind.lokr:
        return ["a LoKr file is read here and by peft, not by diffusers' FLUX.1: it needs train.lora.kind=lora"]
    if lora.alpha is not None and lora.alpha != lora.rank:
        return [
            f"alpha {lora.alpha:g} is not rank {lora.rank}, and ComfyUI and Forge do not read alpha from this layout:"
            " convert the file with python -m trainer.export"
        ]
    return []


def _lengths(config: Config, examples: Sequence[Example]) -> dict[str, int]:
    from trainer.base import BaseError, find_base
    from trainer.tokens import caption_lengths, token_counter

    try:
        count = token_counter(find_base(config.base))
    except BaseError:
        return {}  # a plan can be made before the weights are here
    return caption_lengths(examples, config.captions, count)


def _captions(tree: Tree, config: Config, examples: Sequence[Example]) -> dict[str, int]:
    lengths = _lengths(config, examples)
    several = sum(len(example.captions) > 1 for example in examples)
    text = f"captions {config.captions.strategy.value}"
    if lengths:
        text += f": {min(lengths.values())} to {max(lengths.values())} of {config.base.max_text_tokens} tokens"
    tree.add(f"{text}, {plural(several, 'picture')} with several" if several else text)
    return lengths


def _mix(tree: Tree, config: Config, plan: Plan) -> None:
    meaning = "each picture at one random side an epoch" if plan.random_side else "every picture at every side"
    branch = tree.add(
        f"mix: {meaning}; an epoch is {plural(plan.images_per_epoch, 'picture')} in {plan.batches_per_epoch}"
        f" batch{'es' * (plan.batches_per_epoch > 1)}, {plural(plan.steps_per_epoch, 'step')}"
        f"{' of ' + str(plan.accumulation) + ' batches' if plan.accumulation > 1 else ''}"
    )
    for side in plan.sides:
        share = f"odds {side.repeats}" if plan.random_side else f"{side.repeats} times an epoch"
        node = branch.add(
            f"side {side.side}: {share}, batches of {side.batch_size}, {plural(len(side.buckets), 'bucket')},"
            f" {side.crop_loss:.1%} cut away"
        )
        node.add(_sizes(side))


def _sizes(side: SidePlan) -> str:
    sizes = sorted(side.buckets.items(), key=lambda bucket: -len(bucket[1]))
    shown = ", ".join(f"{b.width}x{b.height}: {len(i)}" for b, i in sizes[:_BUCKETS_SHOWN])
    return shown + (f", and {len(sizes) - _BUCKETS_SHOWN} more" if len(sizes) > _BUCKETS_SHOWN else "")


def _budget(tree: Tree, config: Config, plan: Plan) -> None:
    from trainer.budget import training_length

    budget = config.train.budget
    asked = f"{budget.amount:g} {budget.unit.replace('_', ' ')}"
    length = training_length(plan, budget)
    if length is None:
        tree.add(f"budget: {asked}, as many steps as fit")
        return
    steps, seen = length
    tree.add(
        f"budget: {asked}: {plural(seen, 'picture')} seen in all in {plural(steps, 'step')},"
        f" {seen / plan.images_per_epoch:.1f} epochs, {plural(config.train.checkpoints, 'checkpoint')}"
    )


def _lora(tree: Tree, config: Config, shape: Shape) -> None:
    from trainer.estimate import lora_weights

    lora, train = config.train.lora, config.train
    alpha = lora.rank if lora.alpha is None else lora.alpha
    count = lora_weights(shape, train)
    size = count * (4 if lora.file_dtype == "float32" else 2) / 1e6
    most = "at most " if lora.kind == Kind.lokr else ""
    tree.add(
        f"{lora.kind.value} of rank {lora.rank}, alpha {alpha:g}, on {', '.join(lora.layers) or lora.targets.value}:"
        f" {most}{count / 1e6:.1f} M weights, a file of {most}{size:.1f} MB;"
        f" {train.optimizer.name.value} at {train.optimizer.learning_rate:g}, {train.loss.value},"
        f" timesteps {train.timesteps.value}"
    )


def _cost(tree: Tree, config: Config, plan: Plan, shape: Shape) -> None:
    from trainer.budget import training_length
    from trainer.estimate import CPU, DEVICES, REACHED, drawing_flop, training_flop

    length, evaluation = training_length(plan, config.train.budget), config.eval
    candidates = len(evaluation.strengths) * (
        config.train.checkpoints if evaluation.checkpoints == Checkpoints.all else 1
    )
    drawing = candidates * drawing_flop(shape, config.base, plan.step, evaluation.prompts, config.sample)
    training = training_flop(shape, plan, config.base, config.train, length[1]) if length else 0.0
    fixed_s = 0.0 if length else config.train.budget.amount
    to_train = f"{training / 1e15:.3g} PFLOP to train" if length else f"{fixed_s:g} s of training"
    branch = tree.add(
        f"cost of a trial: {to_train}, {plan.tokens_per_image:.0f} tokens per picture and"
        f" {config.base.max_text_tokens} of text; {drawing / 1e15:.3g} PFLOP to draw"
        f" {candidates * len(evaluation.prompts)} samples"
    )
    # The sandbox needs no card, and nobody trains FLUX on a processor.
    peaks = {name: peak for name, peak in DEVICES.items() if (name == CPU) == (config.base.scale != 1)}
    times = {name: fixed_s + (training + drawing) / (peak * 1e12 * REACHED) for name, peak in peaks.items()}
    said = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in times.items())
    branch.add(f"at {REACHED:.0%} of a device's peak: {said}")
    fitting = {name: int(_NIGHT_S / seconds) for name, seconds in times.items() if seconds <= _NIGHT_S}
    said = ", ".join(f"{name} {count}" for name, count in fitting.items())
    branch.add(f"trials in a night of {_NIGHT_S // 3600} hours: {said or 'none'}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def memory_choices(config: Config) -> str:
    """What memory= has chosen, or whoever set it by hand."""
    base, train = config.base, config.train
    recomputed = f"{train.checkpointed_share:.0%} of the blocks recomputed" if train.gradient_checkpointing else ""
    chosen = [
        f"{base.dtype.value} weights" if base.quantize == "none" else f"{base.quantize.value} weights",
        recomputed or "nothing recomputed",
        "one part on the device at a time" if base.offload else "all parts on the device",
        *(["blocks streamed"] if base.group_offload else []),
        *(["blocks compiled"] if base.compile else []),
    ]
    return ", ".join(chosen)


def _memory(tree: Tree, config: Config, plan: Plan, shape: Shape) -> None:
    from trainer.estimate import memory

    found = memory(shape, plan, config.base, config.train)
    branch = tree.add(f"memory on a GPU, estimated: {found.peak:.2g} GB at most; {memory_choices(config)}")
    parts = ", ".join(f"{name} {size:.2g}" for name, size in found.parts.items() if size)
    branch.add(f"training {found.training:.2g} GB: {parts}")
    branch.add(f"encoding texts and pictures {found.encoding:.2g} GB")
    fits = [f"{size} GB" for size in (12, 16, 24, 48, 80) if found.peak < _TIGHT * size]
    branch.add(f"fits a card of {fits[0]}" if fits else "fits no card of 80 GB: see memory=12gb, 16gb, 24gb")
