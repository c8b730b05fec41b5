"""Weights & Biases: a run per trial and a summary run per study, in the study's folder; online only when logged in.

A trial's run is open while the trial runs, so that its curves can be watched and wandb measures the machine meanwhile;
a trial that ends early or fails leaves its run with the reason. Offline, `wandb sync` uploads the folder later,
pictures and files included, as everything lies below it; from the folder that the sweep was started in, as wandb notes
where tables and LoRAs wait for their upload. It sends that note along, so it is written from there and not from the
root (for a study that lies elsewhere, `study.folder`, it cannot be): nothing of this machine reaches the server, no
host name, no home, no key. A run's id is made from study and trial, so that a trial run again continues its run.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sweep.errors import Stopped
from sweep.outcome import Candidate, Outcome, plain_config
from sweep.schema import Config
from sweep.settings import study_folder
from sweep.study import dominates, is_feasible, load_study
from sweep.summary import CANNOT_SAY
from sweep.typed import python, typed

if TYPE_CHECKING:
    from sweep.findings import Entry, Findings
    from sweep.rungs import Rung

FOLDER = "wandb"
ABSOLUTE = re.compile(r"(?<![\w.…/])(?:~[\w-]*)?/(?:[^\s'\":,]+/)*([^\s'\":,/]+)/?")  # a path from the root or a home
UPLOAD_S = 120.0  # a server that has gone away holds up the next trial for no longer
MEASURED_S = 5.0  # between two measurements of the machine
NONE = "track=off for none"
Say = Callable[[str], None]


class Tracked:
    """The run of one trial; of a trial that is not tracked, nothing.

    Never fails the trial: what goes wrong is told in one line, and the rest of the trial is not tracked.
    """

    def __init__(self, place: Path, settings: Mapping[str, Any] | None, say: Say) -> None:
        self.place, self.say = place, say
        self.name = settings["name"] if settings else ""
        self.steps = 0
        self.run: Any = None
        if settings:
            self._guarded(lambda: self._open(settings))

    def _open(self, settings: Mapping[str, Any]) -> None:
        self.run = open_run(self.place, settings, self.say)
        for group in ("train", "checkpoint", "rung"):
            self.run.define_metric(f"{group}/step")
            self.run.define_metric(f"{group}/*", step_metric=f"{group}/step")

    def losses(self, losses: Sequence[float], validation: float | None) -> None:
        """The loss of every optimiser step since the last call, and on held-out pictures after the last of them."""

        def log() -> None:
            for index, loss in enumerate(losses, start=1):
                last = index == len(losses) and validation is not None
                held_out = {"train/validation_loss": validation} if last else {}
                self.run.log({"train/loss": loss, "train/step": self.steps + index} | held_out)
            self.steps += len(losses)

        self._guarded(log)

    def rung(self, rung: "Rung") -> None:
        """What the trial was worth on its way."""
        values = {f"rung/{name}": value for name, value in zip(("style", "composition"), rung.values, strict=True)}
        broken = {f"rung/{name}": value for name, value in rung.constraints.items()}
        self._guarded(lambda: self.run.log({"rung/step": rung.step, "rung/budget": 1 / rung.part} | values | broken))

    def candidate(self, candidate: Candidate, strengths: Sequence[float]) -> None:
        """The scores of a checkpoint at one of these strengths."""
        at = f"at {candidate.strength:g}/" if len(strengths) > 1 else ""
        values = {"style": candidate.style, "composition": candidate.composition, **candidate.diagnostics}
        where = {"checkpoint/step": candidate.step, "checkpoint/images_seen": candidate.images_seen}
        self._guarded(lambda: self.run.log(where | {f"checkpoint/{at}{name}": v for name, v in values.items()}))

    def outcome(self, outcome: Outcome, folder: Path) -> None:
        """What the trial stands for: pictures, values, timings, and its LoRA if no trial before has beaten it."""
        self._guarded(lambda: _log_outcome(self.run, outcome, folder, keeps_lora=_on_front(outcome, folder.parent)))

    @classmethod
    def off(cls) -> "Tracked":
        """Tracks nothing."""
        return cls(Path(), None, lambda _: None)

    def end(self, state: str, reason: str = "") -> None:
        """Closes the run, with how the trial ended."""

        def close() -> None:
            self.run.summary.update({"state": state, **({"reason": without_machine(reason)} if reason else {})})
            close_run(self.run, failed=state == "failed")

        self._guarded(close)
        self.run = None

    def _guarded(self, work: Callable[[], None]) -> None:
        if self.run is None and self.name == "":
            return
        try:
            with _environment(self.place):
                work()
        # wandb raises its own errors, those of its service's mailbox, OSErrors and more; none is worth a trained LoRA.
        except Exception as error:
            self.say(f"warning: {self.name} is not all in Weights & Biases ({type(error).__name__}: {error}); {NONE}")
            if self.run is not None:
                with suppress(Exception):  # an open run would hold up the end of the process
                    self.run.finish(exit_code=1)
            self.run, self.name = None, ""


@contextmanager
def tracked(config: Config, folder: Path, number: int | None, identity: str, say: Say) -> Iterator[Tracked]:
    """The trial's run while it runs; imports and leaves nothing with `track=off` or WANDB_MODE=disabled.

    Args:
        folder: the trial's; the run lies in that of its study, where there is one.
        number: the trial's; None outside of a study.
        identity: of everything the values depend on; names a single run.
    """
    settings = {
        "project": config.track.project,
        "entity": config.track.entity,
        "group": config.study.name,
        "job_type": "trial",
        "name": f"trial-{number:04d}" if number is not None else folder.name,
        "id": run_id(config.study.name, number if number is not None else identity),
        "config": without_machine(plain_config(config)),
    }
    study = study_folder(config.study)
    place = study if folder.is_relative_to(study) else folder
    run = Tracked(place, settings if config.track.wandb and not _is_disabled() else None, say)
    try:
        yield run
    except Stopped as stop:
        run.end("stopped early", str(stop))
        raise
    except BaseException as fault:  # also of Ctrl-C and of a time-out: the run must not stay open
        run.end("failed", f"{type(fault).__name__}: {fault}")
        raise
    run.end("complete")


def track_study(found: "Findings", say: Say) -> None:
    """Writes the summary run: all trials, the front, importances, the answers, and the LoRAs of the front.

    With the settings of the study's own trials; nothing for a study that was not tracked or has no outcome.
    """
    known = next((entry.outcome for entry in found.entries if entry.outcome is not None), None)
    tracked = known.config.get("track", {}) if known is not None else {}
    if known is None and found.unreadable:
        say("Weights & Biases: no summary, as another version of stylesweep wrote these trials")
    if known is None or not tracked.get("wandb") or _is_disabled():
        return
    settings = {
        "project": tracked["project"],
        "entity": tracked.get("entity"),
        "group": found.name,
        "job_type": "summary",
        "name": f"{found.name}-summary",
        "id": run_id(found.name, "summary"),
    }
    try:
        with _environment(found.folder):
            run = open_run(found.folder, settings, say)
            try:
                _log_study(run, found)
            finally:
                close_run(run)
    except Exception as error:  # as above
        say(f"warning: the summary is not all in Weights & Biases ({type(error).__name__}: {error}); {NONE}")
    runs = found.folder / FOLDER
    if any(runs.glob("offline-run-*")):
        # Not the program `wandb`: it tells the server where on this machine it lies.
        say(f"Weights & Biases, offline; to upload it:\n  {python()} -m wandb sync {typed(runs)}/offline-run-*")


def _on_front(outcome: Outcome, study: Path) -> bool:
    """Whether the outcome is usable and none of the study's trials so far is better in both objectives."""
    if outcome.number is None:
        return True
    known = [trial.values for trial in load_study(study).get_trials(deepcopy=False) if is_feasible(trial)]
    return outcome.best.feasible and not any(dominates(values, outcome.values) for values in known)


