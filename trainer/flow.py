"""Rectified flow as FLUX.1 uses it: packing, noise levels, noising. Pure functions of tensors.

x is a picture's latent, n noise, sigma in (0, 1): the noisy latent is (1 - sigma) x + sigma n and the model predicts
the velocity n - x (Liu et al. 2022, arXiv 2209.03003; Esser et al. 2024, arXiv 2403.03206, for densities and shift).
"""

from collections.abc import Callable
from math import exp

import torch
from torch import Generator, Tensor

from trainer.settings import TimestepDensity


def pack(latents: Tensor) -> Tensor:
    """Turn every 2 x 2 patch into a token: (N, C, H, W) -> (N, H/2 * W/2, 4 C)."""
    n, c, h, w = latents.shape
    patches = latents.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)  # (N, H/2, W/2, C, 2, 2)
    return patches.reshape(n, h // 2 * (w // 2), 4 * c)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo `pack`; height and width are the latents': (N, H/2 * W/2, 4 C) -> (N, C, H, W)."""
    n, _, channels = tokens.shape
    patches = tokens.reshape(n, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(n, channels // 4, height, width)


def picture_ids(height: int, width: int) -> Tensor:
    """Places (0, row, column) of the tokens of a latent of that height and width: (H/2 * W/2, 3)."""
    rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    return torch.stack((torch.zeros_like(rows), rows, columns), dim=-1).reshape(-1, 3).float()


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """s sigma / (1 + (s - 1) sigma): more noise for s > 1 (arXiv 2403.03206, eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def _sigmoid(normal: Tensor, shift: float, mu: float) -> Tensor:
    return torch.sigmoid(normal)


def _shift(normal: Tensor, shift: float, mu: float) -> Tensor:
    return shift_sigma(torch.sigmoid(normal), shift)


def _flux_shift(normal: Tensor, shift: float, mu: float) -> Tensor:
    return shift_sigma(torch.sigmoid(normal), exp(mu))


def _uniform(normal: Tensor, shift: float, mu: float) -> Tensor:
    return torch.special.ndtr(normal)  # the normal's own distribution function


# All densities are maps of the same normal numbers, so that trainings which differ in density share their randomness.
DENSITIES: dict[TimestepDensity, Callable[[Tensor, float, float], Tensor]] = {
    TimestepDensity.sigmoid: _sigmoid,
    TimestepDensity.shift: _shift,
    TimestepDensity.flux_shift: _flux_shift,
    TimestepDensity.uniform: _uniform,
    TimestepDensity.logit_normal: _sigmoid,  # of normal numbers with a mean and deviation of their own
}


def draw_sigmas(
    density: TimestepDensity,
    count: int,
    generator: Generator,
    *,
    shift: float,
    mu: float,
    mean: float = 0.0,
    std: float = 1.0,
) -> Tensor:
    """Noise levels (count,) in (0, 1), float32.

    Args:
        shift: of the density `shift`.
        mu: log of the shift of the density `flux_shift`, from the number of tokens.
        mean, std: of the density `logit_normal` (arXiv 2403.03206, eq. 19).
    """
    eps = torch.finfo(torch.float32).eps
    normal = torch.randn(count, generator=generator)
    if density == TimestepDensity.logit_normal:
        normal = mean + std * normal
    return DENSITIES[density](normal, shift, mu).clamp(eps, 1 - eps)


def add_noise(x: Tensor, n: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy latents (1 - sigma) x + sigma n and the velocity n - x; sigma is (N,)."""
    s = sigma.reshape(-1, *[1] * (x.ndim - 1))
    return (1 - s) * x + s * n, n - x
