"""The sweeper behind the Hydra plugin: ask Optuna, launch one job through Hydra's launcher, tell Optuna; again.

What a job returns are its objectives; what it wants Optuna to know besides (constraints, attributes, pictures) it sets
on its trial itself, before it returns, through `sweep.study.live_trial`. However a job ends, its trial is told and the
study goes on. Ctrl-C ends it, and so does a fault of the input, which every further trial would share; either leaves
the trial to be continued by the same command.
"""

import gc
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import optuna
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from sweep import slots
from sweep.composing import keep_files
from sweep.database import BREAKS, told_of_storage
from sweep.disk import Shelf
from sweep.drawing import Ground, ground
from sweep.errors import Faults, InputError, Stopped, StorageLost
from sweep.interrupts import put_away_first
from sweep.job import Ended, Failure, Guarded, hung, run_job
from sweep.points import Compositions, Configs, Point, as_override, value_in
from sweep.recipes import Recipe, fixed_settings, read_recipe
from sweep.rules import in_order, read_conditions
from sweep.rungs import AGREEMENTS, agreements, as_plain, in_words
from sweep.samplers import check_sampler
from sweep.settings import Sampler, SearchSettings, Stopping, StudySettings, study_folder
from sweep.sharing import hold_of, wait_elsewhere
from sweep.slots import run_slots
from sweep.space import Arguments, Space, read_arguments
from sweep.study import ASKED, FINISHED, best, front, live_trial, load_study, open_study, stands_still