def _is_disabled() -> bool:
    return os.environ.get("WANDB_MODE") == "disabled"


def run_id(study: str, part: object) -> str:
    """The id of a run: the same for the same part of the same study."""
    return hashlib.blake2b(f"{study}/{part}".encode(), digest_size=8).hexdigest()


@contextmanager
def _environment(place: Path) -> Iterator[None]:
    """Tables' pictures and artifacts go where WANDB_DATA_DIR says, by default outside of the study."""
    wanted = {"WANDB_DATA_DIR": str(_from_here(place / FOLDER)), "WANDB_SILENT": "true"}
    kept = {name: os.environ.get(name) for name in wanted}
    os.environ |= wanted
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _from_here(place: Path) -> Path:
    """A path without this machine's folders that wandb, which makes every path absolute, leaves as it is.

    Only where the study lies below the working folder, and on Linux; elsewhere the path as it is.
    """
    here = Path("/proc/self/cwd")  # of wandb's own process too
    return here / place.relative_to(Path.cwd()) if here.exists() and place.is_relative_to(Path.cwd()) else place


def open_run(place: Path, settings: Mapping[str, Any], say: Say) -> Any:
    """A run below `place`: online if there is a login and a server, else offline."""
    (place / FOLDER).mkdir(parents=True, exist_ok=True)
    mode = _mode()
    if mode == "online":
        try:
            return _run(place, settings, mode)
        except Exception as error:  # wandb's own, those of requests and of its service
            say(f"warning: Weights & Biases is out of reach, the run is written offline: {error}")
    for old in (place / FOLDER).glob(f"offline-run-*-{settings['id']}"):
        shutil.rmtree(old, ignore_errors=True)  # of a trial that was cut off, or of an earlier summary: all comes again
    return _run(place, settings, "offline")


