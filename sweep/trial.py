"""One trial: read, train, sample, score; everything written to its folder.

Each scored checkpoint at each strength is a candidate; the trial stands for the feasible one whose rectangle
style × composition is largest, and keeps the scores of all. A trial that was interrupted goes on from its last
checkpoint; one whose outcome is on disk is not computed again.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.checks import asked_in_words, marks
from sweep.clock import Clock
from sweep.contact_sheet import contact_sheet, save_once, save_pictures, save_sheet
from sweep.contents import content_id, judge_files, sheet_content
from sweep.errors import Stopped
from sweep.examples import captions_line, with_captions
from sweep.given import GivenLora, recipe_words
from sweep.lines import StepProgress
from sweep.outcome import (
    BASE_IMAGES,
    SHEET,
    Candidate,
    Outcome,
    choose,
    plain_config,
    read_outcome,
    seeds,
    versions,
)
from sweep.plan_tree import memory_choices, plan_warnings
from sweep.progress import print_outcome
from sweep.record import at_rung, begin, ended_early, record, rungs_ahead, warn
from sweep.rungs import Rung, few_of, fewer_steps
from sweep.schema import Config
from sweep.settings import Checkpoints, Stopping, study_folder
from sweep.study import FORMAT
from sweep.tracking import Tracked, tracked
from sweep.warm import is_cold, warm_base, warm_judge
from trainer.budget import checkpoint_steps, training_length
from trainer.examples import ALPHA, Example, read_examples
from trainer.plan import Plan, make_plan
from trainer.rewriting import subject_noun
from trainer.settings import Group

if TYPE_CHECKING:
    from torch import Tensor

    from metrics.suite import Judge
    from trainer.checkpoints import Checkpoint
    from trainer.flux import FluxBase

# What does not change the values of a trial: where it is written, how it was found, how fast it is computed.
NO_PART = ("search", "study", "track")


@dataclass(frozen=True)
class Bench:
    """What the trials of a study share, loaded and measured once."""

    base: "FluxBase"
    examples: list[Example]
    judge: "Judge"
    base_images: "list[Tensor]"
    cache: Path


@dataclass(frozen=True)
class Run:
    """One trial on its way."""

    config: Config
    bench: Bench
    folder: Path
    training: Path
    clock: Clock
    steps: StepProgress
    watched: Tracked
    number: int | None = None
    losses: list[float] = field(default_factory=list)


def run_trial(
    config: Config, *, folder: Path | None = None, number: int | None = None, overrides: Sequence[str] = ()
) -> Outcome:
    """Trains, samples and scores one configuration.

    Args:
        folder: where everything is written; by default `single` in the study's folder.
        number: the trial's in its study, whose attributes, constraints and pictures are then set.
        overrides: what was asked for, kept in the outcome.

    Raises:
        DatasetError, BaseError, ScoreError: for input that cannot be used.
        TrainingError: if the loss is no longer a number, or memory or disk are full.
        Stopped: if the trial ends at a rung.
    """
    folder = folder or study_folder(config.study) / "single"
    folder.mkdir(parents=True, exist_ok=True)
    clock, steps = Clock(), StepProgress()
    if number is not None:
        begin(config, number)
    if is_cold():
        steps.say(f"loading the base ({memory_choices(config)}) and the judges, once for all trials of this process")
    with clock.time("start_up"):
        base = warm_base(config.base)
    identity = identify(config, base.id)
    outcome = read_outcome(folder)
    if outcome is None or outcome.identity != identity or outcome.number != number:
        bench = prepare(config, base, clock)
        warn(asked_in_words(bench.judge.asked_among(config.eval.prompts)), steps.say, folder, number)
        with tracked(config, folder, number, identity, steps.say) as watched:
            run = Run(config, bench, folder, folder / "training" / identity[:8], clock, steps, watched, number)
            try:
                outcome = replace(_compute(run, identity), number=number, overrides=list(overrides))
            except Stopped:
                if number is not None:
                    ended_early(config, number, clock.seconds)
                raise
            outcome.write(folder)
            watched.outcome(outcome, folder)
        # Only a training that goes on needs its state: an interrupted one, or one with a longer budget.
        if number is not None and not any(word.startswith("train.budget.") for word in overrides):
            for state in run.training.rglob("state.safetensors"):
                state.unlink()
    else:
        steps("already scored", 1, 1, "its outcome.json is read")
    record(outcome, config, folder)
    if number is None:
        print_outcome(outcome, folder, steps)
    return outcome


def identify(config: Config, base_id: str) -> str:
    """A hash of everything the values depend on: settings, base, judges, pictures and captions, versions."""
    plain = plain_config(config)
    parts = [json.dumps({key: value for key, value in plain.items() if key not in NO_PART}, sort_keys=True), base_id]
    places = [config.data.path, config.data.references, config.eval.others, *judge_files(config.score).values()]
    places += [config.eval.lora] if config.eval.lora else []
    places += [config.data.masks] if config.data.masks not in ("", ALPHA) else []
    parts += [content_id(place) for place in places if place]
    parts += sheet_content(config).values()
    parts += [f"format {FORMAT}", json.dumps(versions())]
    return blake2b("\x1f".join(parts).encode(), digest_size=16).hexdigest()


def prepare(config: Config, base: "FluxBase", clock: Clock) -> Bench:
    """Reads the pictures, loads the judge and draws the base images, as far as that has not been done yet."""
    from trainer.sample import base_images

    cache = Path(config.study.folder).absolute() / "cache"  # addressed by content, so all studies share it
    with clock.time("start_up"):
        data = config.data
        examples = read_examples(data.path, limit=data.limit, subset_seed=data.subset_seed, masks=data.masks)
        if not config.eval.lora:
            examples = with_captions(config, examples)
        everything = read_examples(config.data.path)  # the judge is the study's, whatever part a trial trains on
        judge = warm_judge(
            config.score,
            references=read_examples(config.data.references),
            others=read_examples(config.eval.others) if config.eval.others else [],
            training=everything,
            training_nouns=_nouns(everything),
        )
    with clock.time("sample"):
        without = base_images(base, config.eval.prompts, config.sample, cache=cache)
    return Bench(base, examples, judge, without, cache)


def _nouns(examples: Sequence[Example]) -> list[str]:
    nouns = {subject_noun(example.captions[0]) for example in examples if example.captions}
    return sorted(noun for noun in nouns if noun)


def _compute(run: Run, identity: str) -> Outcome:
    if run.config.eval.lora:
        return _outcome(run, [_given(Path(run.config.eval.lora).absolute())], identity, plan="")
    plan = _plan(run)
    return _outcome(run, _scored(run.config.eval.checkpoints, _trained(run)), identity, str(plan))


def _given(lora: Path) -> GivenLora:
    """A LoRA file; a damaged one is told of before anything is drawn."""
    from trainer.export import peft_adapter, read_lora

    if peft_adapter(lora) is None:
        read_lora(lora)
    return GivenLora(lora)


def _outcome(run: Run, loras: "Iterable[Checkpoint | GivenLora]", identity: str, plan: str) -> Outcome:
    """Every LoRA at every strength, and everything that is told about them."""
    config = run.config
    candidates: list[Candidate] = []
    pictures: list[list[Tensor]] = []
    for checkpoint in loras:
        for strength in config.eval.strengths:
            candidate, drawn = _candidate(run, checkpoint, strength)
            candidates.append(candidate)
            pictures.append(drawn)
    chosen = choose(candidates)
    captions, mix = recipe_words(config)
    _sheet(run, candidates, pictures, chosen)
    base_folder = run.folder.parent / BASE_IMAGES
    return Outcome(
        chosen=chosen,
        candidates=candidates,
        losses=run.losses,
        timings={part: round(seconds, 3) for part, seconds in run.clock.seconds.items()},
        captions=captions,
        mix=mix,
        plan=plan,
        config=plain_config(config),
        overrides=[],
        versions=versions(),
        seeds=seeds(config),
        identity=identity,
        samples=save_pictures(run.folder / "samples", pictures[chosen]),
        base_images=[f"../{BASE_IMAGES}/{name}" for name in save_once(base_folder, run.bench.base_images)],
    )


def _sheet(run: Run, candidates: Sequence[Candidate], pictures: "Sequence[list[Tensor]]", chosen: int) -> None:
    """Every prompt without the LoRA and with it, at every strength that the chosen checkpoint was drawn with."""
    config, best = run.config, candidates[chosen]
    drawn = [(c, p) for c, p in zip(candidates, pictures, strict=True) if c.step == best.step]
    drawn.sort(key=lambda row: row[0].strength)
    texts = [prompt.text for prompt in config.eval.prompts]
    rows = [("base, no LoRA", run.bench.base_images), *((f"LoRA at {c.strength:g}", p) for c, p in drawn)]
    held_against = [[""] * len(texts), *(marks(c.per_image, len(texts)) for c, _ in drawn)]
    found = f"style {best.style:.3f}  composition {best.composition:.3f}  at strength {best.strength:g}"
    title = "  ".join(filter(None, (*recipe_words(config), found)))
    save_sheet(contact_sheet(texts, rows, title, held_against), run.folder / SHEET)


def _plan(run: Run) -> Plan:
    plan = _made_plan(run)
    run.steps.say(captions_line(run.config, run.bench.examples))
    (run.folder / "plan.txt").write_text(f"{plan}\n", encoding="utf-8")
    warn(plan_warnings(run.config, run.bench.examples, plan), run.steps.say, run.folder, run.number)
    return plan


def _made_plan(run: Run) -> Plan:
    base = run.bench.base
    return make_plan(
        run.bench.examples, run.config.mix, scale=base.scale, step=base.step_px, seed=run.config.train.seed
    )


def _trained(run: Run) -> "Iterator[Checkpoint]":
    """The training's checkpoints, with losses and times noted, and the rungs between them seen to."""
    from trainer.loop import train

    config, plan = run.config, _made_plan(run)
    length = training_length(plan, config.train.budget)
    budget = length[1] if length else 0
    rungs = _rungs(run, plan)
    regular = {*checkpoint_steps(plan, config.train.budget, config.train.checkpoints)} if length else set()
    run.steps("train", 0, budget, "pictures seen")
    training = train(
        base=run.bench.base,
        examples=run.bench.examples,
        captions=config.captions,
        mix=config.mix,
        settings=config.train,
        folder=run.training,
        cache=run.bench.cache,
        held_out=read_examples(config.data.references) if config.train.validation else (),
        also_at=sorted(rungs),
        relatives=sorted(run.folder.parent.glob("*/training/*")),  # all of the study
        last_alone=config.eval.checkpoints == Checkpoints.last,
    )
    while True:
        began = time.perf_counter()
        checkpoint = next(training, None)
        took = time.perf_counter() - began
        if checkpoint is None:
            return
        trained = min(took, checkpoint.seconds)  # one read back from an earlier run took no time now
        run.clock.seconds["train"] += trained
        run.clock.seconds["encode"] += took - trained
        run.losses.extend(checkpoint.losses)
        run.watched.losses(checkpoint.losses, checkpoint.validation)
        seen = min(checkpoint.images_seen, budget) if budget else checkpoint.images_seen
        told = f"pictures seen, step {checkpoint.step}, loss {checkpoint.loss:.4f}"
        told += "" if checkpoint.validation is None else f", validation {checkpoint.validation:.4f}"
        run.steps("train", seen, budget or seen, told)
        if (part := rungs.get(checkpoint.step)) is not None and run.number is not None:
            at_rung(config, run.number, part, partial(_score_rung, run, checkpoint, part))
        if not regular or checkpoint.step in regular:
            yield checkpoint


