"""Samples: FluxPipeline's mathematics, batched over prompts, with or without a LoRA.

The noise of a prompt comes from its seed and size alone, as with `FluxPipeline(generator=torch.Generator()
.manual_seed(seed))`, so a sample and its base image start from the same noise whatever they are batched with. Sums in
a matrix product may be ordered by the batch's size; that is why base images are cached by batch, and a LoRA that
changes nothing gives bit-equal images.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from trainer.base import BaseError
from trainer.cache import TensorCache, content_key
from trainer.export import LoraError, peft_adapter, read_lora
from trainer.flow import unpack
from trainer.flux import FluxBase
from trainer.lora import LoraLinear, plugged_in
from trainer.peft_layers import load_layers
from trainer.products import FrozenLinear
from trainer.settings import Prompt, Quantize, SampleSettings

_VERSION = 2  # of the sampler's mathematics: raise it when pictures change


class SamplingError(RuntimeError):
    """Pictures cannot be drawn with these settings on this device; the message says what to change."""


def sample(
    base: FluxBase,
    prompts: Sequence[Prompt],
    settings: SampleSettings,
    *,
    lora: Path | None = None,
    strength: float = 1.0,
) -> list[Tensor]:
    """Draw a picture for each prompt.

    Args:
        lora: a LoRA file in the PEFT layout or kohya's; None, or strength 0: the base.
        strength: scale the LoRA is applied with.

    Returns:
        (3, H, W) float32 in [0, 1] on the CPU, in the order of the prompts.

    Raises:
        BaseError: a size that the base cannot draw.
        LoraError: a file that is no LoRA, or does not fit the base.
        SamplingError: the device's memory is full.
    """
    pictures: dict[int, Tensor] = {}
    batches = _batches(base, prompts, settings.batch_size)
    # Each part of an offloaded base comes to the device once: encoders, then the transformer, then the VAE.
    base.encode_text([prompt.text for prompt in prompts])
    with _applied(base, lora, strength):
        drawn = [_draw(base, [prompts[index] for index in indices], settings) for indices in batches]
    for indices, latents in zip(batches, drawn, strict=True):
        pictures.update(zip(indices, _decode(base, latents, settings), strict=True))
    return [pictures[index] for index in range(len(prompts))]


def base_images(base: FluxBase, prompts: Sequence[Prompt], settings: SampleSettings, *, cache: Path) -> list[Tensor]:
    """The samples without a LoRA, computed once for a list of prompts and then read from the cache."""
    store = TensorCache(cache)
    pictures: dict[int, Tensor] = {}
    for indices in _batches(base, prompts, settings.batch_size):
        batch = [prompts[index] for index in indices]
        asked = [(prompt.text, prompt.seed, prompt.width, prompt.height) for prompt in batch]
        key = content_key(
            *(_VERSION, base.id, base.scale, settings.steps, settings.guidance, repr(asked)),
            *(("cpu", torch.get_num_threads()) if base.device.type == "cpu" else (base.device.type,)),
        )
        found = store.load("base_images", key)
        if found is None:
            base.encode_text([prompt.text for prompt in prompts])
            found = {"pictures": torch.stack(_decode(base, _draw(base, batch, settings), settings))}
            store.store("base_images", key, found)
        pictures.update(zip(indices, found["pictures"], strict=True))
    return [pictures[index] for index in range(len(prompts))]


def _batches(base: FluxBase, prompts: Sequence[Prompt], batch_size: int) -> list[list[int]]:
    """Indices of prompts of equal size, in batches."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_size.setdefault(_pixels(base, prompt), []).append(index)
    return [
        indices[start : start + batch_size]
        for indices in by_size.values()
        for start in range(0, len(indices), batch_size)
    ]


def _pixels(base: FluxBase, prompt: Prompt) -> tuple[int, int]:
    """Height and width in px of the base."""
    height, width = round(prompt.height * base.scale), round(prompt.width * base.scale)
    if not height or not width or height % base.step_px or width % base.step_px:
        unit = base.step_px / base.scale
        raise BaseError(
            f"prompt `{prompt.text}`: width and height must be multiples of {unit:g} for this base,"
            f" got {prompt.width}x{prompt.height}"
        )
    return height, width


