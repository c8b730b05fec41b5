"""Training as a generator: whoever iterates gets checkpoints, and stops asking when it is enough.

Rectified flow with target n - x, plain MSE and guidance 1. Every random choice is a function of (seed, step), so two
trainings that differ in one setting share the rest of their randomness, and a continued one repeats nothing.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from trainer.cache import TensorCache
from trainer.captions import caption, check_captions
from trainer.checkpoints import Checkpoint, TrainingFolder
from trainer.encoding import Texts, encode_examples
from trainer.examples import DatasetError, Example
from trainer.flow import add_noise, draw_sigmas, pack
from trainer.flux import FluxBase
from trainer.lora import Lora
from trainer.metadata import lora_metadata
from trainer.plan import Batch, Plan, make_plan
from trainer.seeds import derive_seed
from trainer.settings import CaptionSettings, MixSettings, OptimizerSettings, TrainSettings


class TrainingError(RuntimeError):
    """The training cannot go on, mostly since its loss is no longer a number; the message says what to change."""


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


def train(
    *,
    base: FluxBase,
    examples: Sequence[Example],
    captions: CaptionSettings,
    mix: MixSettings,
    settings: TrainSettings,
    folder: Path,
    cache: Path,
) -> Iterator[Checkpoint]:
    """Train a LoRA; yield `settings.checkpoints` checkpoints, evenly spaced in pictures seen, the last at the budget.

    Checkpoints already in `folder` are yielded as they are, and the training goes on from the newest state, bit-equal
    to one that was never interrupted. A longer budget continues a shorter one. Between checkpoints the base
    is as it was.

    Args:
        folder: this training's own; see `trainer.checkpoints`.
        cache: shared by any number of trainings.

    Raises:
        DatasetError: captions missing that the strategy needs, or pictures that fit no bucket.
        ResumeError: the folder holds another training.
        TrainingError: while iterating, if the loss is not finite.
    """
    check_captions(examples, captions)
    plan = make_plan(examples, mix, scale=base.scale, step=base.step_px, seed=settings.seed)
    identity = _identity(base, examples, captions, mix, settings)
    metadata = lora_metadata(captions=captions, mix=mix, settings=settings, plan=plan, identity=identity)
    job = _Job(
        base, examples, captions, settings, plan, TrainingFolder(Path(folder), identity), TensorCache(cache), metadata
    )
    return _checkpoints(job)


def _checkpoints(job: _Job) -> Iterator[Checkpoint]:
    ends = checkpoint_steps(job.plan, job.settings.budget.images_seen, job.settings.checkpoints)
    done = 0
    while done < len(ends) and (checkpoint := job.folder.read(ends[done])):
        yield checkpoint
        done += 1
    if done == len(ends):
        return
    trainee = _Trainee(job)
    trainee.resume(at_most=ends[done])
    for end in ends[done:]:
        yield trainee.advance(end)


def checkpoint_steps(plan: Plan, images_seen: int, checkpoints: int) -> list[int]:
    """The steps after which a checkpoint is made: the first at or past each even share of the budget."""
    shares = [math.ceil(images_seen * share / checkpoints) for share in range(1, checkpoints + 1)]
    ends, seen = [], 0
    for step, (_, batches) in enumerate(plan.steps(images_seen), start=1):
        seen += _count(batches)
        if seen >= shares[0]:
            ends.append(step)
            shares = [share for share in shares if share > seen]
        if not shares:
            break
    return ends


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
        self.latents = encode_examples(base, job.examples, job.plan, job.cache)
        self.texts = Texts(base, job.cache)
        self.lora = Lora(base.transformer, settings.lora, settings.seed)
        self.weights = list(self.lora.parameters.values())
        self.optimizer = self.accelerator.prepare_optimizer(
            _adamw(self.weights, settings.optimizer), device_placement=False
        )
        self.step = self.images_seen = 0
        self.schedule = job.plan.steps(2**62)  # endless: no random choice knows the budget

    def resume(self, at_most: int) -> None:
        """Go to the newest state in the folder, if there is one."""
        found = self.job.folder.newest_state(at_most)
        if found is None:
            return
        self.step, state = found
        self.lora.load(state)
        for name, weight in self.lora.parameters.items():
            self.optimizer.state[weight] = {
                "step": torch.tensor(float(self.step), device=weight.device),
                "exp_avg": state[f"{name}.exp_avg"].to(weight.device),
                "exp_avg_sq": state[f"{name}.exp_avg_sq"].to(weight.device),
            }
        self.images_seen = sum(_count(batches) for _, batches in islice(self.schedule, self.step))

    def state(self) -> dict[str, Tensor]:
        """All that `resume` needs."""
        state = self.lora.state()
        for name, weight in self.lora.parameters.items():
            for average in ("exp_avg", "exp_avg_sq"):
                state[f"{name}.{average}"] = self.optimizer.state[weight][average].cpu()
        return state

    def advance(self, end: int) -> Checkpoint:
        """Train up to and with step `end` and make its checkpoint."""
        start, losses = time.perf_counter(), []
        with self.lora.plugged_in(), _memory_saved(self.job):
            while self.step < end:
                losses.append(self._train_step(*next(self.schedule)))
        draft = self.job.folder.draft()
        self.lora.write(
            draft, {**self.job.metadata, "ss_steps": str(self.step), "ss_images_seen": str(self.images_seen)}
        )
        loss, seconds = sum(losses) / len(losses), time.perf_counter() - start
        checkpoint = Checkpoint(self.step, self.images_seen, loss, draft, losses, seconds)
        self.job.folder.write(checkpoint, self.state())
        made = self.job.folder.read(end)
        assert made is not None
        return made

    def _train_step(self, epoch: int, batches: list[Batch]) -> float:
        """One optimiser step over one or more batches, as if they were one large batch."""
        settings = self.job.settings.optimizer
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (self.step + 1) / max(1, settings.warmup_steps))
        generator = torch.Generator().manual_seed(derive_seed("noise", self.job.settings.seed, self.step))
        count, total = _count(batches), 0.0
        for batch in batches:
            loss = self._loss(batch, epoch, generator).sum() / count
            self.accelerator.backward(loss)
            total += loss.item()
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss is {total} at step {self.step + 1}: lower `optimizer.learning_rate`"
                f" ({settings.learning_rate}) or set `optimizer.max_grad_norm` ({settings.max_grad_norm})"
            )
        if settings.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.weights, settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.images_seen += count
        return total

    def _loss(self, batch: Batch, epoch: int, generator: torch.Generator) -> Tensor:
        """Mean squared error of each picture's velocity, (N,)."""
        base, settings = self.job.base, self.job.settings
        x = torch.stack([self.latents[batch.side, index] for index in batch.indices])  # (N, C, h, w)
        height, width = x.shape[2:]
        mu = base.mu(height * width // 4)
        sigma = draw_sigmas(settings.timesteps, len(x), generator, shift=settings.shift, mu=mu).to(base.device)
        n = torch.randn(x.shape, generator=generator).to(base.device)
        noisy, velocity = add_noise(pack(x), pack(n), sigma)
        texts = self.texts([self._caption(index, epoch) for index in batch.indices])
        predicted = base.predict(noisy, sigma, texts, (height, width), guidance=1.0)
        return (predicted - velocity).square().mean(dim=(1, 2))

    def _caption(self, index: int, epoch: int) -> str:
        return caption(self.job.examples[index], self.job.captions, epoch=epoch, seed=self.job.settings.seed)


def _adamw(weights: Sequence[Tensor], settings: OptimizerSettings) -> torch.optim.AdamW:
    low, high = settings.betas
    return torch.optim.AdamW(
        weights, lr=settings.learning_rate, betas=(low, high), weight_decay=settings.weight_decay, fused=True
    )


def _count(batches: Sequence[Batch]) -> int:
    return sum(len(batch.indices) for batch in batches)


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
    files = {
        e.path.name: [blake2b(e.path.read_bytes(), digest_size=8).hexdigest(), e.captions, e.tags] for e in examples
    }
    if len(files) < len(examples):
        raise DatasetError("two training pictures have the same file name")
    return {
        "base": base.id,
        "scale": base.scale,
        "captions": asdict(captions),
        "mix": asdict(mix),
        **train,
        "files": files,
    }


@contextmanager
def _memory_saved(job: _Job) -> Iterator[None]:
    """Recompute activations in the backward pass, if the settings ask for it."""
    if not job.settings.gradient_checkpointing:
        yield
        return
    job.base.transformer.enable_gradient_checkpointing()
    try:
        yield
    finally:
        job.base.transformer.disable_gradient_checkpointing()
