"""The mathematics of rectified flow, against exact numbers and against diffusers."""

from math import exp

import pytest
import torch
from diffusers import FluxPipeline
from hypothesis import given
from hypothesis import strategies as st

from trainer.flow import add_noise, draw_sigmas, pack, picture_ids, shift_sigma, unpack
from trainer.settings import TimestepDensity

EDGES = st.integers(1, 6).map(lambda n: 2 * n)


@given(n=st.integers(1, 3), channels=st.integers(1, 4), height=EDGES, width=EDGES)
def test_unpack_undoes_pack_and_both_are_those_of_diffusers(n: int, channels: int, height: int, width: int) -> None:
    x = torch.arange(n * channels * height * width, dtype=torch.float32).reshape(n, channels, height, width)
    packed = pack(x)
    assert torch.equal(unpack(packed, height, width), x)
    assert torch.equal(packed, FluxPipeline._pack_latents(x, n, channels, height, width))


def test_places_are_those_of_diffusers() -> None:
    theirs = FluxPipeline._prepare_latent_image_ids(1, 3, 5, torch.device("cpu"), torch.float32)
    assert torch.equal(picture_ids(6, 10), theirs)


def test_noise_and_velocity_meet_at_the_ends() -> None:
    x, n = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    noisy, velocity = add_noise(x, n, torch.tensor([0.0, 1.0]))
    assert torch.equal(noisy[0], x[0]) and torch.equal(noisy[1], n[1])
    assert torch.equal(velocity, n - x)
    halfway, _ = add_noise(x, n, torch.tensor([0.5, 0.25]))
    assert torch.allclose(halfway - torch.tensor([0.5, 0.25])[:, None, None] * velocity, x, atol=1e-6)


@pytest.mark.parametrize(
    ("density", "median"),
    [
        (TimestepDensity.sigmoid, 0.5),
        (TimestepDensity.uniform, 0.5),
        (TimestepDensity.shift, 3.0 / 4.0),
        (TimestepDensity.flux_shift, exp(1.15) / (1 + exp(1.15))),
    ],
)
def test_each_density_has_its_median_inside_0_1(density: TimestepDensity, median: float) -> None:
    sigma = draw_sigmas(density, 20_000, torch.Generator().manual_seed(0), shift=3.0, mu=1.15)
    assert sigma.min() > 0 and sigma.max() < 1
    assert sigma.median().item() == pytest.approx(median, abs=0.02)


def test_uniform_is_uniform() -> None:
    sigma = draw_sigmas(TimestepDensity.uniform, 20_000, torch.Generator().manual_seed(0), shift=1.0, mu=0.0)
    assert torch.histc(sigma, 10, 0, 1).div(2000).sub(1).abs().max() < 0.1


def test_densities_share_their_randomness() -> None:
    draws = {
        density: draw_sigmas(density, 50, torch.Generator().manual_seed(1), shift=2.0, mu=0.5)
        for density in TimestepDensity
    }
    orders = {tuple(sigma.argsort().tolist()) for sigma in draws.values()}
    assert len(orders) == 1


@given(sigma=st.floats(0.01, 0.99), shift=st.floats(0.1, 10))
def test_shifting_back_gives_sigma(sigma: float, shift: float) -> None:
    there = shift_sigma(torch.tensor(sigma, dtype=torch.float64), shift)
    assert shift_sigma(there, 1 / shift).item() == pytest.approx(sigma)