def _draw(base: FluxBase, prompts: Sequence[Prompt], settings: SampleSettings) -> Tensor:
    """Latents of prompts of one size."""
    with _fitting(len(prompts), settings), torch.no_grad():
        height, width = (edge // base.vae_factor for edge in _pixels(base, prompts[0]))
        noise = [base.noise((height, width), torch.Generator().manual_seed(prompt.seed)) for prompt in prompts]
        x = torch.cat(noise).to(base.device)
        words = tuple(prompt.text for prompt in prompts)
        text = base.encode_text(words)
        sigmas = sampler_sigmas(base, settings.steps, x.shape[1])
        for sigma, following in pairwise(sigmas):
            levels, again = sigma.repeat(len(x)).to(x.device), (sigma.item(), words)
            velocity = base.predict(x, levels, text, (height, width), settings.guidance, again=again)
            x = x + (following - sigma).item() * velocity  # Euler step of dx/dsigma = n - x
        return unpack(x, height, width)


def _decode(base: FluxBase, latents: Tensor, settings: SampleSettings) -> list[Tensor]:
    with _fitting(len(latents), settings):
        return list(base.decode(latents).cpu())


@contextmanager
def _fitting(pictures: int, settings: SampleSettings) -> Iterator[None]:
    """Say what to lower where the device's memory is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SamplingError(
            f"out of memory while {pictures} pictures were drawn at once: lower `sample.batch_size`"
            f" ({settings.batch_size}), or choose memory=24gb, 16gb or 12gb"
        ) from error


def sampler_sigmas(base: FluxBase, steps: int, tokens: int) -> Tensor:
    """Noise levels (steps + 1,), from 1 to 0, as FluxPipeline sets them for that many picture tokens."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(base.pipeline.scheduler.config)
    if scheduler.config.get("use_flow_sigmas"):
        scheduler.set_timesteps(steps, mu=base.mu(tokens, steps))
    else:
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=base.mu(tokens, steps))
    return scheduler.sigmas


@contextmanager
def _applied(base: FluxBase, lora: Path | None, strength: float) -> Iterator[None]:
    """Have a LoRA file act in the base; nothing of it is left afterwards."""
    if lora is None or strength == 0:
        yield
        return
    layers: dict[str, nn.Module] = {}
    special = peft_adapter(lora)
    if special is not None:
        try:
            layers = load_layers(base.transformer, *special, strength)
        except (AttributeError, KeyError, RuntimeError) as error:
            raise LoraError(f"{lora} does not fit this base: {error}") from error
    else:
        for name, (down, up) in read_lora(lora).items():
            linear = _linear(base, name, (up.shape[0], down.shape[1]), Path(lora))
            down, up = down.float().to(base.device), up.float().to(base.device)
            whole = base.dtype == torch.float32 and base.settings.quantize == Quantize.none
            if whole and base.device.type == "cpu" and type(linear) in (nn.Linear, FrozenLinear):
                layers[name] = _merged(cast(nn.Linear, linear), down, up, strength)
            else:
                layers[name] = LoraLinear(linear, down, up, strength)
    with plugged_in(base.transformer, layers):
        yield


@torch.no_grad()
def _merged(linear: nn.Linear, down: Tensor, up: Tensor, strength: float) -> nn.Linear:
    """A layer of its own that holds the sum: a tenth faster on a CPU, where small products cost more than they compute.

    Not in bfloat16, where a small LoRA would be rounded away, and not on a card, whose memory it might not fit.
    """
    layer = type(linear)(linear.in_features, linear.out_features, bias=False, device="meta")
    layer.weight = nn.Parameter(torch.addmm(linear.weight, up, down, alpha=strength), requires_grad=False)
    layer.bias = linear.bias
    return layer


def _linear(base: FluxBase, name: str, shape: tuple[int, int], lora: Path) -> nn.Module:
    """The layer of the base that a LoRA's layer of shape (out, in) belongs to."""
    try:
        linear = base.transformer.get_submodule(name)
        found = linear.out_features, linear.in_features
    except AttributeError as error:
        raise LoraError(f"{lora} does not fit this base, which has no layer {name}") from error
    if found != shape:
        raise LoraError(f"{lora} does not fit this base: {name} is {found[0]}x{found[1]}, not {shape[0]}x{shape[1]}")
    return linear
