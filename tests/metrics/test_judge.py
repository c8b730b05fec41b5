"""The suite on drawn scenes: known truth for both objectives, the contract every metric keeps, and bad input."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import Prompt, other_styles, pictures, prompts

from metrics import Judge, SampleError, ScoreError, Scores, ScoreSettings, score
from metrics.settings import Constraint

COUNT = 24
RANGES = {
    "style": (-3, 3),
    "composition": (-0.5, 1),
    "adherence": (-100, 100),
    "failed": (0, 1),
    "line_quality": (0, 1),
    "leak": (0, 1),
    "leak_picture": (0, 1),
    "memorisation_gap": (-1, 1),
    "copy": (0, 1),
}


@pytest.fixture(scope="module")
def judge(settings: ScoreSettings) -> Judge:
    return Judge(
        settings,
        pictures("hatch", range(500, 524)),
        other_styles("hatch"),
        pictures("hatch", range(900, 930)),
        ["heart", "skull"],
    )


@pytest.fixture(scope="module")
def base() -> list[torch.Tensor]:
    return pictures("flat", range(COUNT))


SETS = {
    "flat": lambda: pictures("flat", range(COUNT)),
    "hatch": lambda: pictures("hatch", range(COUNT)),
    "moved": lambda: pictures("flat", range(1000, 1000 + COUNT)),
    "moved_hatch": lambda: pictures("hatch", range(1000, 1000 + COUNT)),
    "copied": lambda: pictures("hatch", range(900, 900 + COUNT)),
    "noise": lambda: list(torch.rand((COUNT, 3, 64, 64), generator=torch.Generator().manual_seed(0))),
    "black": lambda: [torch.zeros(3, 64, 64)] * COUNT,
}


@pytest.fixture(scope="module")
def scored(judge: Judge, base: list[torch.Tensor]) -> dict[str, Scores]:
    """Every set of samples judged once against the flat base images."""
    return {name: judged(judge, make(), base) for name, make in SETS.items()}


def judged(judge: Judge, samples: list, base: list) -> Scores:
    return judge.score(samples, base, prompts(COUNT, seeds=2))


def test_a_lora_without_effect_has_exactly_no_style_and_all_composition(judge, base):
    scores = judged(judge, [image.clone() for image in base], base)
    assert scores.style == 0.0 and scores.composition == 1.0
    assert set(scores.per_image["style"]) == {0.0} and set(scores.per_image["composition"]) == {1.0}
    assert scores.intervals["style"] == (0.0, 0.0) and scores.intervals["composition"] == (1.0, 1.0)
    assert all(value <= 0 for value in scores.constraints.values())
    assert scores.diagnostics["leak_rate"] == 0 and scores.diagnostics["adherence_change"] == 0


def test_restyling_alone_brings_style_and_keeps_composition(scored):
    scores = scored["hatch"]
    assert scores.style > 0.7 and scores.composition > 0.8
    fine = {k: v for k, v in scores.constraints.items() if k not in ("adherence", "leakage")}  # a random encoder's
    assert all(value <= 0 for value in fine.values())


def test_moving_things_alone_brings_no_style_and_loses_composition(scored):
    scores = scored["moved"]
    assert scores.diagnostics["style_mean"] == pytest.approx(0, abs=0.1)
    assert scores.style < 0.1 and scores.composition < 0.2


def test_style_on_half_of_the_prompts_is_worth_less_than_half(judge, base):
    styled = pictures("hatch", range(COUNT))
    scores = judged(judge, styled[: COUNT // 2] + base[COUNT // 2 :], base)
    assert scores.diagnostics["style_tail"] == pytest.approx(0, abs=0.05)
    assert scores.style < 0.45 < scores.diagnostics["style_mean"] + 0.05


def test_copied_training_pictures_break_memorisation(scored):
    scores = scored["copied"]
    assert scores.constraints["memorisation"] > 0.9
    assert min(scores.per_image["copy"]) == 1.0


def test_mirrored_copies_are_copies_too(judge, base):
    mirrored = [picture.flip(-1) for picture in pictures("hatch", range(900, 900 + COUNT))]
    assert judged(judge, mirrored, base).diagnostics["copy_rate"] > 0.9


def test_one_picture_for_every_prompt_breaks_diversity(judge, base):
    assert judged(judge, pictures("hatch", [3]) * COUNT, base).constraints["diversity"] > 0.5


def test_noise_breaks_failures(judge, base):
    noise = torch.rand((COUNT, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    scores = judged(judge, list((torch.stack(base) + noise) / 2), base)
    assert scores.constraints["failures"] > 0.5


def test_one_failed_picture_is_no_rate_and_two_are(judge, base):
    blank = torch.full_like(base[0], 0.5)
    broken = [judged(judge, [blank] * many + base[many:], base).constraints["failures"] for many in (0, 1, 2)]
    assert broken == pytest.approx([-1 / COUNT, 0, 1 / COUNT], abs=1e-6)
    assert broken[1] <= 0


@pytest.mark.parametrize("samples", list(SETS))
def test_every_metric_is_finite_and_in_its_range(scored, samples):
    scores = scored[samples]
    assert set(scores.per_image) == set(RANGES)
    for name, (low, high) in RANGES.items():
        assert len(scores.per_image[name]) == COUNT
        assert all(low <= value <= high for value in scores.per_image[name]), name
        assert low - 1e-9 <= scores.intervals[name][0] <= scores.intervals[name][1] <= high + 1e-9
    numbers = [scores.style, scores.composition, *scores.constraints.values(), *scores.diagnostics.values()]
    assert all(math.isfinite(value) for value in numbers)
    assert set(scores.constraints) == {name.value for name in Constraint} - {"adherence"}


def test_the_order_of_the_pictures_does_not_matter(judge, base):
    samples, texts = pictures("hatch", range(COUNT)), prompts(COUNT, seeds=2)
    order = np.random.default_rng(0).permutation(COUNT).tolist()
    first = judge.score(samples, base, texts)
    second = judge.score([samples[i] for i in order], [base[i] for i in order], [texts[i] for i in order])
    assert second.style == pytest.approx(first.style, abs=1e-4)
    assert second.composition == pytest.approx(first.composition, abs=1e-4)
    assert second.constraints == pytest.approx(first.constraints, abs=1e-4)
    for name, values in first.per_image.items():
        assert second.per_image[name] == pytest.approx([values[i] for i in order], abs=1e-3), name


def test_the_same_pictures_give_the_same_scores_twice(judge, base, scored):
    assert judged(judge, pictures("hatch", range(COUNT)), base) == scored["hatch"]


@pytest.mark.parametrize(
    ("name", "more", "less"),
    [
        ("style", "hatch", "flat"),
        ("composition", "hatch", "moved_hatch"),
        ("line_quality", "hatch", "noise"),
        ("failed", "noise", "hatch"),  # from here on less is better
        ("copy", "copied", "hatch"),
        ("memorisation_gap", "copied", "hatch"),
    ],
)
def test_every_metric_points_in_its_direction(scored, name, more, less):
    assert np.mean(scored[more].per_image[name]) > np.mean(scored[less].per_image[name])


def test_pictures_in_domain_are_diagnostics_only(judge, base):
    texts = [replace(p, group="in_domain") if i >= 12 else p for i, p in enumerate(prompts(COUNT))]
    styled = base[:12] + pictures("hatch", range(12, COUNT))
    scores = judge.score(styled, base, texts)
    assert scores.style == 0.0 and scores.composition == 1.0
    assert scores.diagnostics["style_in_domain"] > 0.7


def test_samples_that_fit_every_prompt_alike_keep_no_composition_and_are_not_feasible(judge):
    base = pictures("flat", [2, 3])
    scores = judge.score([torch.minimum(*base)] * 2, base, prompts(2))  # both pictures laid over each other
    assert scores.diagnostics["composition_collapsed"] == 1.0
    assert scores.composition == 0.0 and scores.constraints["diversity"] > 0


def test_base_images_that_cannot_be_told_apart_are_refused(judge):
    with pytest.raises(ScoreError, match="a base that draws noise has none") as refused:
        judge.score(pictures("flat", [2, 2]), pictures("flat", [2, 2]), prompts(2))
    assert not isinstance(refused.value, SampleError)


def test_samples_that_are_no_numbers_are_their_loras_fault(judge, base):
    with pytest.raises(SampleError, match="did the training diverge"):
        judge.score([*base[:-1], base[-1] * torch.nan], base, prompts(COUNT))


def test_several_sizes_are_scored_together(judge):
    sizes = [(64, 64), (80, 48), (32, 32), (96, 128)] * 2
    base = [pictures("flat", [i], size)[0] for i, size in enumerate(sizes)]
    samples = [pictures("hatch", [i], size)[0] for i, size in enumerate(sizes)]
    scores = judge.score(samples, base, prompts(8))
    assert scores.style > 0.4 and scores.composition > 0.6


def test_without_a_pool_the_base_is_the_style_to_leave(settings, base):
    few = replace(settings, constraints=[Constraint.failures])
    references, styled = pictures("hatch", range(500, 516)), pictures("hatch", range(COUNT))
    arguments = {"references": references, "prompts": prompts(COUNT, seeds=2), "settings": few}
    unchanged = score(samples=base, base_images=base, **arguments)
    assert (unchanged.style, unchanged.composition) == (0.0, 1.0)
    scores = score(samples=styled, base_images=base, **arguments)
    assert scores.style > 0.7 and scores.composition > 0.8
    assert set(scores.constraints) == {"failures"}


def test_a_wanted_constraint_that_cannot_be_read_is_said_to_be_unmeasured(settings, base, scored):
    scores = score(base, base, pictures("hatch", range(500, 516)), prompts(COUNT, seeds=2), settings)
    assert scores.diagnostics["leakage_unmeasured"] == scores.diagnostics["memorisation_unmeasured"] == 1.0
    assert not {"leakage", "memorisation"} & set(scores.constraints)
    assert not [name for name in scored["flat"].diagnostics if name.endswith("_unmeasured")]


def test_scoring_64_pairs_takes_less_than_3_s(judge):
    base, samples = pictures("flat", range(64)), pictures("hatch", range(64))
    judge.score(base, base, prompts(64, seeds=2))  # base images are read once per study
    started = time.process_time()
    judge.score(samples, base, prompts(64, seeds=2))
    assert time.process_time() - started < 3


BAD = {
    "of one length": lambda b: (b[:-1], b, prompts(COUNT)),
    r"2 of 24 pairs are not: samples\[1\] is 64x32, base_images\[1\] 64x64; samples\[3\]": lambda b: (
        [b[0], b[1][:, :32], b[2], b[3][:, :, :48], *b[4:]],
        b,
        prompts(COUNT),
    ),
    r"samples\[2\] must be finite": lambda b: ([*b[:2], b[2] * torch.nan, *b[3:]], b, prompts(COUNT)),
    r"samples\[0\] must lie in \[0, 1\]": lambda b: ([b[0] * 2 - 1, *b[1:]], b, prompts(COUNT)),
    r"samples\[0\] must be a tensor of shape \(3, H, W\)": lambda b: ([b[0][:1], *b[1:]], b, prompts(COUNT)),
    "floats": lambda b: ([(b[0] * 255).byte(), *b[1:]], b, prompts(COUNT)),
    "at least 16 px": lambda b: ([b[0][:, :8], *b[1:]], b, prompts(COUNT)),
    'at least 2 different prompts of group "unrelated"': lambda b: (b, b, [Prompt("one")] * COUNT),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_pictures_are_refused_by_name(judge, base, message):
    with pytest.raises(ScoreError, match=message):
        judge.score(*BAD[message](base))
