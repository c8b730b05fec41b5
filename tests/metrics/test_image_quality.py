"""Failed pictures and line quality: corruptions are seen, styles are not called corruptions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import pictures
from torch import Tensor

from metrics.images import gaussian_blur
from metrics.quality import failed, line_quality, line_statistics, sanity_statistics


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
    base, references = pictures("flat", range(16)), pictures(style, range(500, 516))
    normal = np.concatenate([sanity_statistics(base, 64), sanity_statistics(references, 64)])
    samples = pictures(style, range(24))
    assert failed(sanity_statistics(samples, 64), normal).mean() <= 0.05
    assert not failed(sanity_statistics(base, 64), normal).any()
    for broken in (blank, overexposed, lambda p: noisy(p, 0.35)):
        assert failed(sanity_statistics([broken(p) for p in samples], 64), normal).mean() >= 0.9


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
