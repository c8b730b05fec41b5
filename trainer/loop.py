"""Training as a generator: whoever iterates gets checkpoints, and stops asking when it is enough.

Rectified flow with target n - x and guidance 1. Every random choice is a function of (seed, step), so two
trainings that differ in one setting share the rest of their randomness, and a continued one repeats nothing.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from trainer.budget import budget_shares, checkpoint_steps, images, training_length
from trainer.cache import TensorCache
from trainer.captions import caption, check_captions, possible_captions
from trainer.checkpoints import Checkpoint, TrainingFolder
from trainer.encoding import Texts, encode_examples, encode_masks
from trainer.examples import DatasetError, Example
from trainer.flow import add_noise, draw_sigmas, pack
from trainer.flux import FluxBase
from trainer.lora import Lora
from trainer.loss import packed_masks, picture_losses
from trainer.memory import activations_recomputed, forget_peak, out_of_memory_advice, peak_bytes
from trainer.metadata import lora_metadata
from trainer.optimizers import OPTIMIZERS, read_memory, write_memory
from trainer.plan import Batch, Plan, make_plan
from trainer.seeds import derive_seed
from trainer.settings import CaptionSettings, MixSettings, TrainSettings
from trainer.validation import validation_loss

_EPOCHS_AHEAD, _TEXTS_AHEAD = 64, 1024  # encoded before the first step


class TrainingError(RuntimeError):
    """The training cannot go on: its loss is no number, memory or disk are full. The message says what to change; the
    checkpoints made so far stay as they are."""


@dataclass(frozen=True)
class _Job:
    """What a training is made of, prepared."""

    base: FluxBase
    examples: Sequence[Example]
    captions: CaptionSettings
    settings: TrainSettings
    plan: Plan
    folder: TrainingFolder
    cache: TensorCache
    metadata: Mapping[str, str]
    mix: MixSettings = field(default_factory=MixSettings)
    held_out: Sequence[Example] = ()
    also_at: Sequence[int] = ()
    relatives: Sequence[Path] = ()
    last_alone: bool = False


def train(
    *,
    base: FluxBase,
    examples: Sequence[Example],
    captions: CaptionSettings,
    mix: MixSettings,
    settings: TrainSettings,
    folder: Path,
    cache: Path,
    held_out: Sequence[Example] = (),
    also_at: Sequence[int] = (),
    relatives: Sequence[Path] = (),
    last_alone: bool = False,
) -> Iterator[Checkpoint]:
    """Train a LoRA; yield `settings.checkpoints` checkpoints, evenly spaced in the budget, the last at its end.

    Checkpoints already in `folder` are yielded as they are, and the training goes on from the newest state, bit-equal
    to one that was never interrupted. A longer budget continues a shorter one. Between checkpoints the base
    is as it was.

    Args:
        folder: this training's own; see `trainer.checkpoints`.
        cache: shared by any number of trainings.
        held_out: pictures that the validation loss is read on, if the settings ask for it; none: the examples.
        also_at: further steps after which a checkpoint is yielded; none of them changes the others. Left aside where
            the budget is in seconds, and those that a relative has passed: going back would cost what it saves.
        relatives: folders of other trainings. One that differs in its budget alone is not repeated: its checkpoints up
            to this one's end are taken over, and yielded, and this one goes on from its state.
        last_alone: no checkpoint is needed but the last: those that a relative has passed are left aside as well.

    Raises:
        DatasetError: captions missing that the strategy needs, or pictures that fit no bucket.
        ResumeError: the folder holds another training.
        TrainingError: while iterating, if the loss is not finite, or memory or disk are full.
    """
    check_captions(examples, captions)
    plan = make_plan(examples, mix, scale=base.scale, step=base.step_px, seed=settings.seed)
    identity = _identity(base, examples, captions, mix, settings)
    metadata = lora_metadata(
        captions=captions,
        mix=mix,
        settings=settings,
        plan=plan,
        identity=identity,
        architecture=base.architecture,
    )
    store, tensors = TrainingFolder(Path(folder), identity), TensorCache(cache)
    job = _Job(
        base,
        examples,
        captions,
        settings,
        plan,
        store,
        tensors,
        metadata,
        mix,
        held_out or examples,
        also_at,
        relatives,
        last_alone,
    )
    return _checkpoints(job) if settings.budget.seconds is None else _timed_checkpoints(job)


def _checkpoints(job: _Job) -> Iterator[Checkpoint]:
    ends = checkpoint_steps(job.plan, job.settings.budget, job.settings.checkpoints)
    needed = ends[-1:] if job.last_alone else ends
    job.folder.take_over(job.relatives, needed)
    # All that is there is yielded: a checkpoint tells the losses since the one before it.
    there = job.folder.steps()
    further = (step for step in (*ends, *job.also_at) if step > max(there, default=0))
    ends = sorted({*needed, *(step for step in (*there, *further) if step < needed[-1])})
    done = 0
    while done < len(ends) and (checkpoint := job.folder.read(ends[done])):
        yield checkpoint
        done += 1
    if done == len(ends):
        return
    trainee = _trainee(job)
    trainee.resume(at_most=ends[done])
    for end in ends[done:]:
        yield trainee.advance(steps=end)


def _timed_checkpoints(job: _Job) -> Iterator[Checkpoint]:
    """As long as the budget's seconds last, those of earlier runs counted in."""
    spent = 0.0
    for step in job.folder.steps():
        checkpoint = job.folder.read(step)
        if checkpoint is not None and spent < job.settings.budget.amount:
            spent += checkpoint.seconds
            yield checkpoint
    shares = [s for s in budget_shares(job.plan, job.settings.budget, job.settings.checkpoints) if s > spent]
    if not shares:
        return
    trainee = _trainee(job)
    trainee.resume(at_most=max(job.folder.steps(), default=0))
    for share in shares:
        if share > spent:
            checkpoint = trainee.advance(seconds=share - spent)
            spent += checkpoint.seconds
            yield checkpoint


