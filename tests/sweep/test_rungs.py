"""Early stopping with two objectives: who goes on from a rung, and when a rung may say so."""

from dataclasses import asdict, dataclass
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweep.database import storage
from sweep.errors import Stopped
from sweep.record import rungs_ahead
from sweep.rungs import (
    HOPELESS,
    MEASURED,
    PARTS,
    Rung,
    agreements,
    few_of,
    fewer_steps,
    how_many_ahead,
    in_words,
    longest_budget,
    rung_steps,
    rungs_of,
    why_stop,
)
from sweep.schema import Config
from sweep.settings import Stopping, StudySettings
from sweep.study import load_study
from tests.sweep.conftest import Run
from trainer.plan import make_plan
from trainer.settings import BudgetSettings, Group, MixSettings, Prompt


def rung(style: float, composition: float, part: int = 9, **constraints: float) -> Rung:
    return Rung(part, 10, [style, composition], constraints)


def trial(reached: Rung, values: list[float] | None = None, **constraints: float) -> FrozenTrial:
    """One that reached a rung, and the end if it has values."""
    row = {"part": reached.part, "step": 10, "values": reached.values, "constraints": reached.constraints}
    state = TrialState.COMPLETE if values else TrialState.PRUNED
    return create_trial(state=state, values=values, constraints=constraints or None, user_attrs={"rungs": [row]})


def faithful(count: int) -> list[FrozenTrial]:
    """Trials whose rungs foretell their ends."""
    return [trial(rung(i / 10, i / 10), [i / 5, i / 3]) for i in range(count)]


