"""The door: Hydra composes a configuration, here it becomes plain settings, and nothing behind knows Hydra."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from sweep.command import Command, read_command
from sweep.composing import Composer, composer, refuse_lists
from sweep.errors import Faults, ImpossibleTrial, InputError
from sweep.interrupts import INTERRUPTED, LAST_WORDS, put_away_first
from sweep.kept_manual import tell
from sweep.manual import manual, nearest, unknown_keys
from sweep.points import Compositions, Configs, choices, key_of, searched
from sweep.refusal import NO_PLACE, Told, about, each, message
from sweep.schema import Config, register
from sweep.settings import Sampler, SearchSettings
from sweep.typed import leave_at_once, refuse
from trainer.captioner_settings import CaptionerKind

WRONG = (ValueError, OSError, RuntimeError, HydraException, OmegaConfBaseException)
ROOMS = ("sweep", "trainer", "metrics")
LEAVE_OUT = (
    "A rule keeps a search from values that do not go together:"
    " 'search.rules=[\"mix.repeats.512 + mix.repeats.768 > 0\"]'"
)


@dataclass(frozen=True)
class Place:
    """Where a job runs: its folder, its number in the study (None outside a sweep), and what was asked for."""

    folder: Path
    number: int | None
    overrides: tuple[str, ...]


Task = Callable[[Config, Place], Any]
Show = Callable[[DictConfig], None]
Check = Callable[[Mapping[str, Config]], None]
Contents = Callable[[Mapping[str, Config]], dict[str, str]]
Lacks = Callable[[Config, str, str], str]


def settings(config: DictConfig) -> Config:
    """The border: the composed configuration as plain dataclasses, which check their own rules.

    Raises:
        Faults: naming every room's rule that is broken, not the first alone.
    """
    parts: dict[str, Any] = {}
    faults = [f"`{key}`: no such setting. {nearest(key)}" for key in unknown_keys(config)]
    for part in fields(Config):
        try:
            parts[part.name] = plain(config[part.name])
        except (ValueError, OmegaConfBaseException) as fault:
            faults += _faults(fault, config, part.name)
    if faults:
        raise Faults(faults)
    return Config(**parts)


def plain(node: DictConfig) -> Any:
    """A part of a configuration as the dataclass it stands for; also for the sweeper in another's application."""
    return OmegaConf.to_object(node)


