"""The frozen base: a FluxPipeline's parts, and the four things the trainer asks of them.

Text to embeddings, pictures to latents and back, and one prediction. The sandbox's base and FLUX.1-dev run through
the same lines; only `scale` differs. The base is shared by all trials of a process and is never changed: adapters are
plugged in and out by context managers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from trainer.attention import CpuAttention
from trainer.base import BaseError, component_ids
from trainer.cache import content_key
from trainer.flow import picture_ids
from trainer.settings import BaseSettings

_REMEMBERED_TEXTS = 64  # 4 MB each with FLUX.1-dev


class Text(NamedTuple):
    """What the base reads of N texts."""

    tokens: Tensor  # (N, max_text_tokens, D), T5
    pooled: Tensor  # (N, P), CLIP


class FluxBase:
    """A Flux ready for training and sampling. Weights are frozen; the VAE computes in float32, the rest in `dtype`."""

    def __init__(
        self, pipeline: FluxPipeline, settings: BaseSettings, ids: dict[str, str], device: torch.device
    ) -> None:
        self.pipeline = pipeline
        self.transformer = pipeline.transformer
        self.vae = pipeline.vae
        self.settings = settings
        self.device = device
        self.dtype = getattr(torch, settings.dtype)
        self.scale = settings.scale
        self.ids = ids  # component -> hash
        self.id = content_key(repr(sorted(ids.items())), settings.dtype, settings.max_text_tokens)
        self.text_id = content_key(
            *(ids[name] for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")),
            settings.dtype,
            settings.max_text_tokens,
        )
        self.vae_id = content_key(ids["vae"], "float32")
        self._texts: dict[str, Text] = {}
        self._places: dict[tuple[int, int], Tensor] = {}

    @property
    def vae_factor(self) -> int:
        """Picture px per latent px."""
        return int(self.pipeline.vae_scale_factor)

    @property
    def step_px(self) -> int:
        """Picture px per token edge: sizes must be multiples of it."""
        return 2 * self.vae_factor

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Text:
        """Embeddings of texts, each computed by itself so that they do not depend on their neighbours."""
        for text in texts:
            if text not in self._texts:
                with self._resident(self.pipeline.text_encoder), self._resident(self.pipeline.text_encoder_2):
                    tokens, pooled, _ = self.pipeline.encode_prompt(
                        prompt=[text],
                        prompt_2=[text],
                        device=self.device,
                        max_sequence_length=self.settings.max_text_tokens,
                    )
                if len(self._texts) >= _REMEMBERED_TEXTS:
                    self._texts.pop(next(iter(self._texts)))
                self._texts[text] = Text(tokens, pooled)
        found = [self._texts[text] for text in texts]
        return Text(torch.cat([text.tokens for text in found]), torch.cat([text.pooled for text in found]))

    @torch.no_grad()
    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [0, 1] to latents (N, C, H/f, W/f), float32: the mode, to be cacheable."""
        config = self.vae.config
        with self._resident(self.vae):
            latents = self.vae.encode(2 * pictures.to(self.device, torch.float32) - 1).latent_dist.mode()
        return (latents - config.shift_factor) * config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) to pictures (N, 3, h f, w f) in [0, 1], float32."""
        config = self.vae.config
        with self._resident(self.vae):
            pictures = self.vae.decode(latents.float() / config.scaling_factor + config.shift_factor).sample
        return (pictures / 2 + 0.5).clamp(0, 1)

    def predict(self, noisy: Tensor, sigma: Tensor, text: Text, size: tuple[int, int], guidance: float) -> Tensor:
        """The velocity the model sees.

        Args:
            noisy: packed latents (N, tokens, 4 C).
            sigma: (N,) noise levels in (0, 1].
            size: height and width of the latents, px.
            guidance: fed to the guidance embedding where the base has one; 1 in training.

        Returns:
            (N, tokens, 4 C), float32.
        """
        time, strength = 1000 * sigma, torch.full_like(sigma, 1000 * guidance)
        embed: nn.Module = self.transformer.time_text_embed
        guided = bool(self.transformer.config.guidance_embeds)

        # The transformer rounds sigma to the weights' dtype, in bfloat16 to three digits. The hook hands the exact
        # value to the embedding, which computes its frequencies in float32.
        def exact(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (time, strength, inputs[-1]) if guided else (time, inputs[-1])

        hook = embed.register_forward_pre_hook(exact)
        try:
            velocity = self.transformer(
                hidden_states=noisy.to(self.dtype),
                timestep=sigma,
                guidance=strength if guided else None,
                pooled_projections=text.pooled.to(self.dtype),
                encoder_hidden_states=text.tokens.to(self.dtype),
                txt_ids=self._text_places(text.tokens.shape[1]),
                img_ids=self._picture_places(size),
                return_dict=False,
            )[0]
        finally:
            hook.remove()
        return velocity.float()

    def mu(self, tokens: int) -> float:
        """Log of the shift that the sampler applies at that many picture tokens (FluxPipeline's rule)."""
        config = self.pipeline.scheduler.config
        return calculate_shift(
            tokens,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )

    @contextmanager
    def _resident(self, module: nn.Module) -> Iterator[None]:
        """Have a module on the device; with `offload` it goes back to main memory afterwards."""
        if not self.settings.offload:
            yield
            return
        module.to(self.device)
        try:
            yield
        finally:
            module.to("cpu")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _text_places(self, tokens: int) -> Tensor:
        return torch.zeros(tokens, 3, device=self.device)

    def _picture_places(self, size: tuple[int, int]) -> Tensor:
        if size not in self._places:
            self._places[size] = picture_ids(*size).to(self.device)
        return self._places[size]


def open_flux(folder: Path, settings: BaseSettings) -> FluxBase:
    """Load a folder that `trainer.base.find_base` has found complete."""
    device = _device(settings.device)
    torch.set_num_threads(settings.threads or 1)
    with _quiet():
        dtypes = {"default": getattr(torch, settings.dtype), "vae": torch.float32}
        pipeline = FluxPipeline.from_pretrained(str(folder), dtype=dtypes, local_files_only=True)
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        module = getattr(pipeline, name)
        module.requires_grad_(False).eval()
        if name == "transformer" or not settings.offload:
            module.to(device)
    if device.type == "cpu":
        pipeline.transformer.set_attn_processor(CpuAttention())
    return FluxBase(pipeline, settings, component_ids(folder), device)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BaseError(f"`base.device` must be auto, cpu, cuda or cuda:N, got {name}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BaseError(f"`base.device`={name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading prints seven progress bars; give back what the user had set."""
    shown = [logging for logging in (diffusers_logging, transformers_logging) if logging.is_progress_bar_enabled()]
    for logging in shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in shown:
            logging.enable_progress_bar()
