"""Early stopping with several objectives: rungs at 1/9 and 1/3 of the budget, where a trial is scored on few prompts.

Asynchronous successive halving by non-dominated rank (MO-ASHA: Schmucker et al. 2021, arXiv:2106.12639): at each rung a
trial goes on if it is among the best third of all that have reached it so far: better Pareto fronts first and within a
front larger rectangles, as that is what a LoRA is worth in the end. (By whole fronts hardly any trial would end: more
style mostly is less composition, so that nearly all stand on the first.) A trial also ends at a constraint that is
broken further than any that was still kept in the end. Both rest on what rungs say about ends, so that is measured in
every study: `agreements` is the rank correlation of the objectives at each rung with those at the end, and
`search.stopping=auto` ends no trial at a rung before it is 0.6 for every objective. The training goes on from a rung as
if there had been none.

Where the budget itself is searched, rungs lie at parts of the longest one: trials are compared after equal trainings,
and those that differ in their budgets alone share their rungs, so that only the first of them is trained and scored
there.

What is kept on a trial: the user attribute `rungs`, a list of {part, step, values, constraints}, and `stopped`, the
reason, where it ended at the last of them; such a trial is PRUNED. On the study: `agreements`, as of the last trial.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from sweep.errors import Stopped
from sweep.numbers import plural
from sweep.settings import Stopping
from sweep.study import live_trial, rectangle
from trainer.budget import checkpoint_steps, training_length
from trainer.plan import Plan
from trainer.settings import BudgetSettings, Group, Prompt

RUNGS = "rungs"
STOPPED = "stopped"
BUDGET = "train.budget."  # of the keys that are searched
AGREEMENTS = "agreements"
PARTS = (9, 3)  # a rung lies at one of so many parts of the budget
KEPT_OF = 3  # one of so many goes on
TRUSTED = 0.6  # rank correlation from which a rung may end a trial
MEASURED = 6  # trials that reached both a rung and the end, before their correlation says anything
HOPELESS = 3  # trials that broke a constraint at a rung and in the end, before it ends another one
SHARE_OF_PROMPTS, FEWEST_PROMPTS = 4, 4  # a quarter of them, and no fewer than four
SHARE_OF_STEPS, FEWEST_STEPS = 2, 8  # half of the sampler's, and no fewer than eight where it has as many


@dataclass(frozen=True)
class Rung:
    """What a trial was worth on its way."""

    part: int  # 9: at a ninth of the budget
    step: int  # optimiser steps trained
    values: list[float]  # the objectives, on few prompts
    constraints: dict[str, float]  # <= 0 when fine

    @property
    def violation(self) -> float:
        """By how much the constraints are broken, together; 0 when none is."""
        return sum(value for value in self.constraints.values() if value > 0)


@dataclass(frozen=True)
class Agreement:
    """How well the values at a rung foretell those at the end."""

    part: int
    objective: str
    correlation: float | None  # Spearman's rho, -1 … 1; None where there are too few trials, or all are equal
    trials: int  # that have both

    @property
    def trusted(self) -> bool:
        """Whether it is high enough to end a trial."""
        return self.correlation is not None and self.correlation >= TRUSTED


def few_of(prompts: Sequence[Prompt], counted: Group) -> list[int]:
    """Indices of the prompts that are drawn at a rung: evenly from those that count for the objectives.

    Of one size if there are enough of it, the commonest: they are drawn in one batch, and trials are compared alike.
    """
    chosen = [i for i, prompt in enumerate(prompts) if prompt.group == counted]
    wanted = min(len(chosen), max(FEWEST_PROMPTS, ceil(len(chosen) / SHARE_OF_PROMPTS)))
    sizes = {i: (prompts[i].width, prompts[i].height) for i in chosen}
    (commonest, count), *_ = Counter(sizes.values()).most_common(1) or [((0, 0), 0)]
    if count >= wanted:
        chosen = [i for i in chosen if sizes[i] == commonest]
    return [chosen[i * len(chosen) // wanted] for i in range(wanted)]


def fewer_steps(steps: int) -> int:
    """The sampler's steps at a rung, of those at the end: its pictures are compared among themselves alone."""
    return max(min(steps, FEWEST_STEPS), ceil(steps / SHARE_OF_STEPS))