class Job:
    """What Hydra calls for every configuration: the border, then the checks of a single run, then the task."""

    def __init__(self, task: Task, check: Check | None, contents: Contents | None, lacks: Lacks | None = None) -> None:
        self.task = task
        self.lacks = lacks
        self.check = check
        self.contents = contents
        self.begun = False  # whether the task, or a sweep's first one, has been reached
        self.checked = False  # whether the check has been reached
        self.stands = False  # whether the configuration itself, without choices, has passed it
        self.sweeps = False  # whether a configuration file asks for a sweep, as -m does
        self.rehearses = False  # whether to go no further than that
        self.refused: Exception | None = None
        self.asked_of: tuple[DictConfig | None, Config | None] = None, None  # whose choices may lack something

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrives in a launcher's process, which has not come through this door."""
        self.__dict__.update(state)
        register()

    def __call__(self, config: DictConfig) -> Any:
        node = HydraConfig.get()
        return self._trial(config, node) if node.mode == RunMode.MULTIRUN else self._single(config, node)

    def _trial(self, config: DictConfig, node: Any) -> Any:
        self.begun = True
        try:
            made = settings(config)
        except InputError as fault:
            raise ImpossibleTrial(str(fault)) from fault
        return self.task(made, _place(node, node.job.num))

    def _single(self, config: DictConfig, node: Any) -> Any:
        try:
            made = settings(config)
            if not self.stands:
                self._check({"": made})
            self.begun = True
            put_away_first()
            return self.task(made, _place(node, None))
        except WRONG as fault:
            if not self.is_refusal(fault):
                raise
            self.refused = fault  # raised by `start`: Hydra would first print the overrides
            if not self.begun and node.output_subdir is not None:
                _take_back(Path(node.runtime.output_dir), node.output_subdir)
            return None

    def look_first(self, config: DictConfig, loader: ConfigLoader) -> Configs:
        """A sweep's own configuration and the choices that were typed, before Optuna is loaded, for the sweeper.

        Returns:
            Those that stand; none where something else may be wrong with the search, to be told along by the sweeper.
        """
        search = settings(config).search
        parser = OverridesParser.create(config_loader=loader)
        typed = parser.parse_overrides(list(config.hydra.overrides.task))
        varied = searched(typed, search.params, parser)
        sweeps = [word for word in typed if word.is_sweep_override()]
        others = [word for word in typed if not word.is_sweep_override()]
        if not _lists_alone(sweeps, others, search):
            return {}
        points = [{word.get_key_element(): choice} for word in sweeps for choice in choices(word)]
        fixed = [word.input_line or "" for word in others]
        compositions = Compositions(config, loader, fixed, varied, self.keeps_rules)
        configs, faults = compositions.compose([{}, *points])
        self.check_all(configs, faults)
        return configs

    def keeps_rules(self, config: DictConfig) -> bool:
        """Whether a configuration breaks none of its rooms' rules, for the sweeper."""
        try:
            settings(config)
        except InputError:
            return False
        return True

    def is_refusal(self, fault: Exception) -> bool:
        """Whether this is for the person: before the task has begun everything is, later what our own rooms say."""
        ours = type(fault).__module__.split(".")[0] in ROOMS
        return not self.begun or ours or (isinstance(fault, OSError) and fault.errno in NO_PLACE)

    def check_all(self, configs: Configs, faults: Sequence[str] = ()) -> None:
        """The check of all configurations of a sweep, for the sweeper.

        Args:
            faults: what is wrong with other configurations, to be told along.
        """
        made, wrong = _all_settings(configs)
        self._check(made, [*faults, *wrong])

    def _check(self, configs: Mapping[str, Config], faults: Sequence[str] = ()) -> None:
        told, refused, cause = [*faults], self.rehearses or bool(faults), None
        self.checked = bool(configs)
        # Of a command that is refused already no model is asked anything.
        asks = any(c.tagger.model or c.captioner.kind != CaptionerKind.rules for c in configs.values())
        if self.check is not None and configs and not (refused and asks):
            try:
                self.check(configs)
            except WRONG as fault:
                told, cause = [*told, *each(fault)], fault
        if told or self.rehearses:
            raise Faults(told) from cause

    def contents_of(self, configs: Configs) -> dict[str, str]:
        """What they read, for the sweeper."""
        if self.contents is None:
            return {}
        return self.contents({chosen: settings(config) for chosen, config in configs.items()})

    def lacking(self, config: DictConfig, key: str, choice: str) -> str:
        """What a choice would need, for the sweeper; a configuration that is wrong is refused later."""
        if self.lacks is None:
            return ""
        if self.asked_of[0] is not config:  # once for all choices
            try:
                self.asked_of = config, settings(config)
            except InputError:
                self.asked_of = config, None
        made = self.asked_of[1]
        return "" if made is None else self.lacks(made, key, choice)


def start(
    task: Task,
    *,
    check: Check | None = None,
    contents: Contents | None = None,
    lacks: Lacks | None = None,
    keeps_folder: bool = True,
    of_study: bool = False,
    keep_manual: Callable[[str], None] | None = None,
) -> None:
    """Composes the configuration from the command line and runs the task on it, or a sweep of it with -m.

    Args:
        check: looks at every configuration of a sweep that can be told beforehand, before any trial; a single run is
            checked the same way. Raises ValueError for what cannot work.
        contents: what a sweep's configurations read -> a hash of it; a study is continued only while it is the same.
        lacks: (configuration, key, choice) -> what a choice of `search.params` would need, which is then left out.
        keeps_folder: whether the task has results to keep; if not, Hydra makes no folder for it.
        of_study: whether the task looks at a study, which the words name as `sweep.naming` says.
        keep_manual: gets what --help has printed.
    """
    job = Job(task, check, contents, lacks)

    def run(config: DictConfig) -> Any:  # Hydra asks for the file of a function; an object has none
        return job(config)

    def show_manual(config: DictConfig) -> None:
        text = manual(sys.modules[task.__module__].__doc__ or "", config)
        tell(text)
        if keep_manual is not None:
            keep_manual(text)
        leave_at_once()

    # looked for by the sweeper
    run.look_first, run.check = job.look_first, job.check_all  # type: ignore[attr-defined]
    run.contents, run.lacks, run.keeps_rules = job.contents_of, job.lacking, job.keeps_rules  # type: ignore[attr-defined]
    register()
    command = read_command(keeps_folder=keeps_folder, of_study=of_study)
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # read when the libraries are imported, in the task
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    traces_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise instead of printing; what is printed is decided here
    try:
        with composer(command.folder) as composes:
            fault = _run(composes, command, job, run, show_manual if command.asks_help else None)
            if fault is not None:
                if traces_wanted or not job.is_refusal(fault):
                    raise fault
                refuse(Faults(_all_faults(fault, composes, command, job, run)))
    except KeyboardInterrupt:
        print(LAST_WORDS, file=sys.stderr)
        sys.exit(INTERRUPTED)