ATTEMPTS = 3  # of a trial in whose course the process is killed; out of memory, most often
HIDES_CARDS = "submitit_local"  # it sets CUDA_VISIBLE_DEVICES itself, for every launch from the first card on


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
        stands: Configs | None = None,
    ) -> None:
        """Args: `stands`: configurations that have been checked already."""
        self.search = search
        self.config = config
        self.loader = context.config_loader
        keep_files(self.loader)
        self.task = task
        self.stands = stands or {}
        self.study = study
        self.folder = study_folder(study)
        if "n_jobs" in config.hydra.launcher:  # joblib: a launch holds one job, and workers would be started for more
            config.hydra.launcher.n_jobs = 1
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=context, task_function=Guarded(task, search.trial_seconds)
        )
        self.slot = slots.own_number()
        self.began = slots.began()
        self.shelf = Shelf(self.folder, study.keep)
        self.seen: list[FrozenTrial] = []  # the study's trials as this process read them last
        self.on_front: list[FrozenTrial] = []  # of those that have ended
        self.judged: set[int] = set()  # numbers of those that have been compared with the front
        self.said: list[str] = []

    def sweep(self, arguments: Sequence[str]) -> list[FrozenTrial]:
        """Runs what is left of the study and returns all its trials.

        Raises:
            ValueError: for anything wrong with the command, the configuration or the study; nothing has run then.
            InputError: for a fault of the input that a job ran into, or when no trial of the study completed.
        """
        self.hold = hold_of(self.study, self.slot)
        given, field = self._read(arguments)
        configs = self._check(given, field) if self.slot is None else {}
        from sweep.progress import SweepProgress  # not for a command that is refused

        self.progress = SweepProgress(self.search, self.folder, self.study.slots)
        if self.slot is not None:
            return self._in_slot(given, field)
        recipes = [self._recipe(name, given, field) for name in self.search.enqueue]
        put_away_first()
        with self.hold.whole(), told_of_storage(self.folder):
            with self.hold.claim():
                fixed = self._fixed(configs, given.space)
                study = open_study(self.folder, self.search, given.space, fixed, self.study.heartbeat_seconds)
                self._enqueue(study, recipes)
                study.set_user_attr(ASKED, self.search.n_trials)
            self.progress.start(study, given, [recipe for recipe in recipes if recipe.misfit])
            if self.study.slots > 1 or self.search.trial_seconds is not None:  # a slot can be ended with its trial
                run_slots(self.study.slots, self.progress.say_plainly, lambda: len(_finished(study)))
            else:
                self._work(study, given, field)
            self._finish(study)
            trials = study.get_trials()
        if not any(trial.state == TrialState.COMPLETE for trial in trials):
            reasons = list(dict.fromkeys(str(trial.user_attrs.get("reason", "no reason recorded")) for trial in trials))
            traces = f"\n  Traces: {self.folder}/*/traceback.txt" if any(self.folder.glob("*/traceback.txt")) else ""
            raise InputError(f"no trial completed: {'; '.join(reasons[:3])}.{traces}")
        return trials

    def _in_slot(self, given: Arguments, field: Ground) -> list[FrozenTrial]:
        """What one of several slots does; the command that started it has opened the study."""
        put_away_first()
        slots.listen()
        study = load_study(self.folder, heartbeat_seconds=self.study.heartbeat_seconds)
        with self.hold.whole(), slots.at_work():
            self._work(study, given, field)
        return study.get_trials()

    def _work(self, study: optuna.Study, given: Arguments, field: Ground) -> None:
        """Trial after trial, until there are enough; one in hand when the server breaks off is found silent later."""
        for left in reversed(range(BREAKS)):
            try:
                with told_of_storage(self.folder):
                    while (trial := self._next(study, field)) is not None:
                        with self.hold.alive(study, trial):
                            self._run(study, trial, given)
                return
            except StorageLost as lost:
                if not left or not self.hold.is_back():
                    raise
                self.progress.say(f"{str(lost).splitlines()[0]} It is back, and the study goes on.")

    def _finish(self, study: optuna.Study) -> None:
        trials = study.get_trials(deepcopy=False)
        found = agreements(trials, self.search.objectives)
        study.set_user_attr(AGREEMENTS, as_plain(found))
        self.shelf.tidy(study)
        self.progress.finish(study)
        for line in in_words(found, self.search.stopping):
            self.progress.say_below(line)

    def _read(self, arguments: Sequence[str]) -> tuple[Arguments, Ground]:
        """The command line, and the space it searches with all that is said about it."""
        lacks = partial(getattr(self.task, "lacks", lambda config, key, choice: ""), self.config)
        given = read_arguments(arguments, self.search.params, self.loader, lacks)
        if given.plain:
            # Who lists what to run wants all of it; what a rung would have said is worth knowing for the next search.
            stopping = Stopping.never if self.search.stopping == Stopping.never else Stopping.measure
            self.search = replace(self.search, sampler=Sampler.grid, options={}, enqueue=[], stopping=stopping)
        conditions = read_conditions(self.search.when, self.search.rules, given.space, partial(value_in, self.config))
        given = replace(given, space=in_order(given.space, conditions))
        check_sampler(self.search, given.space, conditions)
        if unknown := self._unknown_experiments():
            there = ", ".join(self.loader.get_group_options("experiment"))
            raise InputError(f"`search.enqueue`: no experiment {', '.join(unknown)}; there are {there or 'none'}")
        field = ground(self.search, given.space, conditions, shuffled=not given.plain)
        if given.plain and field.listed is not None:
            self.search = replace(self.search, n_trials=len(field.listed))
        return given, field

    def _unknown_experiments(self) -> list[str]:
        options = cache(self.loader.get_group_options)  # asks for the folder each time
        found = {name: f"experiment/{name.removesuffix('.yaml')}".rpartition("/") for name in self.search.enqueue}
        return [name for name, (group, _, option) in found.items() if option not in options(group)]

    def _check(self, given: Arguments, field: Ground) -> Configs:
        """Composes every choice once, so that an unknown one is refused now and not in the third hour.

        The task may bring a `check` of its own: it gets the configurations with what was chosen in each, and what is
        wrong with those that could not be composed, to tell it all. What stands on the command line comes first; the
        choices of `search.params` take a second to compose.
        """
        typed: list[Point] = [Point()]
        listed: list[Point] = []
        lowest, highest = Point(), Point()
        for key, dist in given.space.items():
            if isinstance(dist, CategoricalDistribution):
                asked = typed if key in given.typed else listed
                asked += filter(None, (field.example(key, choice) for choice in dist.choices))
            elif isinstance(dist, IntDistribution | FloatDistribution) and key not in field.conditions.when:
                lowest[key], highest[key] = dist.low, dist.high
        # All at their lowest and all at their highest: where every repeat is 0, or a limit is more than there is.
        typed += [corner for corner in (lowest, highest) if corner and field.conditions.allow(corner)]
        always = [override for override in given.varied if override.get_key_element() not in field.conditions.when]
        keeps_rules = getattr(self.task, "keeps_rules", lambda config: True)
        compositions = Compositions(
            self.config, self.loader, given.fixed, always, keeps_rules, allow=field.conditions.allow
        )
        configs = dict(self.stands)
        for points in filter(None, (typed, listed)):
            new, faults = compositions.compose(points, known=configs)
            if (check := getattr(self.task, "check", None)) is not None:
                check(new, faults)
            elif faults:
                raise Faults(faults)
            configs |= new
        return configs

    def _fixed(self, configs: Configs, space: Space) -> dict[str, Any]:
        """What all trials of the study share: settings, conditions, and what is in the files they read."""
        fixed = fixed_settings(configs, [key for key in space if key not in self.search.when], self._groups(space))
        fixed |= {f"search.when.{key}": text for key, text in self.search.when.items() if key in space}
        fixed |= {"search.rules": self.search.rules} if self.search.rules else {}
        return {**fixed, **getattr(self.task, "contents", lambda configs: {})(configs)}

    def _groups(self, space: Space) -> list[str]:
        return [key for key in space if key in self.config.hydra.runtime.choices]

    def _recipe(self, name: str, given: Arguments, field: Ground) -> Recipe:
        return read_recipe(
            name,
            config=self.config,
            loader=self.loader,
            fixed=given.fixed,
            space=given.space,
            conditions=field.conditions,
        )

    def _enqueue(self, study: optuna.Study, recipes: Sequence[Recipe]) -> None:
        """Enqueues as many as there are trials for; a longer search takes the others."""
        trials = study.get_trials(deepcopy=False)
        queued = {trial.user_attrs.get("recipe") for trial in trials}
        new = [recipe for recipe in recipes if not recipe.misfit and recipe.name not in queued]
        for recipe in new[: max(0, self.search.n_trials - len(trials))]:
            study.enqueue_trial(recipe.params, user_attrs={"recipe": recipe.name}, skip_if_exists=True)

    def _next(self, study: optuna.Study, field: Ground) -> Trial | None:
        """A trial to run: one left unfinished, under its old number, or a new one; None when there are enough."""
        while True:
            with self.hold.claim():
                trial, why = self._claimed(study, field)
                if trial is not None:
                    self.hold.beat(study, trial)
                    return trial
            self._say_once(why)
            if self._time_is_up() or not wait_elsewhere(self.hold, study, self._say_once):
                return None

    def _say_once(self, text: str) -> None:
        if text and text not in self.said:
            self.said.append(text)
            self.progress.say(text)

    def _time_is_up(self) -> bool:
        limit = self.search.study_seconds
        return limit is not None and time.time() - self.began >= limit

    def _claimed(self, study: optuna.Study, field: Ground) -> tuple[Trial | None, str]:
        self.seen = study.get_trials(deepcopy=False)
        for left in self.hold.orphans(study, self.seen):
            trial = live_trial(study, left.number)
            given_up = hung(self._place(left.number))
            if given_up is None and left.user_attrs.get("attempts", 0) >= ATTEMPTS:
                given_up = Failure(f"the process was killed in it {ATTEMPTS} times (out of memory?)")
            if given_up is not None:
                self.progress.end(self._tell(study, trial, given_up), self._front(study))
                continue
            return field.settle(trial), ""
        why = self._enough(field)
        if why:
            return None, why if isinstance(why, str) else ""
        if not any(trial.state == TrialState.WAITING for trial in self.seen):
            return field.begin(study, self.seen), ""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Heartbeat of storage")  # `Hold.alive` beats outside of `optimize`
            trial = study.ask()  # the enqueued one
        return field.settle(trial), ""

    def _place(self, number: int) -> Path:
        return self.folder / f"{number:04d}"

    def _enough(self, field: Ground) -> bool | str:
        """Whether no further trial is begun; the reason, where it is not simply that all have been run."""
        search = self.search
        done = [trial for trial in self.seen if trial.state in FINISHED]
        if len(done) + len(self.hold.elsewhere(self.seen)) >= search.n_trials:
            return True
        if self._time_is_up():
            return f"time is up (search.study_seconds={search.study_seconds:g}); the same command goes on"
        if search.patience is not None and stands_still(done, search.patience):
            return f"the front has not grown in search.patience={search.patience} trials: this is the end"
        if not any(trial.state == TrialState.WAITING for trial in self.seen) and field.exhausted(self.seen):
            return f"every combination has been tried: {len(done)} of search.n_trials={search.n_trials}"
        return False

    def _run(self, study: optuna.Study, trial: Trial, given: Arguments) -> None:
        words = [*given.fixed, *(as_override(key, value) for key, value in trial.params.items())]
        self.progress.begin(trial, self.seen)
        began = time.monotonic()
        ended = self._launched(trial, words, plain=given.plain)
        try:
            trial.set_user_attr("seconds", round(time.monotonic() - began, 2))
            told = self._tell(study, trial, ended.result)
        except UpdateFinishedTrialError:  # this machine slept, say, and another one has finished it meanwhile
            self.progress.say(f"trial {trial.number:04d} was finished by another process; what that one told stands")
            return
        on_front = self._front(study)
        top = best(on_front)
        if top is not None and top.number == told.number and ended.config is not None and ended.choices is not None:
            from sweep.experiment import write_experiment  # it loads what a refused command does without

            write_experiment(ended.config, ended.choices, self.folder, told, self.search)
        self.shelf.put(study, told, on_front)
        self.progress.end(told, on_front)

    def _front(self, study: optuna.Study) -> list[FrozenTrial]:
        """The Pareto front now; a trial is compared with it once, so that the thousandth costs what the first did."""
        self.seen = study.get_trials(deepcopy=False)
        new = [trial for trial in self.seen if trial.state in FINISHED and trial.number not in self.judged]
        self.on_front = front([*self.on_front, *new])
        self.judged |= {trial.number for trial in new}
        return self.on_front

    def _launched(self, trial: Trial, words: list[str], *, plain: bool) -> Ended:
        """The job's result; a lost worker's job is launched again, as a killed process's is by the next one."""
        ours = [f"hydra.sweep.subdir={trial.number:04d}"]
        if plain:
            ours.append(f"search.stopping={self.search.stopping.value}")
        launcher = self.config.hydra.runtime.choices.get("hydra/launcher")
        if self.slot is not None and launcher == HIDES_CARDS and (card := os.environ.get(slots.CARDS)):
            ours.append(f"++hydra.job.env_set.{slots.CARDS}='{card}'")
        attempts = trial.user_attrs.get("attempts", 0)
        while True:
            trial.set_user_attr("attempts", attempts + 1)
            place = self._place(trial.number)
            try:
                ended = run_job(self.launcher, [*words, *ours], trial.number, self.search.objectives, place)
            except BaseException as fault:  # Ctrl-C and a fault of the input say nothing against the trial
                if isinstance(fault, KeyboardInterrupt):
                    # A job that was in the middle of a statement keeps the database from us while its frames live.
                    fault.__traceback__ = fault.__context__ = None
                    gc.collect()
                trial.set_user_attr("attempts", attempts)
                raise
            attempts += 1
            if not (isinstance(ended.result, Failure) and ended.result.lost) or attempts >= ATTEMPTS:
                return ended
            self.progress.say(f"trial {trial.number:04d} goes on: {ended.result.reason}")

    def _tell(self, study: optuna.Study, trial: Trial, result: list[float] | Failure | Stopped) -> FrozenTrial:
        if isinstance(result, Stopped):
            return study.tell(trial, state=TrialState.PRUNED)
        if not isinstance(result, Failure):
            return study.tell(trial, result)
        trial.set_user_attr("reason", result.reason)
        if result.trace:
            trace = self._place(trial.number) / "traceback.txt"
            trace.parent.mkdir(parents=True, exist_ok=True)
            trace.write_text(result.trace, encoding="utf-8")
        return study.tell(trial, state=TrialState.FAIL)


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=FINISHED)
