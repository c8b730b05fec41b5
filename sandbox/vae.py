"""Stage `vae`: an AutoencoderKL of factor 4 with 16 latent channels, trained on every medium and on random textures.

It must know more than the base: a VAE that never saw hatching cannot draw it, and no LoRA could then learn it. The
gate (`psnr_by_medium`) therefore covers the media held out from the base.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F  # noqa: N812

from sandbox import checkpoint
from sandbox.media import MEDIA
from sandbox.world import draw, random_scene

SIDE = 64
CUT = 48  # px of the squares a step sees: the VAE is convolutional, and steps count for more than area
CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [24, 48, 96],
    "layers_per_block": 1,
    "latent_channels": 16,
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def texture(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """Random gratings, blobs and grain in random colours: (side, side, 3) uint8, so that the VAE knows no one style."""
    y, x = np.mgrid[:side, :side]
    field = np.zeros((side, side))
    for _ in range(rng.integers(1, 4)):
        angle, period = rng.uniform(0, np.pi), rng.uniform(2.5, 24)
        wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + rng.uniform(0, 6.3))
        field += wave * rng.uniform(0.3, 1) * (1 if rng.random() < 0.5 else 1 / (1 + np.exp(-(x - side / 2) / 6)))
    field += rng.normal(0, rng.uniform(0, 0.3), field.shape)
    t = 1 / (1 + np.exp(-field * rng.uniform(1, 6)))[..., None]
    return np.asarray((rng.random(3) * t + rng.random(3) * (1 - t)) * 255, dtype=np.uint8)


def pictures(count: int, seed: int) -> np.ndarray:
    """World pictures of every medium drawn at several sizes and one fifth textures: (count, 64, 64, 3) uint8."""
    rng = np.random.default_rng(seed)
    media = tuple(MEDIA)
    cut = np.empty((count, SIDE, SIDE, 3), dtype=np.uint8)
    for i in range(count):
        if rng.random() < 0.2:
            cut[i] = texture(rng)
            continue
        side = int(rng.choice((48, 64, 64, 96, 128)))
        picture = draw(random_scene(rng, medium=media[i % len(media)]), max(side, SIDE), max(side, SIDE))
        x, y = rng.integers(0, picture.shape[1] - SIDE + 1), rng.integers(0, picture.shape[0] - SIDE + 1)
        cut[i] = picture[y : y + SIDE, x : x + SIDE]
    return cut


def _batches(pool: torch.Tensor, batch: int, start: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches in [-1, 1], mirrored, turned and channel-shuffled; batch i depends on (seed, i) only."""
    step = start
    while True:
        g = torch.Generator().manual_seed(seed * 1_000_003 + step)
        x = pool[torch.randint(len(pool), (batch,), generator=g)].float().div(127.5).sub(1).permute(0, 3, 1, 2)
        left, top = torch.randint(SIDE - CUT + 1, (2,), generator=g)
        x = x[:, :, top : top + CUT, left : left + CUT]
        if torch.rand(1, generator=g) < 0.5:
            x = x.flip(3)
        if torch.rand(1, generator=g) < 0.3:
            x = x.transpose(2, 3)
        if torch.rand(1, generator=g) < 0.3:
            x = x[:, torch.randperm(3, generator=g)]
        yield x.contiguous(memory_format=torch.channels_last)
        step += 1


def _gradient_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.l1_loss(a.diff(dim=2), b.diff(dim=2)) + F.l1_loss(a.diff(dim=3), b.diff(dim=3))


def train(work: Path, *, steps: int, seed: int, batch: int = 16, peak_lr: float = 2e-3) -> AutoencoderKL:
    """Train (or continue) the VAE for `steps` steps in all and return it in evaluation mode."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(**CONFIG).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=peak_lr, betas=(0.9, 0.98), weight_decay=1e-4)
    start = 0
    if state := checkpoint.load(work / "vae.pt"):
        vae.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    if start < steps:
        pool = torch.from_numpy(pictures(4000, seed))
    for step, x in zip(range(start, steps), _batches(pool, batch, start, seed) if start < steps else (), strict=False):
        for group in optimiser.param_groups:
            group["lr"] = peak_lr * min(1, step / 100, (steps - step) / (0.4 * steps))
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample
        y = y.float()
        pixel = F.l1_loss(y, x) + 4 * F.mse_loss(y, x)
        loss = pixel + 0.5 * _gradient_loss(y, x) + 3e-6 * posterior.kl().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 99:
            psnr = -10 * torch.log10(F.mse_loss(y.clamp(-1, 1), x) / 4).item()
            print(f"vae step {step + 1}/{steps} loss {loss.item():.4f} psnr {psnr:.1f} dB", flush=True)
        if step % 500 == 499 or step == steps - 1:
            checkpoint.save(
                work / "vae.pt", {"model": vae.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            )
    return calibrate(vae.eval(), seed)


@torch.no_grad()
def calibrate(vae: AutoencoderKL, seed: int) -> AutoencoderKL:
    """Set shift and scaling factor so that latents of world pictures have mean 0 and deviation 1, as Flux's have."""
    x = torch.from_numpy(pictures(256, seed + 1)).float().div(127.5).sub(1).permute(0, 3, 1, 2)
    z = vae.encode(x).latent_dist.mode()
    vae.register_to_config(shift_factor=float(z.mean()), scaling_factor=float(1 / z.std()))
    return vae


@torch.no_grad()
def psnr_by_medium(vae: AutoencoderKL, *, count: int = 32, seed: int = 7, side: int = SIDE) -> dict[str, float]:
    """Peak signal-to-noise ratio in dB of reconstructed fresh pictures, per medium (pooled mean square error)."""
    found = {}
    for medium in MEDIA:
        rng = np.random.default_rng(seed)
        drawn = np.stack([draw(random_scene(rng, medium=medium), side, side) for _ in range(count)])
        x = torch.from_numpy(drawn).float().div(127.5).sub(1).permute(0, 3, 1, 2)
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        found[medium] = float(-10 * torch.log10(F.mse_loss(y, x) / 4))
    return found
