"""Intervals: they cover what they promise, keep pairs together and repeat exactly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from metrics.settings import ScoreSettings
from metrics.statistics import (
    Ruler,
    bootstrap_interval,
    common_pairs,
    compare,
    holm,
    paired_difference,
    prompt_means,
    statistic_of,
    training_ruler,
)

OPTIONS = {"samples": 400, "confidence": 0.95, "seed": 0}


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


def trained(rng, mean: float, trainings: int, *, prompts: np.ndarray, training_sd: float = 0.05) -> np.ndarray:
    """(R, 48) values of a recipe on common prompts, two seeds each, every training a little different."""
    of_training = rng.normal(0, training_sd, (trainings, 1))
    return mean + of_training + np.repeat(prompts, 2)[None] + rng.normal(0, 0.05, (trainings, 48))


TEXTS = [str(i // 2) for i in range(48)]


def test_the_interval_of_a_recipe_covers_the_truth_with_three_trainings():
    """V13 with the training level: 3 trainings of one recipe, no ruler from elsewhere."""
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(200):
        values = trained(rng, 0.4, 3, prompts=rng.normal(0, 0.2, 24), training_sd=0.1)
        low, high = bootstrap_interval(values, TEXTS, **OPTIONS)
        hits.append(low <= 0.4 <= high)
    assert 0.92 <= np.mean(hits) <= 0.98


def test_without_a_difference_p_values_are_uniform():
    """V13: two recipes that are one, two trainings each."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(150):
        prompts = rng.normal(0, 0.2, 24)
        first, second = (trained(rng, 0.4, 2, prompts=prompts) for _ in range(2))
        found.append(paired_difference(first, second, TEXTS, **OPTIONS).p)
    assert kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) < 0.05) <= 0.08


def test_pairing_takes_the_prompts_out_of_a_difference():
    rng = np.random.default_rng(4)
    prompts = rng.normal(0, 0.5, 24)
    values = [np.repeat(prompts, 2) + mean + rng.normal(0, 0.05, 48) for mean in (0.6, 0.5)]
    found = paired_difference(*values, TEXTS, **OPTIONS)
    assert found.value == pytest.approx(0.1, abs=0.03)
    assert 0 < found.low < found.value < found.high < 0.2 and found.p < 0.01 and not found.tie
    alone = [bootstrap_interval(v, TEXTS, **OPTIONS) for v in values]
    assert alone[1][1] > alone[0][0]  # unpaired, the two intervals overlap


def test_a_difference_below_the_noise_ruler_is_a_tie():
    first, second = np.full(48, 0.55), np.full(48, 0.5)
    assert not paired_difference(first, second, TEXTS, **OPTIONS).tie
    found = paired_difference(first, second, TEXTS, ruler=Ruler(sd=0.03, df=8), **OPTIONS)
    assert found.tie and found.ruler == pytest.approx(2.306 * 0.03 * 2**0.5, rel=1e-3)
    many = paired_difference([first] * 8, [second] * 8, TEXTS, ruler=Ruler(sd=0.03, df=8), **OPTIONS)
    assert not many.tie and many.ruler == pytest.approx(2.306 * 0.03 / 2, rel=1e-3)


def test_the_ruler_is_pooled_over_recipes_and_needs_one_that_was_repeated():
    assert training_ruler([[0.1, 0.3], [0.9], [0.5, 0.5, 0.8]]) == Ruler(pytest.approx((0.08 / 3) ** 0.5), 3)
    assert training_ruler([[0.1], [0.9]]) is None


def test_a_training_that_was_not_repeated_borrows_the_ruler():
    values = np.random.default_rng(0).normal(size=48)
    alone = bootstrap_interval(values, TEXTS, **OPTIONS)
    borrowed = bootstrap_interval(values, TEXTS, ruler=Ruler(sd=1.0, df=6), **OPTIONS)
    assert borrowed[1] - borrowed[0] > 3 * (alone[1] - alone[0])


def test_only_common_prompts_and_seeds_are_paired():
    assert common_pairs([("a", 1), ("a", 2), ("b", 1)], [("b", 1), ("a", 1)]) == ([0, 2], [1, 0])
    with pytest.raises(ValueError, match="nothing can be compared"):
        common_pairs([("a", 1)], [("a", 2)])
    with pytest.raises(ValueError, match="`second` has a prompt and seed twice"):
        common_pairs([("a", 1)], [("a", 1), ("a", 1)])
    with pytest.raises(ValueError, match="one value for each of the 3 texts, got 3 and 2"):
        paired_difference([1, 2, 3], [1, 2], ["a", "b", "c"])


def test_holm_is_what_the_paper_says():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_comparing_many_candidates_with_one_keeps_the_family_wise_error():
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(40):
        prompts = rng.normal(0, 0.2, 24)
        equal = {str(i): trained(rng, 0.4, 2, prompts=prompts) for i in range(5)}
        alarms += any(not difference.tie for difference in compare(equal, TEXTS, against="0", **OPTIONS).values())
    assert alarms <= 5


def test_a_better_candidate_is_found_among_equal_ones():
    rng = np.random.default_rng(6)
    prompts = rng.normal(0, 0.2, 24)
    candidates = {str(i): trained(rng, 0.4, 3, prompts=prompts, training_sd=0.02) for i in range(3)}
    candidates["best"] = trained(rng, 0.55, 3, prompts=prompts, training_sd=0.02)
    found = compare(candidates, TEXTS, against="best", **OPTIONS)
    assert set(found) == {"0", "1", "2"}
    assert all(not difference.tie and difference.low > 0 for difference in found.values())


def test_the_style_objective_is_what_is_resampled():
    gains = np.linspace(0, 2, 48)
    statistic = statistic_of("style", ScoreSettings())
    low, high = bootstrap_interval(gains, TEXTS, statistic=statistic, **OPTIONS)
    assert high < 1.1  # capped, and the weakest quarter counted in
    assert low < bootstrap_interval(gains, TEXTS, **OPTIONS)[0]
