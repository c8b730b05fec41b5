"""Which points a study tries, with every sampler by name, on an objective of no time."""

import math
from statistics import median
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweep.drawing import ground
from sweep.errors import InputError
from sweep.rules import Conditions, read_conditions
from sweep.samplers import check_sampler
from sweep.settings import Sampler, SearchSettings

Space = dict[str, BaseDistribution]
SPACE: Space = {
    "captions": CategoricalDistribution(["none", "edited"]),
    "repeats": IntDistribution(0, 5),
    "rate": FloatDistribution(1e-5, 1e-3, log=True),
}
FINITE: Space = {key: SPACE[key] for key in ("captions", "repeats")}
NOTHING = Conditions()


def sweep(
    search: SearchSettings, space: Space, trials: int, *, conditions: Conditions = NOTHING, objectives: int = 2
) -> list[dict[str, Any]]:
    """Runs so many trials, as the sweeper does, and returns their points."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize"] * objectives, sampler=optuna.samplers.RandomSampler())
    field = ground(search, space, conditions)
    while len(study.trials) < trials and not field.exhausted(study.trials):
        trial = field.begin(study, study.trials)
        x = trial.params.get("repeats", 0) / 5 + (trial.params.get("captions") == "edited")
        study.tell(trial, [math.cos(x), math.sin(x)][:objectives])
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("sampler", [s for s in Sampler if s not in (Sampler.cmaes, Sampler.grid)])
def test_a_sampler_gives_the_same_points_again_and_none_twice(sampler: Sampler) -> None:
    search = SearchSettings(sampler=sampler, startup=3, seed=4)
    count = 4 if sampler == Sampler.gp else 8  # gp takes a second for a point that it does not draw by chance
    points = sweep(search, SPACE, count)
    assert points == sweep(search, SPACE, count)
    assert len({str(point) for point in points}) == count
    assert sweep(SearchSettings(sampler=sampler, startup=3, seed=5), SPACE, 3) != points[:3]


@pytest.mark.parametrize("objectives", [1, 2])
def test_cmaes_searches_numbers_and_climbs_what_a_lora_is_worth(objectives: int) -> None:
    space: Space = {"repeats": IntDistribution(0, 15), "rate": FloatDistribution(0, 1)}
    search = SearchSettings(sampler=Sampler.cmaes, startup=2)
    check_sampler(search, space, NOTHING)
    points = sweep(search, space, 40, objectives=objectives)
    assert points[:20] == sweep(search, space, 20, objectives=objectives)
    peak = 0 if objectives == 1 else math.pi / 4  # of cos x, and of cos x × sin x
    early, late = ([abs(point["repeats"] / 5 - peak) for point in part] for part in (points[:10], points[-10:]))
    assert median(late) < median(early)


@pytest.mark.parametrize(
    ("search", "space", "named"),
    [
        (SearchSettings(sampler=Sampler.cmaes), SPACE, "captions"),
        (SearchSettings(options={"multivariat": True}), SPACE, "multivariate"),
        (SearchSettings(options={"n_ei_candidates": "many"}), SPACE, "n_ei_candidates must be int, got 'many'"),
        (SearchSettings(sampler=Sampler.random, options={"x": 1}), SPACE, "it has none"),
        (SearchSettings(sampler=Sampler.nsga2, options={"population_size": 1}), SPACE, "population_size"),
    ],
)
def test_what_a_sampler_cannot_do_is_refused_by_name(search: SearchSettings, space: Space, named: str) -> None:
    with pytest.raises(InputError) as fault:
        check_sampler(search, space, NOTHING)
    assert named in str(fault.value) and search.sampler.value in str(fault.value)


def test_options_reach_the_sampler() -> None:
    plain = SearchSettings(startup=2, seed=1)
    joint = SearchSettings(startup=2, seed=1, options={"multivariate": True, "n_ei_candidates": 5})
    check_sampler(joint, SPACE, NOTHING)
    assert sweep(plain, SPACE, 6) != sweep(joint, SPACE, 6)


def test_the_grid_has_every_point_once_in_a_seeded_order() -> None:
    points = sweep(SearchSettings(sampler=Sampler.grid), FINITE, 99)
    assert len(points) == 12 and len({str(point) for point in points}) == 12
    assert {point["captions"] for point in points[:5]} == {"none", "edited"}, "a part of it is a fair sample"
    with pytest.raises(InputError, match="no end of them in rate"):
        ground(SearchSettings(sampler=Sampler.grid), SPACE, NOTHING)


def test_of_points_that_differ_in_their_budgets_alone_a_whole_grid_has_the_shorter_first() -> None:
    lengths_to_try = IntDistribution(100, 400, step=100)
    space: Space = {"rate": CategoricalDistribution([1e-4, 1e-3]), "train.budget.images_seen": lengths_to_try}
    whole = ground(SearchSettings(sampler=Sampler.grid, n_trials=8), space, Conditions()).listed
    part = ground(SearchSettings(sampler=Sampler.grid, n_trials=7), space, Conditions()).listed
    assert whole is not None and part is not None
    assert [point["rate"] for point in whole] == [point["rate"] for point in part], "in the same places"
    for rate in (1e-4, 1e-3):
        lengths = [
            [point["train.budget.images_seen"] for point in points if point["rate"] == rate] for points in (whole, part)
        ]
        assert lengths[0] == sorted(lengths[1]) != lengths[1], "a part of a grid is a fair sample"


def test_quasi_random_points_cover_every_parameter_evenly() -> None:
    points = sweep(SearchSettings(sampler=Sampler.qmc), SPACE, 8)
    assert sorted(point["captions"] for point in points) == ["edited"] * 4 + ["none"] * 4
    assert len({int(8 * math.log10(point["rate"] / 1e-5) / 2) for point in points}) == 8


@pytest.mark.parametrize("sampler", [Sampler.tpe, Sampler.nsga2, Sampler.qmc, Sampler.random, Sampler.grid])
def test_conditions_hold_in_every_point(sampler: Sampler) -> None:
    when, rules = {"repeats": "captions == edited"}, ["repeats != 2"]
    conditions = read_conditions(when, rules, FINITE, {}.__getitem__)
    points = sweep(SearchSettings(sampler=sampler, startup=2), FINITE, 99, conditions=conditions)
    assert sorted(map(str, points)) == sorted(
        [str({"captions": "none"}), *(str({"captions": "edited", "repeats": n}) for n in (0, 1, 3, 4, 5))]
    )


def test_rules_that_leave_nothing_are_refused() -> None:
    conditions = read_conditions({}, ["repeats > 9"], FINITE, {}.__getitem__)
    with pytest.raises(InputError, match="repeats > 9"):
        ground(SearchSettings(), FINITE, conditions)