def _rungs(run: Run, plan: Plan) -> dict[int, int]:
    """Step -> part of the budget, where the trial of a study is still to be scored on its way."""
    if run.number is None or run.config.search.stopping == Stopping.never:
        return {}

    def passed(rung: Rung) -> None:
        _tell_rung(run, rung, "as in a trial of another budget")

    return rungs_ahead(run.config, run.number, plan, passed)


def _score_rung(run: Run, checkpoint: "Checkpoint", part: int) -> Rung | None:
    """A few prompts at one strength; None where they are too few for the judge, which says nothing of the trial."""
    from metrics.images import ScoreError
    from trainer.sample import base_images, sample

    config = run.config
    chosen = few_of(config.eval.prompts, Group.unrelated)
    prompts = [config.eval.prompts[i] for i in chosen]
    strength = min(config.eval.strengths, key=lambda strength: abs(strength - 1))
    sampler = replace(config.sample, steps=fewer_steps(config.sample.steps))
    with run.clock.time("sample"):
        without = base_images(run.bench.base, prompts, sampler, cache=run.bench.cache)
        drawn = sample(run.bench.base, prompts, sampler, lora=checkpoint.lora, strength=strength)
    _refuse_diverged(drawn, checkpoint.step)
    try:
        with run.clock.time("score"):
            scores = run.bench.judge.score(drawn, without, prompts)
    except ScoreError as fault:
        run.steps.say(f"warning: not scored at 1/{part} of the budget: {fault}")
        return None
    constraints = {name: float(value) for name, value in scores.constraints.items()}
    rung = Rung(part, checkpoint.step, [float(scores.style), float(scores.composition)], constraints)
    _tell_rung(run, rung, f"{len(chosen)} prompts")
    return rung


