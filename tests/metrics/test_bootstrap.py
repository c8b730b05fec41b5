"""Intervals: they cover what they promise, keep pairs together and repeat exactly."""

from __future__ import annotations

import numpy as np
import pytest

from metrics.statistics import bootstrap_interval, prompt_means

OPTIONS = {"samples": 500, "confidence": 0.95, "seed": 0}


def test_prompt_means_keep_the_order_of_first_appearance():
    assert prompt_means(np.array([1.0, 5.0, 3.0]), ["b", "a", "b"]).tolist() == [2.0, 5.0]


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """V13: 24 prompts x 2 seeds, prompts carrying most of the variance; the bar is 92-98 %."""
    rng = np.random.default_rng(1)
    texts = [str(i // 2) for i in range(48)]
    hits = []
    for _ in range(400):
        values = np.repeat(rng.normal(0.4, 0.2, 24), 2) + rng.normal(0, 0.1, 48)
        low, high = bootstrap_interval(values, texts, **OPTIONS)
        hits.append(low <= 0.4 <= high)
    assert 0.92 <= np.mean(hits) <= 0.98


def test_seeds_of_one_prompt_are_resampled_together():
    """Twelve prompts of ten equal seeds say no more than twelve prompts."""
    values = np.random.default_rng(0).normal(size=12)
    one = bootstrap_interval(values, [str(i) for i in range(12)], **OPTIONS)
    many = bootstrap_interval(np.repeat(values, 10), [str(i // 10) for i in range(120)], **OPTIONS)
    assert many[1] - many[0] == pytest.approx(one[1] - one[0], rel=0.2)


def test_prompts_may_have_different_numbers_of_seeds():
    low, high = bootstrap_interval(np.array([0.0, 1.0, 1.0, 1.0]), ["a", "b", "b", "b"], **OPTIONS)
    assert (low, high) == (0.0, 1.0)


def test_the_same_seed_gives_the_same_interval_and_no_spread_gives_none():
    values, texts = np.random.default_rng(0).normal(size=20), [str(i) for i in range(20)]
    assert bootstrap_interval(values, texts, **OPTIONS) == bootstrap_interval(values, texts, **OPTIONS)
    assert bootstrap_interval(np.ones(20), texts, **OPTIONS) == (1.0, 1.0)
