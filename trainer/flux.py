"""The frozen base: a FluxPipeline's parts, and what the trainer asks of them.

Text to embeddings, pictures to latents and back, noise, and one prediction: `FluxBase` is FLUX.1 and the interface that
another family overrides (`trainer.klein`). The sandbox's base and FLUX.1-dev run through the same lines; only `scale`
differs. The base is shared by all trials of a process and is never changed: adapters are plugged in and out by context
managers.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import ClassVar, NamedTuple

import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Generator, Tensor, nn

from trainer.cache import content_key
from trainer.conditioning import Conditioning
from trainer.flow import pack, picture_ids
from trainer.settings import BaseSettings, Quantize

TEXT_PARTS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
_REMEMBERED_TEXTS = 64  # 4 MB each with FLUX.1-dev


class Text(NamedTuple):
    """What the base reads of N texts."""

    tokens: Tensor  # (N, max_text_tokens, D), T5
    pooled: Tensor  # (N, P), CLIP; of width 0 where the family has none


class FluxBase:
    """A Flux ready for training and sampling. Weights are frozen; the VAE computes in float32, the rest in `dtype`."""

    # Layers that see no picture: those that noise level, guidance and texts go through, and those of the texts alone.
    _conditioned: ClassVar[Sequence[str]] = (
        r"time_text_embed|norm_out\.linear|.*blocks\.\d+\.norm1?(_context)?\.linear",
        "context_embedder",
    )

    def __init__(
        self, pipeline: DiffusionPipeline, settings: BaseSettings, ids: Mapping[str, str], device: torch.device
    ) -> None:
        self.pipeline = pipeline
        self.transformer = pipeline.transformer
        self.vae = pipeline.vae
        self.settings = settings
        self.device = device
        self.dtype = getattr(torch, settings.dtype)
        self.scale = settings.scale
        self.ids = ids  # component -> hash
        kept = [] if settings.quantize == Quantize.none else [settings.quantize]
        self.id = content_key(repr(sorted(ids.items())), settings.dtype, settings.max_text_tokens, *kept)
        encoders = [name for name in TEXT_PARTS if name in ids]
        self.text_id = content_key(*(ids[name] for name in encoders), settings.dtype, settings.max_text_tokens)
        self.vae_id = content_key(ids["vae"], "float32")
        self._texts: dict[str, Text] = {}
        self._places: dict[tuple[int, int], Tensor] = {}
        self._resident = "transformer"
        # Packed, moved or streamed weights mean that there is no room, and in compiled blocks nothing can stand in.
        whole = settings.quantize == Quantize.none and not (settings.offload or settings.group_offload)
        keeps = whole and not settings.compile
        self._conditioning = Conditioning(self.transformer, *self._conditioned) if keeps else None

    @property
    def architecture(self) -> str:
        """As model files name the family (ModelSpec)."""
        return "flux-1-dev" if self.transformer.config.guidance_embeds else "flux-1-schnell"

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
        kept = {text: self._texts.pop(text) for text in dict.fromkeys(texts) if text in self._texts}
        for text in dict.fromkeys(texts):
            if text not in kept:
                with self._on_device("text"):
                    kept[text] = self._encode_one(text)
        self._texts |= kept  # those asked for last are forgotten last, and never while they are asked for
        for text in list(self._texts)[: -max(_REMEMBERED_TEXTS, len(kept))]:
            del self._texts[text]
        found_all = [kept[text] for text in texts]
        return Text(torch.cat([text.tokens for text in found_all]), torch.cat([text.pooled for text in found_all]))

    def count_tokens(self, text: str) -> int:
        """Tokens of a text for the encoder that reads most of it, its own marks counted in."""
        tokenizer = getattr(self.pipeline, "tokenizer_2", None) or self.pipeline.tokenizer
        return len(tokenizer(text, verbose=False).input_ids)

    def _encode_one(self, text: str) -> Text:
        tokens, pooled, _ = self.pipeline.encode_prompt(
            prompt=[text], prompt_2=[text], device=self.device, max_sequence_length=self.settings.max_text_tokens
        )
        return Text(tokens, pooled)

    @torch.no_grad()
    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in [0, 1] to latents (N, C, H/f, W/f), float32: the mode, to be cacheable."""
        with self._on_device("vae"):
            latents = self.vae.encode(2 * pictures.to(self.device, torch.float32) - 1).latent_dist.mode()
        return self._normalised(latents)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (N, C, h, w) to pictures (N, 3, h f, w f) in [0, 1], float32."""
        with self._on_device("vae"):
            pictures = self.vae.decode(self._denormalised(latents.float())).sample
        return (pictures / 2 + 0.5).clamp(0, 1)

    def _normalised(self, latents: Tensor) -> Tensor:
        """What the transformer is shown of the VAE's latents."""
        return (latents - self.vae.config.shift_factor) * self.vae.config.scaling_factor

    def _denormalised(self, latents: Tensor) -> Tensor:
        return latents / self.vae.config.scaling_factor + self.vae.config.shift_factor

    def noise(self, size: tuple[int, int], generator: Generator) -> Tensor:
        """Packed noise (1, tokens, 4 C) for latents of that height and width, as the family's pipeline draws it."""
        return pack(torch.randn((1, self.latent_channels, *size), generator=generator))

    def predict(
        self,
        noisy: Tensor,
        sigma: Tensor,
        text: Text,
        size: tuple[int, int],
        guidance: float,
        *,
        again: tuple[float, tuple[str, ...]] | None = None,
    ) -> Tensor:
        """The velocity the model sees.

        Args:
            noisy: packed latents (N, tokens, 4 C).
            sigma: (N,) noise levels in (0, 1].
            size: height and width of the latents, px.
            guidance: fed to the guidance embedding where the base has one; 1 in training.
            again: the noise level of all and their texts in words, if these will be asked for again; what depends on
                nothing but them and guidance is then computed once.

        Returns:
            (N, tokens, 4 C), float32.
        """
        with self._on_device("transformer"), ExitStack() as stack:
            if again is not None and self._conditioning is not None:
                stack.enter_context(self._conditioning.once((again, guidance), again[1]))
            return self._velocity(noisy, sigma, text, size, guidance).float()

    def _velocity(self, noisy: Tensor, sigma: Tensor, text: Text, size: tuple[int, int], guidance: float) -> Tensor:
        time, strength = 1000 * sigma, torch.full_like(sigma, 1000 * guidance)
        embed: nn.Module = self.transformer.time_text_embed
        guided = bool(self.transformer.config.guidance_embeds)
        own = {"guidance": strength if guided else None, "pooled_projections": text.pooled.to(self.dtype)}
        with unrounded(embed, *((time, strength) if guided else (time,))):
            return self._transform(noisy, sigma, text, size, own)

    def _transform(
        self, noisy: Tensor, sigma: Tensor, text: Text, size: tuple[int, int], own: Mapping[str, Tensor | None]
    ) -> Tensor:
        """What the transformer makes of the inputs that all families have, and of the family's own."""
        velocity: Tensor = self.transformer(
            hidden_states=noisy.to(self.dtype),
            timestep=sigma,
            encoder_hidden_states=text.tokens.to(self.dtype),
            txt_ids=self._text_places(text.tokens.shape[1]),
            img_ids=self._picture_places(size),
            return_dict=False,
            **own,
        )[0]
        return velocity

    def mu(self, tokens: int, steps: int = 28) -> float:
        """Log of the shift that the sampler applies at that many picture tokens and steps (the pipeline's rule)."""
        config = self.pipeline.scheduler.config
        return calculate_shift(
            tokens,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )

    @contextmanager
    def _on_device(self, part: str) -> Iterator[None]:
        """Have the transformer, the VAE or the text encoders on the device; with `offload` in place of the others.

        They are exchanged when another is needed and not before, so that a run of pictures or texts moves them once.
        """
        if self.settings.offload and self._resident != part:
            for module in self._modules(self._resident):
                module.to("cpu")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            for module in self._modules(part):
                module.to(self.device)
            self._resident = part
        yield

    def _modules(self, part: str) -> list[nn.Module]:
        if part == "transformer":
            return [] if self.settings.group_offload else [self.transformer]  # streamed by its own hooks
        names = ("vae",) if part == "vae" else ("text_encoder", "text_encoder_2")
        return [getattr(self.pipeline, name) for name in names if getattr(self.pipeline, name, None) is not None]

    def _text_places(self, tokens: int) -> Tensor:
        return torch.zeros(tokens, 3, device=self.device)

    def _picture_places(self, size: tuple[int, int]) -> Tensor:
        if size not in self._places:
            self._places[size] = picture_ids(*size).to(self.device)
        return self._places[size]


@contextmanager
def unrounded(embedding: nn.Module, *values: Tensor) -> Iterator[None]:
    """Hand an embedding its first inputs as they are: the transformer rounds sigma and guidance to the weights' dtype,
    in bfloat16 to three digits, and the embedding computes its frequencies in float32.
    """
    hook = embedding.register_forward_pre_hook(lambda module, inputs: (*values, *inputs[len(values) :]))
    try:
        yield
    finally:
        hook.remove()
