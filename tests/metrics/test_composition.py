"""Composition on drawn scenes whose layout is known: restyle, move, shift; and the metrics that must fail at it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import Medium, draw, pictures, scene
from scipy.stats import spearmanr
from torch import Tensor

from metrics.composition import Floor, composition, distance_matrix, null_distance, redrawn_distances
from metrics.images import ScoreError, gaussian_blur
from metrics.perceptual import Lpips, lpips_distances
from metrics.structure import Layouts, canonical_size, distances, layout

SEEDS = range(16)
TEXTS = [str(seed) for seed in SEEDS]


def kept(base: list[Tensor], samples: list[Tensor], dose: float = 1.0) -> np.ndarray:
    """Composition per picture, read between the floor of the flat pictures and the null of these."""
    matrix = distance_matrix(Layouts(base), Layouts(samples))
    return composition(matrix.diagonal(), null=null_distance(matrix, TEXTS[: len(base)]), floor=flat_floor(), dose=dose)


@cache
def flat_floor() -> Floor:
    return Floor.of([redrawn_distances(image) for image in pictures("flat", SEEDS)])


def rank(drawn: dict[tuple[Medium, Medium], np.ndarray], medium: Medium) -> float:
    """V5: how often the same layout in another medium is nearer than another layout in the same medium."""
    wins = []
    count = len(drawn[medium, medium])
    apart = ~np.eye(count, dtype=bool)
    for other in Medium:
        if other is not medium:
            same = drawn[medium, other].diagonal()[:, None]
            wins.append(float((same < drawn[medium, medium][apart].reshape(count, count - 1)).mean()))
    return float(np.mean(wins))


@pytest.fixture(scope="module")
def sheets() -> dict[Medium, list[Tensor]]:
    return {medium: pictures(medium, SEEDS) for medium in Medium}


@pytest.fixture(scope="module")
def structure(sheets: dict[Medium, list[Tensor]]) -> dict[tuple[Medium, Medium], np.ndarray]:
    size = canonical_size(sheets[Medium.flat][0])
    drawn = {medium: layout(sheet, size) for medium, sheet in sheets.items()}
    return {(a, b): distances(drawn[a], drawn[b]).numpy() for a in Medium for b in Medium}


def test_an_unchanged_picture_keeps_exactly_all_of_its_composition(sheets):
    for medium in Medium:
        for dose in (-0.3, 0.0, 0.4, 1.2):
            assert (kept(sheets[medium], sheets[medium], dose) == 1.0).all()


def test_the_same_layout_in_another_medium_is_nearer_than_another_layout_in_the_same(structure):
    found = {medium: rank(structure, medium) for medium in Medium}
    assert np.mean(list(found.values())) >= 0.95
    assert min(found[m] for m in (Medium.flat, Medium.hatch, Medium.chalk)) >= 0.97
    assert min(found.values()) >= 0.88  # halftone dots of 4 px are the hardest


@pytest.mark.parametrize(("medium", "least"), [("hatch", 0.85), ("chalk", 0.85), ("outline", 0.85), ("halftone", 0.6)])
def test_restyling_alone_keeps_composition(sheets, medium, least):
    assert kept(sheets[Medium.flat], sheets[Medium(medium)]).mean() >= least


@pytest.mark.parametrize("medium", ["flat", "hatch", "chalk"])
def test_another_layout_has_no_composition_left(sheets, medium):
    assert kept(sheets[Medium.flat], pictures(medium, range(1000, 1016))).mean() == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize("medium", ["flat", "hatch", "chalk"])
def test_composition_falls_with_every_px_that_things_move(sheets, medium):
    shifts = [0, 2, 4, 8, 16, 24]  # px of 96
    moved = [[draw(scene(s, 1 + s % 3).shifted(px / 96), medium, 64, s) for s in SEEDS] for px in shifts]
    means = [kept(sheets[Medium.flat], some, dose=float(medium != "flat")).mean() for some in moved]
    assert spearmanr(shifts, means).statistic <= -0.9


@pytest.mark.parametrize("medium", ["hatch", "chalk"])
def test_a_move_of_8_px_is_seen_through_a_change_of_medium(sheets, medium):
    moved = [draw(scene(s, 1 + s % 3).shifted(8 / 96), medium, 64, s) for s in SEEDS]
    stayed = kept(sheets[Medium.flat], sheets[Medium(medium)])
    assert (stayed[:, None] > kept(sheets[Medium.flat], moved)[None]).mean() >= 0.9


def test_a_picture_that_is_hardly_restyled_is_not_forgiven_a_move_that_a_restyling_might_cost(sheets):
    moved = [draw(scene(s, 1 + s % 3).shifted(4 / 96), "flat", 64, s) for s in SEEDS]
    found = [kept(sheets[Medium.flat], moved, dose).mean() for dose in (0.0, 0.25, 0.5, 1.0)]
    assert found == sorted(found)
    assert found[0] < 0.7 < 0.9 < found[-1]


def test_inverting_the_contrast_changes_nothing(sheets):
    inverted = [1 - picture for picture in sheets[Medium.flat]]
    assert distance_matrix(Layouts(sheets[Medium.flat]), Layouts(inverted)).diagonal().max() < 1e-3


def test_a_layout_is_the_same_layout_at_twice_the_size(sheets):
    small = layout(sheets[Medium.flat], (96, 96))
    large = layout(pictures(Medium.flat, SEEDS, 128), (96, 96))
    found = distances(small, large).numpy()
    apart = ~np.eye(len(SEEDS), dtype=bool)
    assert found.diagonal().mean() < 0.35 * found[apart].mean()


def test_pictures_of_several_sizes_are_scored_together():
    sizes = [(64, 64), (80, 48), (48, 80), (96, 96)] * 2
    base = [draw(scene(s, 2), "flat", size, s) for s, size in enumerate(sizes)]
    samples = [draw(scene(s, 2), "hatch", size, s) for s, size in enumerate(sizes)]
    assert kept(base, samples).mean() > 0.7


def test_one_prompt_has_no_null_and_is_refused(sheets):
    with pytest.raises(ScoreError, match="at least 2 different prompts"):
        null_distance(np.zeros((2, 2)), ["a", "a"])


def test_layouts_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ScoreError, match=r"composition cannot be measured.*0\.300"):
        composition(np.array([0.2]), null=0.3, floor=Floor((0.1, 0.25)), dose=0.1)


def ssim_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """1 - SSIM (Wang 2004) on luma with a Gaussian window of 1.5 px."""
    a, b = first.mean(1, keepdim=True), second.mean(1, keepdim=True)
    means = gaussian_blur(torch.cat([a, b], 1), 1.5)
    squares = gaussian_blur(torch.cat([a * a, b * b, a * b], 1), 1.5)
    ma, mb = means.unbind(1)
    va, vb, vab = squares[:, 0] - ma**2, squares[:, 1] - mb**2, squares[:, 2] - ma * mb
    value = (2 * ma * mb + 1e-4) * (2 * vab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    return 1 - value.mean((1, 2))


def negative_control(name: str, lpips_file: Path):
    if name == "lpips":
        model = Lpips(str(lpips_file))
        return lambda a, b: lpips_distances(model.vectors(a), model.vectors(b)).numpy()

    def pairwise(a, b):
        x, y = torch.stack(a), torch.stack(b)
        rows = [ssim_distance(p.expand_as(y), y) if name == "ssim" else (p - y).square().mean((1, 2, 3)) for p in x]
        return torch.stack(rows).numpy()

    return pairwise


@pytest.mark.parametrize("name", ["lpips", "ssim", "mse"])
def test_negative_controls_fail_the_rank_test(name, sheets, lpips_file):
    """If one of these passed, the scenes would be too easy to prove anything."""
    distance = negative_control(name, lpips_file)
    found = {(a, b): distance(sheets[a][:10], sheets[b][:10]) for a in Medium for b in Medium}
    assert np.mean([rank(found, medium) for medium in Medium]) < 0.7
