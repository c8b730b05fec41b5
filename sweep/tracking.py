"""Weights & Biases: a run per trial, written into the study's folder; online only when logged in.

Offline, `wandb sync` uploads the folder later, pictures included, as everything lies below it. Of this machine nothing
goes into a run: no host name, no path outside the working folder, no key.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from sweep.outcome import Outcome
from sweep.schema import Config
from sweep.study import study_folder


def track(outcome: Outcome, config: Config, folder: Path, say: Callable[[str], None]) -> None:
    """Writes the trial's run; does nothing, and imports nothing, with `track=off` or WANDB_MODE=disabled.

    Never fails the trial, which is finished: what goes wrong is told in one line.
    """
    if not config.track.wandb or os.environ.get("WANDB_MODE") == "disabled":
        return
    place = study_folder(config.study) if outcome.number is not None else folder
    kept = {name: os.environ.get(name) for name in ("WANDB_DIR", "WANDB_DATA_DIR")}
    os.environ |= {"WANDB_DIR": str(place), "WANDB_DATA_DIR": str(place / "wandb")}
    try:
        (place / "wandb").mkdir(parents=True, exist_ok=True)
        mode = _mode()
        try:
            _write(outcome, config, folder, mode)
        except Exception as error:  # as below
            if mode == "offline":
                raise
            say(f"warning: Weights & Biases is out of reach, the run is written offline: {error}")
            _write(outcome, config, folder, "offline")
    # wandb raises its own errors, those of its service's mailbox, OSErrors and more; none is worth a trained LoRA.
    except Exception as error:
        say(f"warning: this trial is not in Weights & Biases ({type(error).__name__}: {error}); track=off for none")
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _write(outcome: Outcome, config: Config, folder: Path, mode: Literal["online", "offline"]) -> None:
    import wandb

    run = wandb.init(
        project=config.track.project,
        entity=config.track.entity,
        group=config.study.name,
        job_type="trial",
        name=f"trial-{outcome.number:04d}" if outcome.number is not None else "single",
        id=_run_id(config, outcome),
        resume="allow",
        mode=mode,
        config=without_machine(outcome.config),
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
    try:
        _log(run, outcome, folder)
    finally:
        run.finish()


def _log(run: Any, outcome: Outcome, folder: Path) -> None:
    import wandb

    for step, loss in enumerate(outcome.losses, start=1):
        run.log({"loss": loss}, step=step)
    best = outcome.best
    run.log(
        {
            "style": best.style,
            "composition": best.composition,
            "feasible": best.feasible,
            **{f"constraint/{name}": value for name, value in best.constraints.items()},
            **{f"seconds/{part}": value for part, value in outcome.timings.items()},
            "contact_sheet": wandb.Image(str(folder / outcome.sheet)),
        }
    )


def _run_id(config: Config, outcome: Outcome) -> str:
    """The same trial, run again, continues the same run."""
    text = f"{config.study.name}/{outcome.number if outcome.number is not None else outcome.identity}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _mode() -> Literal["online", "offline"]:
    """Offline unless there is a key; whoever sets WANDB_MODE has decided."""
    import wandb

    if os.environ.get("WANDB_MODE", "online") != "online":
        return "offline"
    return "online" if wandb.login(prompt=False) else "offline"


def without_machine(value: Any) -> Any:
    """A configuration without what says whose machine it is: absolute paths keep their last part only."""
    if isinstance(value, dict):
        return {key: without_machine(below) for key, below in value.items()}
    if isinstance(value, list):
        return [without_machine(below) for below in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return f"…/{Path(value).name}"
    return value