def _trainee(job: _Job) -> "_Trainee":
    try:
        return _Trainee(job)
    except torch.OutOfMemoryError as error:
        advice = out_of_memory_advice(job.base, job.settings, job.plan)
        raise TrainingError(f"out of memory while pictures and captions were encoded: {advice}") from error


class _Trainee:
    """A LoRA on its way through the plan."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        base, settings = job.base, job.settings
        self.accelerator = Accelerator(cpu=base.device.type == "cpu", mixed_precision="no")
        if self.accelerator.num_processes > 1:
            raise TrainingError(
                "one training runs in one process: start several trainings instead of `accelerate launch`"
            )
        forget_peak(base.device)  # of the trainings before this one on the same base
        self.latents = encode_examples(base, job.examples, job.plan, job.cache)
        self.masks = encode_masks(base, job.examples, job.plan, job.cache)
        self.texts = Texts(base, job.cache)
        self.count_tokens = lru_cache(maxsize=4096)(base.count_tokens)
        self.texts.prepare(_captions_ahead(job))
        self.validate: Callable[[], float] | None = None
        if settings.validation:
            self.validate = validation_loss(
                base, job.held_out, job.captions, job.mix, levels=settings.validation, cache=job.cache
            )
        self.lora = Lora(base.transformer, settings.lora, settings.seed, base.device)
        self.weights = list(self.lora.parameters.values())
        self.optimizer = self.accelerator.prepare_optimizer(
            OPTIMIZERS[settings.optimizer.name](self.weights, settings.optimizer), device_placement=False
        )
        self.average = {n: w.detach().clone() for n, w in self.lora.parameters.items()} if settings.ema else None
        self.step = self.images_seen = 0
        self.schedule = job.plan.steps(math.inf)  # endless: no random choice knows the budget

    def resume(self, at_most: int) -> None:
        """Go to the newest state in the folder, if there is one."""
        found = self.job.folder.newest_state(at_most)
        if found is None:
            return
        self.step, state = found
        self.lora.load(state)
        write_memory(self.optimizer.optimizer, self.lora.parameters, state)
        if self.average is not None:
            for name, average in self.average.items():
                average.copy_(state[f"average.{name}"])
        self.images_seen = sum(images(batches) for _, batches in islice(self.schedule, self.step))

    def state(self) -> dict[str, Tensor]:
        """All that `resume` needs."""
        averages = {f"average.{name}": tensor.cpu() for name, tensor in (self.average or {}).items()}
        return self.lora.state() | averages | read_memory(self.optimizer.optimizer, self.lora.parameters)

    def advance(self, *, steps: float = math.inf, seconds: float = math.inf) -> Checkpoint:
        """Train up to and with that step, or for that long, and make a checkpoint; by one step at least."""
        start = time.perf_counter()
        losses: list[float] = []
        validation = None
        with self.lora.plugged_in(), activations_recomputed(self.job.base.transformer, self.job.settings):
            try:
                while not losses or (self.step < steps and time.perf_counter() - start < seconds):
                    losses.append(self._train_step(*next(self.schedule)))
                if self.validate is not None:
                    self.lora.keep_ranks()
                    with self.lora.standing_in(self.average):
                        validation = self.validate()
            except torch.OutOfMemoryError as error:
                raise TrainingError(self._too_large()) from error
        took, loss = time.perf_counter() - start, sum(losses) / len(losses)
        draft = self.job.folder.draft()
        peak = peak_bytes(self.job.base.device)
        return self._write(Checkpoint(self.step, self.images_seen, loss, draft, losses, took, validation, peak))

    def _write(self, checkpoint: Checkpoint) -> Checkpoint:
        """Have a checkpoint on disk, the LoRA and what `resume` needs, or leave the disk as it was."""
        draft = checkpoint.lora
        try:
            with self.lora.standing_in(self.average):
                self.lora.write(draft, self._metadata())
            self.job.folder.write(checkpoint, self.state())
        except OSError as error:
            shutil.rmtree(draft.parent, ignore_errors=True)
            raise TrainingError(
                f"the checkpoint at step {self.step} could not be written ({error}); {self._kept()}"
            ) from error
        made = self.job.folder.read(self.step)
        assert made is not None
        return made

    def _metadata(self) -> dict[str, str]:
        return {**self.job.metadata, "ss_steps": str(self.step), "ss_images_seen": str(self.images_seen)}

    def _kept(self) -> str:
        """What is left of a training that ends here."""
        steps = self.job.folder.steps()
        return f"the checkpoint at step {steps[-1]} is kept" if steps else "there is no earlier checkpoint"

    def _too_large(self) -> str:
        advice = out_of_memory_advice(self.job.base, self.job.settings, self.job.plan)
        return f"out of memory after step {self.step}: {advice}; {self._kept()}"

    def _train_step(self, epoch: int, batches: list[Batch]) -> float:
        """One optimiser step over one or more batches, as if they were one large batch."""
        settings = self.job.settings.optimizer
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (self.step + 1) / max(1, settings.warmup_steps))
        generator = torch.Generator().manual_seed(derive_seed("noise", self.job.settings.seed, self.step))
        dropout = torch.Generator().manual_seed(derive_seed("rank_dropout", self.job.settings.seed, self.step))
        count, total = images(batches), 0.0
        for batch in batches:
            self.lora.drop_ranks(len(batch.indices), dropout)
            loss = self._loss(batch, epoch, generator).sum() / count
            self.accelerator.backward(loss)
            total += loss.item()
        length = self.accelerator.clip_grad_norm_(self.weights, settings.max_grad_norm or math.inf)
        # A loss may be a number and its gradient none: stepped with, it would spoil the weights of this checkpoint.
        for what, value in (("loss", total), ("gradient's length", float(length))):
            if not math.isfinite(value):
                raise TrainingError(
                    f"the {what} is {value} at step {self.step + 1}: lower `train.optimizer.learning_rate`"
                    f" ({settings.learning_rate}) or set `train.optimizer.max_grad_norm` ({settings.max_grad_norm});"
                    f" {self._kept()}"
                )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.images_seen += count
        self._average()
        return total

    def _average(self) -> None:
        """Let the average follow the weights; in the first steps it follows faster."""
        if self.average is not None:
            keep = min(self.job.settings.ema, (1 + self.step) / (10 + self.step))
            for name, average in self.average.items():
                average.lerp_(self.lora.parameters[name].detach(), 1 - keep)

    def _loss(self, batch: Batch, epoch: int, generator: torch.Generator) -> Tensor:
        """Loss of each picture's velocity, (N,)."""
        base, settings = self.job.base, self.job.settings
        x = torch.stack([self.latents[batch.side, index] for index in batch.indices])  # (N, C, h, w)
        height, width = x.shape[2:]
        mu = base.mu(height * width // 4)
        sigma = draw_sigmas(
            settings.timesteps,
            len(x),
            generator,
            shift=settings.shift,
            mu=mu,
            mean=settings.logit_mean,
            std=settings.logit_std,
        ).to(base.device)
        n = torch.randn(x.shape, generator=generator).to(base.device)
        noisy, velocity = add_noise(pack(x), pack(n), sigma)
        visits = [derive_seed("visit", self.step, batch.side, place) for place in range(len(batch.indices))]
        texts = self.texts([self._caption(*each, epoch) for each in zip(batch.indices, visits, strict=True)])
        predicted = base.predict(noisy, sigma, texts, (height, width), guidance=1.0)
        weight = packed_masks(self.masks, batch.side, batch.indices, x)
        return picture_losses(settings.loss, predicted - velocity, delta=settings.huber_delta, weight=weight)

    def _caption(self, index: int, visit: int, epoch: int) -> str:
        example, seed = self.job.examples[index], self.job.settings.seed
        return caption(example, self.job.captions, epoch=epoch, seed=seed, visit=visit, count=self.count_tokens)


def _captions_ahead(job: _Job) -> list[str]:
    """The texts that the training will ask for, as far as they can be known: each once, at most 1,024."""
    length = training_length(job.plan, job.settings.budget)
    epochs = job.plan.epochs(length[1]) if length else _EPOCHS_AHEAD
    texts = dict.fromkeys(
        text
        for epoch in range(min(epochs, _EPOCHS_AHEAD) if job.captions.shuffle_tags else 1)
        for example in job.examples
        for text in possible_captions(
            example, job.captions, epoch=epoch, seed=job.settings.seed, count=job.base.count_tokens
        )
    )
    return list(texts)[:_TEXTS_AHEAD]


def _identity(
    base: FluxBase,
    examples: Sequence[Example],
    captions: CaptionSettings,
    mix: MixSettings,
    settings: TrainSettings,
) -> dict[str, Any]:
    """All that decides the weights at a step: settings without the budget, the files' contents, the base."""
    train = asdict(settings)
    for key in ("budget", "checkpoints"):
        train.pop(key)
    files = {e.path.name: [_digest(e.path), e.captions, e.tags, dict(e.given)] for e in examples}
    masks = {e.path.name: _digest(e.mask) for e in examples if e.mask is not None}
    if len(files) < len(examples):
        raise DatasetError("two training pictures have the same file name")
    return {
        "base": base.id,
        "scale": base.scale,
        "captions": asdict(captions),
        "mix": asdict(mix),
        **train,
        "files": files,
        "masks": masks,
    }


def _digest(file: Path) -> str:
    return blake2b(file.read_bytes(), digest_size=8).hexdigest()
