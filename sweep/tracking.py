"""Weights & Biases: a run per trial and a summary run per study, in the study's folder; online only when logged in.

Offline, `wandb sync` uploads the folder later, pictures and files included, as everything lies below it. Nothing of
this machine reaches the server: no host name, no path from the root, no key. One path stays in the offline files, which
is wandb's own note of where tables and LoRAs wait for their upload (`wandb/artifacts/staging` in the study's folder);
`wandb sync` reads it and does not send it, and the folder has to stay where it was until then. A run's id is made from
study and trial, so that a trial run again continues its run.
"""

import hashlib
import os
import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sweep.outcome import Outcome
from sweep.schema import Config
from sweep.study import study_folder
from sweep.summary import CANNOT_SAY
from sweep.typed import python, typed

if TYPE_CHECKING:
    from sweep.findings import Entry, Findings

FOLDER = "wandb"
ABSOLUTE = re.compile(r"(?<![\w.…/])(?:~[\w-]*)?/(?:[^\s'\":,]+/)*([^\s'\":,/]+)/?")  # a path from the root or a home
Say = Callable[[str], None]


def track(outcome: Outcome, config: Config, folder: Path, say: Say) -> None:
    """Writes the trial's run; does nothing, and imports nothing, with `track=off` or WANDB_MODE=disabled.

    Never fails the trial, which is finished: what goes wrong is told in one line.
    """
    if not config.track.wandb or _is_disabled():
        return
    place = study_folder(config.study) if outcome.number is not None else folder
    settings = {
        "project": config.track.project,
        "entity": config.track.entity,
        "group": config.study.name,
        "job_type": "trial",
        "name": f"trial-{outcome.number:04d}" if outcome.number is not None else "single",
        "id": run_id(config.study.name, outcome.number if outcome.number is not None else outcome.identity),
        "config": without_machine(outcome.config),
    }
    _write(place, settings, lambda run: _log_trial(run, outcome, folder), say)


def track_study(found: "Findings", say: Say) -> None:
    """Writes the summary run: all trials, the front, importances, the answers, and the LoRAs of the front.

    With the settings of the study's own trials; nothing for a study that was not tracked or has no outcome.
    """
    known = next((entry.outcome for entry in found.entries if entry.outcome is not None), None)
    tracked = known.config.get("track", {}) if known is not None else {}
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
    _write(found.folder, settings, lambda run: _log_study(run, found), say)
    runs = found.folder / FOLDER
    if any(runs.glob("offline-run-*")):
        program = typed(Path(sys.executable).parent / "wandb") if python() != "python" else "wandb"
        say(f"Weights & Biases, offline: {program} sync {typed(runs)}/offline-run-*")


def _is_disabled() -> bool:
    return os.environ.get("WANDB_MODE") == "disabled"


def run_id(study: str, part: object) -> str:
    """The id of a run: the same for the same part of the same study."""
    return hashlib.blake2b(f"{study}/{part}".encode(), digest_size=8).hexdigest()


def _write(place: Path, settings: Mapping[str, Any], log: Callable[[Any], None], say: Say) -> None:
    with _environment(place):
        try:
            (place / FOLDER).mkdir(parents=True, exist_ok=True)
            mode = _mode()
            try:
                _run(settings, mode, log)
            except Exception as error:  # as below
                if mode == "offline":
                    raise
                say(f"warning: Weights & Biases is out of reach, the run is written offline: {error}")
                _run(settings, "offline", log)
        # wandb raises its own errors, those of its service's mailbox, OSErrors and more; none is worth a trained LoRA.
        except Exception as error:
            what = f"{settings['name']} is not in Weights & Biases"
            say(f"warning: {what} ({type(error).__name__}: {error}); track=off for none")


@contextmanager
def _environment(place: Path) -> Iterator[None]:
    """Tables' pictures and artifacts go where WANDB_DATA_DIR says, by default outside of the study."""
    wanted = {"WANDB_DIR": str(place), "WANDB_DATA_DIR": str(place / FOLDER), "WANDB_SILENT": "true"}
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


def _run(settings: Mapping[str, Any], mode: Literal["online", "offline"], log: Callable[[Any], None]) -> None:
    import wandb

    run = wandb.init(
        **settings,
        resume="allow",
        mode=mode,
        settings=wandb.Settings(
            silent=True,
            console="off",
            x_disable_meta=True,
            x_disable_machine_info=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            host="",
            program="stylesweep",
        ),
    )
    folder = Path(run.dir).parent
    try:
        log(run)
    finally:
        run.finish()
    if mode == "offline":
        shutil.rmtree(folder / "logs", ignore_errors=True)  # wandb's own, full of this machine's paths
        for link in folder.parent.glob("debug*.log"):
            link.unlink()


def _log_trial(run: Any, outcome: Outcome, folder: Path) -> None:
    import wandb

    best = outcome.best
    run.define_metric("train/step")
    run.define_metric("train/*", step_metric="train/step")
    run.define_metric("checkpoint/step")
    run.define_metric("checkpoint/*", step_metric="checkpoint/step")
    for step, loss in enumerate(outcome.losses, start=1):
        run.log({"train/loss": loss, "train/step": step})
    for candidate in sorted(outcome.candidates, key=lambda candidate: candidate.step):
        at = f"at {candidate.strength:g}/" if len({c.strength for c in outcome.candidates}) > 1 else ""
        run.log(
            {
                "checkpoint/step": candidate.step,
                "checkpoint/images_seen": candidate.images_seen,
                f"checkpoint/{at}style": candidate.style,
                f"checkpoint/{at}composition": candidate.composition,
                **{f"checkpoint/{at}{name}": value for name, value in candidate.diagnostics.items()},
            }
        )
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
            "lora": f"{folder.name}/{best.lora}",
            **{f"constraint/{name}": value for name, value in best.constraints.items()},
            **{f"seconds/{part}": value for part, value in outcome.timings.items()},
            **({"about": CANNOT_SAY} if outcome.config.get("base", {}).get("scale", 1) != 1 else {}),
            "system/peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }
    )


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
    if found.best is not None:
        run.summary.update({f"best/{k}": v for k, v in zip(found.names, found.best.trial.values, strict=True)})
        run.summary["best/trial"] = found.best.number
    for entry in found.of("front"):
        _log_lora(run, found, entry)


def _log_lora(run: Any, found: "Findings", entry: "Entry") -> None:
    """The LoRA as an artifact of its trial: aliases front, and best for the best."""
    import wandb

    file = found.folder / str(entry.trial.user_attrs.get("lora", ""))
    if not file.is_file():
        return
    described = {"trial": entry.number, "captions": entry.words[0], "mix": entry.words[1]}
    metadata = without_machine(described) | {
        "strength": entry.trial.user_attrs.get("strength"),
        "values": list(entry.trial.values),
    }
    artifact = wandb.Artifact(f"{_plain(found.name)}-{entry.number}", type="lora", metadata=metadata)
    artifact.add_file(str(file), name=f"{found.name}-{entry.number}.safetensors")
    run.log_artifact(artifact, aliases=["front", *["best"] * (entry.relation == "best")])


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
