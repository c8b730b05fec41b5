"""Style strength and gain: rank, monotony, tail, and what must not count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import Medium, other_styles, pictures
from scipy.stats import spearmanr

from metrics.descriptor import describe
from metrics.images import ScoreError
from metrics.statistics import style_objective
from metrics.style import StyleSpace, Whitening, style_gain

STYLES = ["hatch", "chalk", "halftone"]


def space(style: str) -> StyleSpace:
    references = describe(pictures(style, range(500, 516)), 64)
    return StyleSpace.fit(references, describe(other_styles(style), 64), whitening=Whitening.features)


def gain(view: StyleSpace, samples: list, base: list) -> np.ndarray:
    after, before = view.sigma(describe(samples, 64)), view.sigma(describe(base, 64))
    return style_gain(after, before, base_level=before.mean(), ceiling=view.ceiling, range_at_least=0.5)


@pytest.mark.parametrize("medium", list(Medium))
def test_other_content_in_the_same_style_is_nearer_than_the_same_content_in_another(medium):
    """V1, by the descriptor alone."""
    seeds = range(300, 320)
    view = space(medium)
    unit = {m: view.unit(describe(pictures(m, seeds), 64)) for m in Medium}
    apart = ~torch.eye(len(seeds), dtype=torch.bool)
    style_mates = (unit[medium] @ unit[medium].T)[apart].view(len(seeds), -1)
    wins = [(style_mates > (unit[medium] * unit[o]).sum(1)[:, None]).float().mean() for o in Medium if o != medium]
    assert float(torch.stack(wins).mean()) >= 0.95


@pytest.mark.parametrize("style", STYLES)
def test_the_gain_is_zero_without_change_and_one_at_the_references(style):
    view, base = space(style), pictures("flat", range(16))
    assert (gain(view, base, base) == 0).all()
    assert gain(view, pictures(style, range(16)), base).mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("style", STYLES)
def test_the_gain_rises_with_every_step_towards_the_style(style):
    """V2: pixels blended from the flat picture to the styled one."""
    view, base, styled = space(style), pictures("flat", range(12)), pictures(style, range(12))
    steps = np.linspace(0, 1, 9)
    gains = [gain(view, [b * (1 - a) + s * a for b, s in zip(base, styled, strict=True)], base).mean() for a in steps]
    assert spearmanr(steps, gains).statistic >= 0.95


@pytest.mark.parametrize("style", STYLES)
def test_moving_things_is_no_style(style):
    view = space(style)
    moved = gain(view, pictures("flat", range(1000, 1024)), pictures("flat", range(24)))
    assert moved.mean() == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("style", STYLES)
def test_another_style_is_less_than_half_of_this_one(style):
    view, base = space(style), pictures("flat", range(16))
    for other in Medium:
        if other not in (style, Medium.flat):
            assert gain(view, pictures(other, range(16)), base).mean() < 0.5


def test_a_style_the_base_already_draws_is_refused():
    view = space("hatch")
    drawn = pictures("hatch", range(16))
    with pytest.raises(ScoreError, match=r"style cannot be measured.*style_range_at_least"):
        gain(view, drawn, drawn)


def test_the_weakest_quarter_counts_twice():
    even, uneven = np.full(8, 0.5), np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    options = {"tail_weight": 0.3, "tail_share": 0.25}
    assert style_objective(even, **options) == pytest.approx(0.5)
    assert style_objective(uneven, **options) == pytest.approx(0.35)  # 0.7 * 0.5 + 0.3 * 0


def test_the_objective_takes_many_resamples_at_once():
    gains = np.random.default_rng(0).normal(size=(5, 12))
    options = {"tail_weight": 0.3, "tail_share": 0.25}
    assert style_objective(gains, **options) == pytest.approx([float(style_objective(row, **options)) for row in gains])


def test_a_picture_is_not_its_own_neighbour_in_the_pool():
    pool = describe(pictures("flat", range(10)), 64)
    view = StyleSpace.fit(describe(pictures("hatch", range(500, 510)), 64), pool, whitening=Whitening.features)
    others = ~torch.eye(10, dtype=torch.bool)
    assert (view.sigma(pool, others) > view.sigma(pool)).all()


def test_identical_style_vectors_score_best_and_opposite_ones_worst():
    style, other = torch.tensor([[1.0, 0.2], [1.0, -0.2]] * 3), torch.tensor([[-1.0, 0.2], [-1.0, -0.2]] * 3)
    view = StyleSpace.fit(style, other, whitening=Whitening.none)
    best, middle, worst = view.sigma(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    assert best > middle > worst