def rung_steps(plan: Plan, budget: BudgetSettings, longest: BudgetSettings | None = None) -> dict[int, int]:
    """Step -> part of the budget, or of the longest that is searched; none that lies at the end or beyond it.

    None for a budget in seconds, whose steps no plan knows.
    """
    length = training_length(plan, budget)
    if length is None:
        return {}
    steps = {checkpoint_steps(plan, longest or budget, part)[0]: part for part in PARTS}
    return {step: part for step, part in steps.items() if step < length[0]}


def longest_budget(budget: BudgetSettings, searched: Mapping[str, BaseDistribution]) -> BudgetSettings:
    """The longest that a search may try in the unit of this one; this one, where its budget is not searched.

    Args:
        searched: distributions of a trial's parameters, by their keys.
    """
    found = searched.get(f"{BUDGET}{budget.unit}")
    longest: Any = budget.amount
    if isinstance(found, IntDistribution | FloatDistribution):
        longest = found.high
    elif isinstance(found, CategoricalDistribution):
        longest = max([longest, *(choice for choice in found.choices if isinstance(choice, int | float))])
    return replace(budget, **{budget.unit: longest})


def shared_rungs(own: FrozenTrial, trials: Sequence[FrozenTrial]) -> dict[int, Rung]:
    """Step -> what trials that differ from one in their budgets alone were worth there, as it is worth itself."""

    def recipe(trial: FrozenTrial) -> dict[str, Any]:
        return {key: value for key, value in trial.params.items() if not key.startswith(BUDGET)}

    equal = [trial for trial in trials if trial.number != own.number and recipe(trial) == recipe(own)]
    return {rung.step: rung for trial in equal for rung in rungs_of(trial).values()}


def rungs_of(trial: FrozenTrial) -> dict[int, Rung]:
    """The rungs that a trial has reached, by their part."""
    return {row["part"]: Rung(**row) for row in trial.user_attrs.get(RUNGS, [])}


def reach(study: optuna.Study, number: int, rung: Rung, stopping: Stopping) -> None:
    """Notes on its trial that a rung has been reached.

    Raises:
        Stopped: if the trial should end there; the trial has the reason then.
    """
    trials = study.get_trials(deepcopy=False)
    own, trial = trials[number], live_trial(study, number)
    if STOPPED in own.user_attrs:  # its process was killed before it could be told
        raise Stopped(own.user_attrs[STOPPED])
    reached = [r for r in rungs_of(own).values() if r.part != rung.part]
    trial.set_user_attr(RUNGS, [asdict(r) for r in (*reached, rung)])
    reason = why_stop(rung, [other for other in trials if other.number != number], stopping)
    if reason:
        trial.set_user_attr(STOPPED, reason)
        raise Stopped(reason)


def why_stop(rung: Rung, others: Sequence[FrozenTrial], stopping: Stopping) -> str:
    """Why a trial should end at a rung; empty if it should go on."""
    if stopping in (Stopping.never, Stopping.measure):
        return ""
    found = [each for each in agreements(others) if each.part == rung.part]
    if stopping == Stopping.auto and not (found and all(each.trusted for each in found)):
        return ""
    broken = hopeless(rung, others)
    if broken:
        return f"at 1/{rung.part} of the budget {broken} is broken further than any trial has recovered from"
    peers = [reached[rung.part] for other in others if rung.part in (reached := rungs_of(other))]
    ahead = how_many_ahead(rung, peers)
    if ahead * KEPT_OF >= len(peers) + 1:
        return f"at 1/{rung.part} of the budget behind {ahead} of {plural(len(peers), 'other trial')}"
    return ""


