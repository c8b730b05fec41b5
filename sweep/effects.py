"""Which factor mattered: the effect of every level of every searched setting, with an interval, and importances.

All effects are estimated together, so that a factor is not credited with what came along with it. A model-based search
does not visit all combinations, and a level seen once says little: each level is shrunken as if one more trial of
average result had been seen, and its interval stays wide.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

LEVELS = 6  # different numbers of a parameter beyond which they are put into three groups
TRIALS_AT_LEAST = 4  # fewer scored trials say nothing about factors
CONFIDENCE = 0.95
KEY = "eval.lora"  # LoRAs that are there already, in the place of trainings
UNNAMED = ("lora", "pytorch_lora_weights", "adapter_model")  # what tools call every LoRA's file
REPEATS = "mix.repeats."


@dataclass(frozen=True)
class Effect:
    """What a level of a factor does to a result, against the average of all trials."""

    factor: str
    level: str
    trials: int  # that had this level
    value: float  # in the result's own unit
    low: float
    high: float

    @property
    def words(self) -> str:
        """The level as short as it is clear."""
        return level_in_words(self.factor, self.level)

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def factor_in_words(factor: str) -> str:
    """A setting as one says it: captions, repeats at 512 px, learning rate."""
    if factor.startswith(REPEATS):
        return f"repeats at {factor.removeprefix(REPEATS)} px"
    return factor.split(".")[-1].replace("_", " ")


def level_in_words(factor: str, level: object) -> str:
    """A setting at one of its values, as short as it is clear: captions edited, 512 px × 3, learning rate 0.003."""
    if factor.startswith(REPEATS):
        return f"{factor.removeprefix(REPEATS)} px × {level}"
    if factor == KEY:
        return f"LoRA {named(str(level))}"
    return f"{factor_in_words(factor)} {_text(level)}"


def named(lora: str) -> str:
    """What a person calls a LoRA: its file's name, or where it lies if that is what every LoRA's is."""
    file = Path(lora.strip('"'))
    return file.stem if file.stem not in UNNAMED else str(file)


def effects(
    trials: Sequence[FrozenTrial], results: Sequence[float], *, matched: Sequence[float] | None = None
) -> list[Effect]:
    """Returns the effects of all levels of all parameters that took more than one; empty for too few trials.

    Args:
        trials: scored ones.
        results: one of each.
        matched: another result of each that is held equal: what a factor does to composition beyond what it does by
            making the style stronger or weaker.

    Source: Bayesian linear regression, Bishop 2006, 3.3, with a prior of one trial per level.
    """
    columns = _columns(trials)
    if len(trials) < TRIALS_AT_LEAST or not columns:
        return []
    levels = np.stack([column for _, _, column in columns], axis=1)
    design, penalty = levels - levels.mean(0), np.ones(len(columns))
    if matched is not None:
        design = np.column_stack([design, np.asarray(matched) - np.mean(matched)])
        penalty = np.append(penalty, 1e-6)
    centred = np.asarray(results, dtype=float) - np.mean(results)
    inverse = np.linalg.inv(design.T @ design + np.diag(penalty))
    found = inverse @ design.T @ centred
    left = len(trials) - 1 - float(np.trace(design @ inverse @ design.T))  # degrees of freedom of what is not explained
    if left < 1:
        return []
    from scipy.special import stdtrit  # a tenth of a second of a sweep's start, for what is asked at its end

    variance = float(((centred - design @ found) ** 2).sum()) / left
    half = stdtrit(left, (1 + CONFIDENCE) / 2) * np.sqrt(variance * np.diag(inverse))
    return [
        Effect(factor, level, int(column.sum()), float(value), float(value - h), float(value + h))
        for (factor, level, column), value, h in zip(columns, found, half, strict=False)
    ]


def _columns(trials: Sequence[FrozenTrial]) -> list[tuple[str, str, NDArray[np.float64]]]:
    """Factor, level and which trials had it, for every factor that varied and that every trial has.

    Which file was scored is none: a LoRA is what trials are, not what was set.
    """
    keys = {key for key in (trials[0].params if trials else {}) if all(key in trial.params for trial in trials)}
    columns = []
    for key in sorted(keys - {KEY}):
        names, order = _levels(trials, key)
        if len(order) > 1:
            columns += [(key, level, np.array([float(name == level) for name in names])) for level in order]
    return columns


def _levels(trials: Sequence[FrozenTrial], key: str) -> tuple[list[str], list[str]]:
    """The level of each trial, and all levels in order; many different numbers become thirds."""
    values = [trial.params[key] for trial in trials]
    if isinstance(trials[0].distributions[key], CategoricalDistribution) or len(set(values)) <= LEVELS:
        numeric = all(isinstance(value, int | float) for value in values)
        different = sorted(set(values), key=None if numeric else str)
        return [_text(value) for value in values], [_text(value) for value in different]
    edges = np.quantile(values, [1 / 3, 2 / 3])
    thirds = [int(np.searchsorted(edges, value)) for value in values]
    names = {
        third: "{} … {}".format(*map(_text, (min(group), max(group))))
        for third in sorted(set(thirds))
        if (group := [value for value, found in zip(values, thirds, strict=True) if found == third])
    }
    return [names[third] for third in thirds], list(names.values())


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def importances(study: optuna.Study, index: int) -> dict[str, float]:
    """How much each parameter decides whether a trial is among the best tenth (PED-ANOVA, Optuna's default).

    Shares of 1, largest first.
    Empty where it cannot be said: fewer than four scored trials, or values that are all alike.
    """
    scored = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(scored) < TRIALS_AT_LEAST or len({trial.values[index] for trial in scored}) < 2:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.simplefilter("ignore", UserWarning)
            # Given a target, PED-ANOVA takes lower for better.
            sign = -1 if study.directions[index] == StudyDirection.MAXIMIZE else 1
            found = optuna.importance.get_param_importances(study, target=lambda trial: sign * trial.values[index])
    except (RuntimeError, ValueError):  # no parameter common to all trials, or none that varied
        return {}
    return {key: value for key, value in found.items() if math.isfinite(value) and key != KEY}
