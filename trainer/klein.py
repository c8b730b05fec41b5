"""FLUX.2 klein: the second family, with another VAE, one text encoder and no guidance embedding.

Its VAE's 32 channels become 128 by 2 x 2 patches in the order of FLUX.1's packing, and are normalised there by the
statistics of a batch norm, so latents are kept unpatched and everything behind works on both families. The undistilled
base is guided by a second prediction without text.
"""

import torch
from torch import Generator, Tensor

from trainer.flow import pack, unpack
from trainer.flux import FluxBase, Text, unrounded


class KleinBase(FluxBase):
    """A FLUX.2 klein ready for training and sampling; see `FluxBase`."""

    # Not the text's projection: a guided step reads two texts.
    _conditioned = (r"time_guidance_embed\.timestep_embedder|.*_modulation(_img|_txt)?\.linear|norm_out\.linear",)

    @property
    def architecture(self) -> str:
        return "flux-2-klein"

    def _encode_one(self, text: str) -> Text:
        tokens, _ = self.pipeline.encode_prompt(
            prompt=[text], device=self.device, max_sequence_length=self.settings.max_text_tokens, **self._text_layers()
        )
        return Text(tokens, tokens.new_zeros(1, 0))

    def _text_layers(self) -> dict[str, tuple[int, ...]]:
        """The pipeline reads layers 9, 18 and 27 of 36; a smaller encoder is read at the same quarters."""
        layers = self.pipeline.text_encoder.config.num_hidden_layers
        return {} if layers >= 27 else {"text_encoder_out_layers": tuple(max(1, layers * n // 4) for n in (1, 2, 3))}

    def noise(self, size: tuple[int, int], generator: Generator) -> Tensor:
        height, width = size
        drawn = torch.randn((1, 4 * self.latent_channels, height // 2, width // 2), generator=generator)
        return drawn.flatten(2).transpose(1, 2).contiguous()

    def _normalised(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics()
        return unpack((pack(latents) - mean) / deviation, *latents.shape[2:])

    def _denormalised(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics()
        return unpack(pack(latents) * deviation + mean, *latents.shape[2:])

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each of a token's 4 C numbers."""
        norm = self.vae.bn
        mean, variance = norm.running_mean.to(self.device), norm.running_var.to(self.device)
        return mean, torch.sqrt(variance + self.vae.config.batch_norm_eps)

    def _velocity(self, noisy: Tensor, sigma: Tensor, text: Text, size: tuple[int, int], guidance: float) -> Tensor:
        asked = self._seen(noisy, sigma, text, size)
        if guidance <= 1 or self.pipeline.config.is_distilled:
            return asked
        without = self.encode_text([""])
        with self._on_device("transformer"):
            blind = self._seen(noisy, sigma, Text(without.tokens.expand_as(text.tokens), text.pooled), size)
        return blind + guidance * (asked - blind)

    def _seen(self, noisy: Tensor, sigma: Tensor, text: Text, size: tuple[int, int]) -> Tensor:
        with unrounded(self.transformer.time_guidance_embed.time_proj, 1000 * sigma):
            return self._transform(noisy, sigma, text, size, {"guidance": None})

    def mu(self, tokens: int, steps: int = 50) -> float:
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        return float(compute_empirical_mu(image_seq_len=tokens, num_steps=steps))

    def _text_places(self, tokens: int) -> Tensor:
        """(time, row, column, place in the text)."""
        places = torch.zeros(tokens, 4, device=self.device)
        places[:, 3] = torch.arange(tokens)
        return places

    def _picture_places(self, size: tuple[int, int]) -> Tensor:
        places = super()._picture_places(size)
        return torch.cat((places, places.new_zeros(len(places), 1)), dim=1)