def hopeless(rung: Rung, others: Sequence[FrozenTrial]) -> str:
    """A constraint that is broken at the rung further than in any trial that kept it in the end, by several trials."""
    for name, value in rung.constraints.items():
        if value <= 0:
            continue
        known = [
            (reached[rung.part].constraints[name], other.constraints[name] <= 0)
            for other in others
            if other.state == TrialState.COMPLETE
            and rung.part in (reached := rungs_of(other))
            and name in reached[rung.part].constraints
            and name in other.constraints
        ]
        recovered = max([0.0, *(there for there, kept in known if kept)])
        if value > recovered and sum(there > recovered for there, kept in known if not kept) >= HOPELESS:
            return name
    return ""


def how_many_ahead(rung: Rung, peers: Sequence[Rung]) -> int:
    """How many peers stand in a better Pareto front, or in the same one with a larger rectangle.

    Whoever breaks constraints less comes before who breaks more.
    """
    everyone = [rung, *peers]
    values = np.array([each.values for each in everyone], dtype=np.float64)  # (N, objectives)
    broken = np.array([each.violation for each in everyone], dtype=np.float64)  # (N,)
    dominates = (values[:, None] >= values).all(axis=2) & (values[:, None] > values).any(axis=2)
    beats: NDArray[np.bool_] = np.where(broken[:, None] == broken, dominates, broken[:, None] < broken)
    left = np.ones(len(everyone), dtype=bool)
    while True:
        front = left & ~beats[left].any(axis=0)
        if front[0]:
            areas = np.array([rectangle(each.values) for each in everyone])
            return int((~left).sum() + (front & (areas > areas[0])).sum())
        left &= ~front


def agreements(trials: Sequence[FrozenTrial], names: Sequence[str] = ()) -> list[Agreement]:
    """Rank correlation of every objective at every rung with the end, over the trials that reached both.

    Args:
        names: of the objectives.
    """
    found = []
    for part in PARTS:
        pairs = [
            (reached[part].values, trial.values)
            for trial in trials
            if trial.state == TrialState.COMPLETE and part in (reached := rungs_of(trial))
        ]
        for i in range(len(pairs[0][1]) if pairs else 0):
            name = names[i] if names else f"value {i}"
            there, end = [a[i] for a, _ in pairs], [b[i] for _, b in pairs]
            found.append(Agreement(part, name, _correlation(there, end), len(pairs)))
    return found


def _correlation(there: Sequence[float], end: Sequence[float]) -> float | None:
    if len(there) < MEASURED or len(set(there)) == 1 or len(set(end)) == 1:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(there, end).statistic)


def as_plain(found: Sequence[Agreement]) -> list[dict[str, Any]]:
    """As the study keeps them."""
    return [asdict(each) for each in found]


def in_words(found: Sequence[Agreement], stopping: Stopping) -> list[str]:
    """For people: what the rungs foretell, and whether they may end a trial."""
    lines = []
    for part in PARTS:
        here = [each for each in found if each.part == part]
        if not here:
            continue
        if any(each.correlation is None for each in here):
            need = f" of {MEASURED} needed" if here[0].trials < MEASURED else ", without any difference"
            lines.append(f"1/{part} of the budget: not known yet ({here[0].trials}{need})")
            continue
        values = ", ".join(f"{each.objective} {each.correlation:+.2f}" for each in here)
        trusted = all(each.trusted for each in here)
        ends = stopping == Stopping.always or (stopping == Stopping.auto and trusted)
        lines.append(f"1/{part} of the budget: {values} ({here[0].trials} trials), {'on' if ends else 'off'}")
    head = f"Early stopping (search.stopping={stopping.value}; on from a rank correlation of {TRUSTED}):"
    return [head, *(f"  {line}" for line in lines)] if lines else []