def _run(place: Path, settings: Mapping[str, Any], mode: Literal["online", "offline"]) -> Any:
    import wandb

    return wandb.init(
        **settings,
        dir=str(place),
        resume="allow",
        mode=mode,
        reinit="create_new",
        settings=wandb.Settings(
            silent=True,
            console="off",
            x_disable_meta=True,
            disable_job_creation=True,
            x_save_requirements=False,
            x_stats_sampling_interval=MEASURED_S,
            disable_git=True,
            disable_code=True,
            save_code=False,
            host="",
            program="stylesweep",
            finish_timeout=UPLOAD_S,
            finish_timeout_raises=True,
        ),
    )


def close_run(run: Any, *, failed: bool = False) -> None:
    """Ends a run and takes wandb's own logs away, which are full of this machine's paths."""
    folder, offline = Path(run.dir).parent, run.offline
    run.finish(exit_code=int(failed))
    if offline:
        shutil.rmtree(folder / "logs", ignore_errors=True)
        for link in folder.parent.glob("debug*.log"):
            link.unlink()


def _log_outcome(run: Any, outcome: Outcome, folder: Path, *, keeps_lora: bool) -> None:
    import wandb

    best = outcome.best
    pictures = {"contact_sheet": wandb.Image(str(folder / outcome.sheet))} if (folder / outcome.sheet).is_file() else {}
    table = _samples(outcome, folder)
    run.log(pictures | ({"samples": table} if table is not None else {}))
    run.summary.update(
        {
            "style": best.style,
            "composition": best.composition,
            "rectangle": max(0.0, best.style) * max(0.0, best.composition),
            "feasible": best.feasible,
            "strength": best.strength,
            "lora": f"{folder.name}/{best.lora}" if not Path(best.lora).is_absolute() else Path(best.lora).name,
            **{f"constraint/{name}": value for name, value in best.constraints.items()},
            **{f"seconds/{part}": value for part, value in outcome.timings.items()},
            **({"about": CANNOT_SAY} if outcome.config.get("base", {}).get("scale", 1) != 1 else {}),
        }
    )
    if keeps_lora and (folder / best.lora).is_file():
        run.log_artifact(_lora(folder / best.lora, outcome.config["study"]["name"], folder.name, outcome, best.values))


