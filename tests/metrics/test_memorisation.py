"""Memorisation: copies are found at their true rate, new pictures of the style are not copies."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scenes import pictures
from torch import Tensor

from metrics.memorisation import copies, expected_nearest, memorisation_gap
from metrics.perceptual import Lpips, lpips_distances


def test_the_expected_nearest_is_the_mean_over_all_subsets():
    distances = np.random.default_rng(0).uniform(size=(3, 6))
    for count in (1, 3, 6):
        brute = np.mean([distances[:, list(some)].min(1) for some in combinations(range(6), count)], axis=0)
        assert expected_nearest(distances, count) == pytest.approx(brute)


def test_a_larger_training_set_alone_opens_no_gap():
    rng = np.random.default_rng(0)
    gap = memorisation_gap(rng.uniform(size=(4000, 40)), rng.uniform(size=(4000, 10)))
    assert gap.mean() == pytest.approx(0, abs=0.005)


def jittered(picture: Tensor, seed: int) -> Tensor:
    """A copy as a model makes it: a little noise, a little lighter."""
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed))
    return (0.97 * picture + 0.02 + 0.015 * noise).clamp(0, 1)


@pytest.mark.parametrize("style", ["hatch", "chalk", "flat"])
def test_copies_are_found_at_their_true_rate_and_new_pictures_are_none(style, lpips_file):
    """V9 with an LPIPS-form of untrained trunk: distances of random features are enough for near-copies."""
    model = Lpips(str(lpips_file))
    training = pictures(style, range(900, 930))
    references = model.vectors(pictures(style, range(500, 524)))
    seen = model.vectors(training)
    usual = lpips_distances(references, seen).numpy()
    for rate in (0.0, 0.25, 1.0):
        copied = int(24 * rate)
        mixed = [jittered(p, i) for i, p in enumerate(training[:copied])] + pictures(style, range(24 - copied))
        near = lpips_distances(model.vectors(mixed), seen).numpy()
        assert copies(near, usual, share=0.4).mean() == pytest.approx(rate, abs=0.05)
        gap = memorisation_gap(near, lpips_distances(model.vectors(mixed), references).numpy())
        if rate == 1.0:
            assert gap.mean() > 0.2 * np.median(usual.min(1))


@pytest.mark.parametrize("style", ["hatch", "chalk"])
@pytest.mark.parametrize("count", [8, 12, 20, 30])
def test_small_training_sets_raise_no_more_false_alarms_than_large_ones(style, count, lpips_file):
    model = Lpips(str(lpips_file))
    seen = model.vectors(pictures(style, range(900, 900 + count)))
    usual = lpips_distances(model.vectors(pictures(style, range(500, 524))), seen).numpy()
    near = lpips_distances(model.vectors(pictures(style, range(60))), seen).numpy()
    assert copies(near, usual, share=0.4).mean() <= 0.05


def test_what_the_base_draws_by_itself_is_no_copy():
    usual = np.full((5, 3), 1.0)
    near = np.array([[0.1, 1.0, 1.0], [0.1, 1.0, 1.0], [0.3, 1.0, 1.0]])
    base = np.array([[0.1, 1.0, 1.0], [0.9, 1.0, 1.0], [0.9, 1.0, 1.0]])  # the first is as near without the LoRA
    assert copies(near, usual, share=0.4, base_to_training=base).tolist() == [False, True, True]
