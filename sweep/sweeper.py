"""The sweeper behind the Hydra plugin: ask Optuna, launch one job through Hydra's launcher, tell Optuna; again.

What a job returns are its objectives; what it wants Optuna to know besides (constraints, attributes, pictures) it sets
on its trial itself, before it returns, through `sweep.study.live_trial`. However a job ends, its trial is told and the
study goes on. Ctrl-C ends it, and so does a fault of the input, which every further trial would share; either leaves
the trial to be continued by the same command.
"""

import math
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial, TrialState

from sweep.errors import InputError
from sweep.progress import SweepProgress
from sweep.recipes import Recipe, flat, read_recipe
from sweep.samplers import sampler_for
from sweep.settings import SearchSettings, StudySettings
from sweep.space import Arguments, Space, as_override, read_arguments, suggest
from sweep.study import FINISHED, live_trial, open_study, study_folder, study_lock
from trainer.base import BaseError
from trainer.examples import DatasetError

ATTEMPTS = 3  # of a trial in whose course the process is killed; out of memory, most often


@dataclass(frozen=True)
class Failure:
    """Why a trial has no values."""

    reason: str
    trace: str = ""


class Driver:
    """Runs one study. Built by the plugin, from what Hydra gives a sweeper."""

    def __init__(
        self,
        *,
        search: SearchSettings,
        study: StudySettings,
        config: DictConfig,
        context: HydraContext,
        task: TaskFunction,
    ) -> None:
        self.search = search
        self.config = config
        self.loader = context.config_loader
        self.task = task
        self.folder = study_folder(study)
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=context, task_function=task
        )
        self.progress = SweepProgress(self.search, self.folder)

    def sweep(self, arguments: Sequence[str]) -> list[optuna.trial.FrozenTrial]:
        """Runs what is left of the study and returns all its trials.

        Raises:
            ValueError: for anything wrong with the command, the configuration or the study; nothing has run then.
            InputError: for a fault of the input that a job ran into, or when no trial of the study completed.
        """
        given = read_arguments(arguments, self.search.params, self.loader)
        configs = self._check(given)
        recipes = [self._recipe(name, given) for name in self.search.enqueue]
        with study_lock(self.folder):
            groups = [key for key in given.space if key in self.config.hydra.runtime.choices]
            varied = [*given.space, *(group.split("/")[0] for group in groups)]
            fixed = {**flat(self.config, varied), **getattr(self.task, "contents", lambda configs: {})(configs)}
            study = open_study(self.folder, self.search, given.space, fixed)
            self._enqueue(study, recipes)
            self.progress.start(study, [recipe for recipe in recipes if recipe.misfit])
            for trial in self._trials(study, given.space):
                self._run(study, trial, given)
            self.progress.finish(study)
            trials = study.get_trials()
        _refuse_nothing(trials, self.folder)
        return trials

    def _check(self, given: Arguments) -> dict[str, DictConfig]:
        """Composes every choice once, so that an unknown one is refused now and not in the third hour.

        The task may bring a `check` of its own: it gets the configurations with what was chosen in each.
        """
        check = getattr(self.task, "check", lambda configs: None)
        check({"": self.config})
        choices, lowest, highest = [], [], []
        for key, dist in given.space.items():
            if isinstance(dist, CategoricalDistribution):
                choices += [as_override(key, choice) for choice in dist.choices]
            elif isinstance(dist, IntDistribution | FloatDistribution):
                lowest.append(as_override(key, dist.low))
                highest.append(as_override(key, dist.high))
        # All at their lowest and all at their highest: where every repeat is 0, or a limit is more than there is.
        asked = [[choice] for choice in choices] + [corner for corner in (lowest, highest) if corner]
        chosen = {
            " ".join(words): self.loader.load_sweep_config(self.config, [*given.fixed, *words]) for words in asked
        }
        check(chosen)
        return {"": self.config, **chosen}

    def _recipe(self, name: str, given: Arguments) -> Recipe:
        return read_recipe(name, config=self.config, loader=self.loader, fixed=given.fixed, space=given.space)

    def _enqueue(self, study: optuna.Study, recipes: Sequence[Recipe]) -> None:
        queued = {trial.user_attrs.get("recipe") for trial in study.get_trials(deepcopy=False)}
        for recipe in recipes:
            if not recipe.misfit and recipe.name not in queued:
                study.enqueue_trial(recipe.params, user_attrs={"recipe": recipe.name}, skip_if_exists=True)

    def _trials(self, study: optuna.Study, space: Space) -> Iterator[Trial]:
        """First what an earlier run left unfinished, under its old number; then new ones until there are enough."""
        for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.sampler = sampler_for(self.search, left.number)
            trial = live_trial(study, left.number)
            if left.user_attrs.get("attempts", 0) >= ATTEMPTS:
                trial.set_user_attr("reason", f"the process was killed in it {ATTEMPTS} times (out of memory?)")
                self.progress.end(study, study.tell(trial, state=TrialState.FAIL))
                continue
            suggest(trial, space)
            yield trial
        while len(study.get_trials(deepcopy=False, states=FINISHED)) < self.search.n_trials:
            trials = study.get_trials(deepcopy=False)
            waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
            study.sampler = sampler_for(self.search, min(waiting, default=len(trials)))
            trial = study.ask()
            suggest(trial, space)
            yield trial

    def _run(self, study: optuna.Study, trial: Trial, given: Arguments) -> None:
        params = [as_override(key, value) for key, value in trial.params.items()]
        self.progress.begin(study, trial)
        began = time.monotonic()
        attempts = trial.user_attrs.get("attempts", 0)
        trial.set_user_attr("attempts", attempts + 1)
        try:
            result = self._launch([*given.fixed, *params, f"hydra.sweep.subdir={trial.number:04d}"], trial.number)
        except BaseException:  # Ctrl-C and a fault of the input say nothing against the trial
            trial.set_user_attr("attempts", attempts)
            raise
        trial.set_user_attr("seconds", round(time.monotonic() - began, 2))
        if isinstance(result, Failure):
            trial.set_user_attr("reason", result.reason)
            if result.trace:
                trace = self.folder / f"{trial.number:04d}" / "traceback.txt"
                trace.parent.mkdir(parents=True, exist_ok=True)
                trace.write_text(result.trace, encoding="utf-8")
            told = study.tell(trial, state=TrialState.FAIL)
        else:
            told = study.tell(trial, result)
        self.progress.end(study, told)

    def _launch(self, overrides: list[str], number: int) -> list[float] | Failure:
        """One job through the launcher. The edge of a trial: whatever goes wrong in a job becomes a reason here.

        Raises:
            InputError: if what went wrong is the input's fault; the trial is then not told anything.
        """
        try:
            [job] = self.launcher.launch([overrides], initial_job_idx=number)
        except SystemExit as exit_:  # Hydra's run_job lets it through
            return Failure(f"the job called sys.exit({exit_.code!r})", traceback.format_exc())
        except Exception as error:  # a launcher's own: a killed worker, a lost node
            return _failure(error)
        # `return_value` would raise the job's exception and print about it; the status is looked at instead.
        if job.status == JobStatus.FAILED and _is_study_wide(job._return_value):
            raise InputError(
                f"{job._return_value}\n  Trial {number:04d} met this and is not counted:"
                " put it right, and the same command continues the study."
            ) from job._return_value
        return self._values(job)

    def _values(self, job: JobReturn) -> list[float] | Failure:
        value: Any = job._return_value
        if job.status == JobStatus.FAILED:
            return _failure(value)
        values = list(value) if isinstance(value, Sequence) else [value]
        names = self.search.objectives
        if len(values) != len(names) or not all(isinstance(v, int | float) for v in values):
            return Failure(f"the job returned {value!r} where {', '.join(names)} were expected")
        odd = [f"{name} is {v}" for name, v in zip(names, values, strict=True) if not math.isfinite(v)]
        return Failure("; ".join(odd)) if odd else [float(v) for v in values]


def _refuse_nothing(trials: Sequence[optuna.trial.FrozenTrial], folder: Path) -> None:
    """A sweep in which nothing was scored has not succeeded."""
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        reasons = list(dict.fromkeys(str(trial.user_attrs.get("reason", "no reason recorded")) for trial in trials))
        raise InputError(f"no trial completed: {'; '.join(reasons[:3])}.\n  Traces: {folder}/*/traceback.txt")


def _is_study_wide(error: BaseException) -> bool:
    """Whether every trial of the study would run into this, so that none of them is to blame."""
    if isinstance(error, InputError | DatasetError | BaseError):
        return True
    if "metrics.images" not in sys.modules:  # who raised a ScoreError has loaded it, and torch with it
        return False
    from metrics.images import SampleError, ScoreError

    return isinstance(error, ScoreError) and not isinstance(error, SampleError)


def _failure(error: BaseException) -> Failure:
    lines = str(error).strip().splitlines() or ["no message"]
    trace = "".join(traceback.format_exception(error))
    return Failure(f"{type(error).__name__}: {lines[0]}", trace)