def _samples(outcome: Outcome, folder: Path) -> Any:
    """Every prompt without and with the LoRA; None where the pictures are not all there."""
    import wandb

    prompts = outcome.config.get("eval", {}).get("prompts", [])
    pairs = [
        (folder / base, folder / sample) for base, sample in zip(outcome.base_images, outcome.samples, strict=False)
    ]
    if len(pairs) != len(prompts) or not all(file.is_file() for pair in pairs for file in pair):
        return None
    names = sorted(outcome.best.per_image)
    table = wandb.Table(columns=["prompt", "seed", "group", "base", "LoRA", *names])
    for index, (prompt, (base, sample)) in enumerate(zip(prompts, pairs, strict=True)):
        values = [outcome.best.per_image[name][index] for name in names]
        pictures = [wandb.Image(str(base)), wandb.Image(str(sample))]
        table.add_data(prompt["text"], prompt["seed"], prompt["group"], *pictures, *values)
    return table


def _log_study(run: Any, found: "Findings") -> None:
    import wandb

    from sweep.answers import answers, headline, in_markdown, state
    from sweep.report import table_lines

    lines = table_lines(found)
    columns = list(dict.fromkeys(key for line in lines for key in line))
    # One type per column is what W&B's tables take.
    rows = {line["trial"]: [_cell(line.get(column)) for column in columns] for line in lines}
    front = [entry.number for entry in found.of("front")]
    run.log(
        {
            "trials": wandb.Table(columns=columns, data=list(rows.values()), allow_mixed_types=True),
            "front": wandb.Table(columns=columns, data=[rows[number] for number in front], allow_mixed_types=True),
        }
    )
    told = {answer.question: in_markdown(answer).partition("** ")[2] for answer in answers(found)}
    run.summary.update(
        {
            "headline": headline(found),
            "state": state(found),
            "answers": without_machine(told),
            "front": front,
            "importance": dict(found.importances),
        }
    )
    if found.sandbox:
        run.summary["about"] = CANNOT_SAY
    if found.best is not None and not found.doubt:
        run.summary.update({f"best/{k}": v for k, v in zip(found.names, found.best.trial.values, strict=True)})
        run.summary["best/trial"] = found.best.number
    for entry in found.of("front"):
        _log_lora(run, found, entry)


def _log_lora(run: Any, found: "Findings", entry: "Entry") -> None:
    """The LoRA under the name that its trial gave it, which W&B takes for the same version: now with its aliases."""
    file = found.folder / str(entry.trial.user_attrs.get("lora", ""))
    if file.is_file() and entry.outcome is not None:
        made = _lora(file, found.name, entry.number, entry.outcome, entry.trial.values)
        run.log_artifact(made, aliases=["front", *["best"] * (entry.relation == "best")])


def _lora(file: Path, study: str, trial: str, outcome: Outcome, values: Sequence[float]) -> Any:
    import wandb

    described = {"trial": trial, "captions": outcome.captions, "mix": outcome.mix}
    metadata = without_machine(described) | {"strength": outcome.best.strength, "values": list(values)}
    artifact = wandb.Artifact(f"{_plain(study)}-{_plain(trial)}", type="lora", metadata=metadata)
    artifact.add_file(str(file), name=f"{_plain(study)}-{_plain(trial)}.safetensors")
    return artifact


def _plain(name: str) -> str:
    """What W&B takes as an artifact's name."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def _cell(value: Any) -> Any:
    return None if value == "" else without_machine(value)


def _mode() -> Literal["online", "offline"]:
    """Offline unless there is a key; whoever sets WANDB_MODE has decided."""
    import wandb

    if os.environ.get("WANDB_MODE", "online") != "online":
        return "offline"
    return "online" if wandb.login(prompt=False) else "offline"


def without_machine(value: Any) -> Any:
    """Settings and texts without what says whose machine it is: absolute paths keep their last part only."""
    if isinstance(value, Mapping):
        return {key: without_machine(below) for key, below in value.items()}
    if isinstance(value, list):
        return [without_machine(below) for below in value]
    return ABSOLUTE.sub(r"…/\1", value) if isinstance(value, str) else value