def _run(composes: Composer, command: Command, job: Job, run: TaskFunction, show: Show | None) -> Exception | None:
    """Looks at the command line's configuration, if it is one, and runs the task; what was wrong, if something was."""
    if command.hydras:
        GlobalHydra.instance().clear()  # it makes its own
        begin = hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")(show or run)
    else:
        if not command.sweeps:
            fault = _rehearse(composes, command.overrides, job, show)
            if fault is not None or show is not None:
                return fault
        sweeps = job.sweeps or command.sweeps
        mode = f"hydra.mode={RunMode.MULTIRUN.name if sweeps else RunMode.RUN.name}"
        begin = partial(composes.multirun if sweeps else composes.run, "config", run, [*command.overrides, mode])
    job.checked, job.refused = False, None
    try:
        begin()
    except WRONG as fault:
        return fault
    return job.refused


def _all_faults(fault: Exception, composes: Composer, command: Command, job: Job, run: TaskFunction) -> list[str]:
    """What is wrong with a command besides: without the words to blame, as far as the check, again and again."""
    told, words = Told(), command.overrides
    found: Exception | None = fault
    while found is not None:
        left = told.add(found, words)
        if job.begun or job.checked or command.hydras or left == words:
            break
        words, job.rehearses = left, True
        found = _rehearse(composes, words, job, sweep=run if command.sweeps else None)
    return told.faults


def _rehearse(
    composes: Composer, words: list[str], job: Job, show: Show | None = None, sweep: TaskFunction | None = None
) -> Exception | None:
    """What is wrong with a run of these overrides, up to and with the check, before a folder is made for it.

    Args:
        show: gets the configuration in the check's place.
        sweep: what Hydra would run, if it is a sweep.
    """
    job.checked = False
    try:
        if sweep is not None:
            composes.multirun("config", sweep, words, with_log_configuration=False)
            return None
        config = composes.compose_config("config", words, RunMode.MULTIRUN, validate_sweep_overrides=False)
        job.sweeps = config.hydra.mode == RunMode.MULTIRUN
        if job.sweeps and show is None:
            return None  # its sweeper checks it
        HydraConfig.instance().set_config(config)  # what ${hydra:…} names
        with open_dict(config.hydra.runtime), read_write(config.hydra.runtime):
            config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir).absolute())
        HydraConfig.instance().set_config(config)
        if show is not None:
            show(config)
        else:
            refuse_lists(words)
            job.check_all({"": config})
        job.stands = True
    except WRONG as fault:
        return fault
    return None


def _take_back(folder: Path, hydras: str) -> None:
    """Removes the folder of a refused run, if Hydra's notes are all there is in it."""
    if {entry.name for entry in folder.iterdir()} <= {hydras}:
        shutil.rmtree(folder)
        for parent in folder.parents[:2]:  # single/ and multirun/
            if parent == Path.cwd() or any(parent.iterdir()):
                break
            parent.rmdir()


def _place(node: Any, number: int | None) -> Place:
    return Place(Path(node.runtime.output_dir), number, tuple(node.overrides.task))


def _faults(fault: Exception, config: DictConfig, part: str) -> list[str]:
    if isinstance(fault, MissingMandatoryValue):
        keys = sorted(OmegaConf.missing_keys(config[part]))
        return [f"`{key}` must be given: add {key}=VALUE" for key in keys]
    text = message(fault).splitlines()[0]
    if text.startswith("`") and not text.startswith((f"`{part}.", f"`{part}`")):
        text = f"`{part}.{text[1:]}"  # a room names its setting; the key to type has its node in front
    key = getattr(fault, "full_key", None) or part
    return [f"`{key}`: {text}" if isinstance(fault, OmegaConfBaseException) else text]


def _lists_alone(sweeps: Sequence[Override], others: Sequence[Override], search: SearchSettings) -> bool:
    """Whether nothing but its lists of choices can be wrong with a search once its settings stand."""
    if search.when or search.rules or search.options or search.sampler == Sampler.cmaes:
        return False
    given = any(key_of(word).startswith(("search.params", "search.enqueue")) for word in others)
    return not given and all(word.is_choice_sweep() for word in sweeps)


def _all_settings(configs: Configs) -> tuple[dict[str, Config], list[str]]:
    """The settings of those that keep their rules, and what is wrong with the others."""
    made, faults, together = {}, list[str](), False
    for chosen, config in configs.items():
        try:
            made[chosen] = settings(config)
        except InputError as fault:
            new = [line for line in str(fault).splitlines() if line not in faults]
            faults += [f"with {chosen}: {line}" if chosen else line for line in new]
            together |= bool(chosen) and any(f"{about(line)}=" not in chosen for line in new)
    return made, [*faults, LEAVE_OUT] if together else faults