def test_the_best_third_goes_on_by_fronts_and_within_a_front_by_rectangles() -> None:
    peers = [trial(rung(x, 1 - x)) for x in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert why_stop(rung(0.45, 0.56), peers, Stopping.always) == "", "the largest rectangle"
    assert why_stop(rung(0.2, 0.81), peers, Stopping.always) == "at 1/9 of the budget behind 3 of 5 other trials"
    assert why_stop(rung(0.2, 0.2), peers, Stopping.always) == "at 1/9 of the budget behind 5 of 5 other trials"
    assert why_stop(rung(0.2, 0.2), peers[:0], Stopping.always) == "", "the first at a rung has nobody to be behind"


@pytest.mark.parametrize("count", [3, 7])
def test_fronts_are_counted_as_by_definition(count: int) -> None:
    peers = [rung((i * 5) % 7 / 7, (i * 3) % 7 / 7, leakage=0.1 * (i % 3 - 1)) for i in range(count)]
    for i, mine in enumerate(peers):
        others = [*peers[:i], *peers[i + 1 :]]
        left, ahead = [mine, *others], 0
        while True:
            front = [a for a in left if not any(_beats(b, a) for b in left)]
            if mine in front:
                break
            ahead, left = ahead + len(front), [a for a in left if a not in front]
        larger = [a for a in front if a.values[0] * a.values[1] > mine.values[0] * mine.values[1]]
        assert how_many_ahead(mine, others) == ahead + len(larger)


def _beats(a: Rung, b: Rung) -> bool:
    if a.violation != b.violation:
        return a.violation < b.violation
    at_least = all(x >= y for x, y in zip(a.values, b.values, strict=True))
    return at_least and a.values != b.values


def test_a_broken_constraint_comes_after_a_kept_one_whatever_the_objectives() -> None:
    assert how_many_ahead(rung(0.9, 0.9, leakage=0.2), [rung(0.1, 0.1, leakage=-0.1)]) == 1
    assert how_many_ahead(rung(0.1, 0.1, leakage=0.1), [rung(0.9, 0.9, leakage=0.2)]) == 0


def test_nothing_is_stopped_before_rungs_are_seen_to_foretell_the_end() -> None:
    worst = rung(-1, -1)
    assert why_stop(worst, faithful(MEASURED - 1), Stopping.auto) == ""
    assert why_stop(worst, faithful(MEASURED), Stopping.auto).startswith("at 1/9 of the budget behind 6 of 6")
    assert why_stop(worst, faithful(MEASURED), Stopping.never) == ""
    assert why_stop(worst, faithful(MEASURED), Stopping.measure) == "", "it is only measured"
    liars = [trial(rung(i / 10, i / 10), [i / 5, 1 - i / 5]) for i in range(9)]
    assert why_stop(worst, liars, Stopping.auto) == "", "one of the objectives is told wrongly"
    assert why_stop(Rung(3, 10, [-1, -1], {}), faithful(9), Stopping.auto) == "", "each rung is trusted by itself"


def test_a_constraint_is_hopeless_when_none_that_far_off_was_ever_kept() -> None:
    broken = [trial(rung(1, 1, leakage=0.3 + 0.01 * i), [1.0, 1.0], leakage=0.1) for i in range(HOPELESS)]
    recovered = trial(rung(1, 1, leakage=0.2), [1.0, 1.0], leakage=-0.1)
    mine = rung(2, 2, leakage=0.25)
    assert "leakage is broken further" in why_stop(mine, [*broken, recovered], Stopping.always)
    assert why_stop(rung(2, 2, leakage=0.15), [*broken, recovered], Stopping.always) == "", "one came back from there"
    assert why_stop(mine, [*broken[1:], recovered], Stopping.always) == "", "two are no evidence"


def test_the_correlation_is_told_with_its_trials_and_what_follows_from_it() -> None:
    found = agreements(faithful(8), ["style", "composition"])
    assert [(a.part, a.objective, a.trials) for a in found] == [(9, "style", 8), (9, "composition", 8)]
    assert all(a.correlation == pytest.approx(1) for a in found)
    assert "style +1.00, composition +1.00 (8 trials), on" in in_words(found, Stopping.auto)[1]
    assert "5 of 6 needed" in in_words(agreements(faithful(5)), Stopping.auto)[1]
    assert in_words([], Stopping.auto) == []


@dataclass
class Sized:
    width: int = 512
    height: int = 512


def test_rungs_lie_at_a_ninth_and_a_third_of_any_budget_that_a_plan_knows() -> None:
    plan = make_plan([Sized()] * 10, MixSettings({512: 1}, batch_size=1), scale=1, step=16, seed=0)
    assert rung_steps(plan, BudgetSettings(90)) == {10: 9, 30: 3}
    assert rung_steps(plan, BudgetSettings(steps=2)) == {1: 3}, "both at the first step: one rung"
    assert rung_steps(plan, BudgetSettings(steps=1)) == {}
    assert rung_steps(plan, BudgetSettings(seconds=90)) == {}


def test_few_prompts_are_taken_evenly_from_those_that_count() -> None:
    prompts = [Prompt(text="a cat", group=group) for group in [Group.unrelated, Group.in_domain] * 20]
    chosen = few_of(prompts, Group.unrelated)
    assert len(chosen) == 5 and all(prompts[i].group == Group.unrelated for i in chosen)
    assert few_of(prompts[:3], Group.unrelated) == [0, 2]


def test_few_prompts_are_of_one_size_where_there_are_enough_of_it() -> None:
    wide = [Prompt(text="a cat", width=768, height=512 + 16 * i) for i in range(10)]
    same = [Prompt(text="a dog") for _ in range(6)]
    mixed = [each for pair in zip(wide, same, strict=False) for each in pair] + wide[6:]
    assert [mixed[i].text for i in few_of(mixed, Group.unrelated)] == ["a dog"] * 4
    assert len(few_of(wide, Group.unrelated)) == 4, "all sizes, where each is alone"


def test_rungs_lie_at_parts_of_the_longest_budget_that_is_searched() -> None:
    plan = make_plan([Sized()] * 10, MixSettings({512: 1}, batch_size=1), scale=1, step=16, seed=0)
    longest = BudgetSettings(90)
    assert rung_steps(plan, BudgetSettings(45), longest) == {10: 9, 30: 3}
    assert rung_steps(plan, BudgetSettings(30), longest) == {10: 9}, "no rung at the end, where all is scored"
    assert rung_steps(plan, BudgetSettings(9), longest) == {}


def test_the_longest_budget_is_read_from_what_is_searched() -> None:
    asked = BudgetSettings(30)
    listed = CategoricalDistribution([30, 90])
    assert longest_budget(asked, {"train.budget.images_seen": listed}) == BudgetSettings(90)
    assert longest_budget(asked, {"train.budget.images_seen": IntDistribution(10, 60)}) == BudgetSettings(60)
    epochs = BudgetSettings(epochs=1.5)
    assert longest_budget(epochs, {"train.budget.epochs": FloatDistribution(1, 4)}) == BudgetSettings(epochs=4.0)
    assert longest_budget(epochs, {"train.budget.images_seen": listed}) == epochs, "another unit"
    assert longest_budget(epochs, {"train.seed": listed}) == epochs


def test_trials_that_differ_in_their_budgets_alone_share_their_rungs(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    study = optuna.create_study(study_name="shared", storage=storage(folder), directions=["maximize"] * 2)
    distributions = {
        "train.optimizer.learning_rate": CategoricalDistribution([1e-4, 1e-3]),
        "train.budget.images_seen": CategoricalDistribution([20, 45, 90]),
    }
    recipes = [(1e-3, 90, 0.5), (1e-4, 90, 0.2), (1e-4, 45, None), (1e-3, 20, None), (1e-3, 45, None)]
    for rate, images, worth in recipes:
        params = dict(zip(distributions, (rate, images), strict=True))
        rungs = [asdict(Rung(9, 10, [worth, worth], {}))] if worth else []
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions=distributions,
                user_attrs={"rungs": rungs} if rungs else {},
            )
        )
    plan = make_plan([Sized()] * 10, MixSettings({512: 1}, batch_size=1), scale=1, step=16, seed=0)

    def ahead(number: int) -> tuple[dict[int, int], list[float]]:
        passed: list[float] = []
        config = Config(study=StudySettings(folder=str(tmp_path), name="shared"))
        config.search.stopping = Stopping.always
        config.train.budget = BudgetSettings(recipes[number][1])
        return rungs_ahead(config, number, plan, lambda rung: passed.append(rung.values[0])), passed

    with pytest.raises(Stopped, match="behind 1 of 2"):
        ahead(2)
    assert rungs_of(study.trials[2])[9].values == [0.2, 0.2], "noted although nothing was trained"
    assert ahead(4) == ({30: 3}, [0.5])
    assert ahead(3) == ({}, [0.5])


def test_rungs_are_drawn_in_half_of_the_steps_where_that_leaves_enough() -> None:
    assert [fewer_steps(steps) for steps in (1, 4, 8, 10, 16, 28, 31)] == [1, 4, 8, 8, 8, 14, 16]


def test_a_trial_ended_at_a_rung_is_pruned_with_its_values_and_not_trained_on(toy: Run, tmp_path: Path) -> None:
    ran = toy("rungs=true", "search.n_trials=12", "search.stopping=always", "search.sampler=random")
    assert ran.code == 0, ran.text
    study = load_study(tmp_path / "multirun" / "toy")
    stopped = [t for t in study.trials if t.state == TrialState.PRUNED]
    whole = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert stopped and len(stopped) + len(whole) == 12
    for each in stopped:
        assert each.user_attrs["stopped"] in " ".join(ran.out.split())
        assert 9 in rungs_of(each) and len(rungs_of(each)[9].values) == 2
    assert all([*rungs_of(t)] == list(PARTS) for t in whole)
    assert "Early stopping" in ran.out and study.user_attrs["agreements"][0]["trials"] == len(whole)