def _tell_rung(run: Run, rung: Rung, how: str) -> None:
    style, composition = rung.values
    run.steps.say(f"at 1/{rung.part} of the budget, {how}: style {style:.3f}, composition {composition:.3f}")
    run.watched.rung(rung)


def _scored(which: Checkpoints, checkpoints: "Iterator[Checkpoint]") -> "Iterator[Checkpoint]":
    """Those that are scored: all as they come, or the last."""
    last = None
    for last in checkpoints:
        if which == Checkpoints.all:
            yield last
    if last is not None and which == Checkpoints.last:
        yield last


def _candidate(run: Run, checkpoint: "Checkpoint | GivenLora", strength: float) -> "tuple[Candidate, list[Tensor]]":
    from trainer.sample import sample

    config, prompts = run.config, run.config.eval.prompts
    after = f"step {checkpoint.step} " if checkpoint.step else ""
    run.steps("sample", 0, len(prompts), f"{after}at strength {strength:g}")
    with run.clock.time("sample"):
        drawn = sample(run.bench.base, prompts, config.sample, lora=checkpoint.lora, strength=strength)
    _refuse_diverged(drawn, checkpoint.step)
    with run.clock.time("score"):
        scores = run.bench.judge.score(drawn, run.bench.base_images, prompts)
    run.steps("score", len(prompts), len(prompts), f"style {scores.style:.3f}, composition {scores.composition:.3f}")
    candidate = Candidate(
        step=checkpoint.step,
        images_seen=checkpoint.images_seen,
        strength=strength,
        lora=str(
            checkpoint.lora.relative_to(run.folder) if checkpoint.lora.is_relative_to(run.folder) else checkpoint.lora
        ),
        style=float(scores.style),
        composition=float(scores.composition),
        constraints={name: float(value) for name, value in scores.constraints.items()},
        intervals=dict(scores.intervals),
        per_image=dict(scores.per_image),
        diagnostics={**scores.diagnostics, **_training_diagnostics(checkpoint)},
    )
    run.watched.candidate(candidate, config.eval.strengths)
    return candidate, drawn


def _refuse_diverged(drawn: "Sequence[Tensor]", step: int) -> None:
    # This trial's fault; to the judge it would be a fault of the input, which stops a sweep.
    if not all(bool(picture.isfinite().all()) for picture in drawn):
        raise RuntimeError(f"samples at step {step} are not finite: the training diverged")


def _training_diagnostics(checkpoint: "Checkpoint | GivenLora") -> dict[str, float]:
    """What the training measured of itself, where it did."""
    if isinstance(checkpoint, GivenLora):
        return {}
    found = {"validation_loss": checkpoint.validation, "peak_gb": checkpoint.peak_bytes / 1e9 or None}
    return {name: value for name, value in found.items() if value is not None}
