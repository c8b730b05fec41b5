"""Failed pictures and line quality: corruptions are seen, styles are not called corruptions."""

from __future__ import annotations

import pytest
import torch
from scenes import Scene, draw, pictures, scene
from torch import Tensor

from metrics.images import gaussian_blur
from metrics.quality import failed, failure_score, line_quality, line_statistics, sanity


def noisy(picture: Tensor, amount: float) -> Tensor:
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(1))
    return (picture + amount * noise).clamp(0, 1)


def overexposed(picture: Tensor) -> Tensor:
    return (8 * (picture - float(picture.mean())) + 0.5).clamp(0, 1)


def blank(picture: Tensor) -> Tensor:
    return torch.full_like(picture, float(picture.mean()))


def blurred(picture: Tensor, sigma: float) -> Tensor:
    return gaussian_blur(picture[None], sigma)[0]


def faded(picture: Tensor, contrast: float) -> Tensor:
    return 0.5 + contrast * (picture - 0.5)


@pytest.mark.parametrize("style", ["hatch", "chalk", "halftone"])
def test_corruptions_fail_and_pictures_of_the_style_do_not(style):
    base, references = sanity(pictures("flat", range(24)), 64), sanity(pictures(style, range(500, 516)), 64)
    normal = [*base, *references]
    samples = pictures(style, range(24))
    assert failed(sanity(samples, 64), base, normal).mean() <= 0.05
    assert not failed(base, base, normal).any()
    for broken in (blank, overexposed, lambda p: noisy(p, 0.35)):
        assert failed(sanity([broken(p) for p in samples], 64), base, normal).mean() >= 0.9


@pytest.mark.parametrize("style", ["hatch", "chalk"])
def test_line_quality_is_one_without_change_and_high_on_the_way_to_the_style(style):
    base, styled = pictures("flat", range(16)), pictures(style, range(16))
    references = line_statistics(pictures(style, range(500, 516)), 64)
    before = line_statistics(base, 64)
    assert (line_quality(before, before, references) == 1).all()
    for share in (0.3, 0.6, 1.0):
        mixed = line_statistics([b * (1 - share) + s * share for b, s in zip(base, styled, strict=True)], 64)
        # A blend with an inverted picture has less contrast than both, rightly: hence not 0.9 on the way.
        assert line_quality(mixed, before, references).mean() >= (0.9 if share == 1.0 else 0.75)


@pytest.mark.parametrize("style", ["hatch", "chalk"])
def test_line_quality_falls_with_blur_and_noise_alike(style):
    """Two-sided: noise raises contrast and blur raises coherence, and both are worse."""
    base, styled = line_statistics(pictures("flat", range(16)), 64), pictures(style, range(16))
    references = line_statistics(pictures(style, range(500, 516)), 64)

    def quality(change) -> float:
        return line_quality(line_statistics([change(p) for p in styled], 64), base, references).mean()

    clean = quality(lambda p: p)
    assert clean > quality(lambda p: blurred(p, 1.0)) > quality(lambda p: blurred(p, 2.5))
    assert clean > quality(lambda p: noisy(p, 0.15)) > quality(lambda p: noisy(p, 0.3))
    assert quality(lambda p: faded(p, 0.2)) < clean - 0.15


def torn(picture: Tensor) -> Tensor:
    half = picture.shape[1] // 2
    return torch.cat([picture[:, :half], picture[:, half:].roll(21, dims=2)], 1)


def exchanged(picture: Tensor) -> Tensor:
    out = picture.clone()
    out[:, :16, :16], out[:, 24:40, 24:40] = picture[:, 24:40, 24:40], picture[:, :16, :16]
    return out


def crosses_the_middle(drawn: Scene) -> bool:
    """Whether a tear there goes through a thing; one through nothing but background leaves nothing to be seen."""
    return any(abs(thing.y - 0.5) < 0.6 * thing.radius for thing in drawn.things)


@pytest.mark.parametrize("style", ["hatch", "chalk"])
def test_a_tear_and_exchanged_parts_are_seen_through_the_style(style):
    middle = [seed for seed in range(60) if crosses_the_middle(scene(seed, 1 + seed % 3))][:24]
    known, samples = sanity(pictures("flat", middle), 64), pictures(style, middle)
    normal = [*known, *sanity(pictures(style, range(500, 516)), 64)]
    clean = failure_score(sanity(samples, 64), known, normal)
    for broken in (torn, exchanged):
        found = failure_score(sanity([broken(p) for p in samples], 64), known, normal)
        assert (found[:, None] > clean).mean() >= 0.9 and (found > 0).mean() >= 0.4 and not (clean > 0).any()


def test_what_the_base_image_shows_in_the_same_place_is_no_tear_and_what_it_moved_whole_is_none_either():
    """A base that draws a broken thing was not broken by the LoRA; without its word a break is no proof."""
    normal = sanity([*pictures("flat", range(24)), *pictures("hatch", range(500, 516))], 64)
    torn_before = sanity([torn(p) for p in pictures("flat", range(24))], 64)
    torn_after = sanity([torn(p) for p in pictures("hatch", range(24))], 64)
    assert failed(torn_after, torn_before, normal).mean() <= 0.05
    moved = [draw(scene(seed, 1).shifted(0.2), "hatch", 64, seed) for seed in range(24)]
    base = [draw(scene(seed, 1), "flat", 64, seed) for seed in range(24)]
    assert failed(sanity(moved, 64), sanity(base, 64), normal).mean() <= 0.05
