"""A Hydra application with our sweeper and an objective of milliseconds, for what concerns the sweeper alone.

    python tests/sweep/toy_app.py -m search.n_trials=5

`behave` says how its jobs go wrong, and in which trial.
"""

import ctypes
import math
import os
import resource
import signal
import sqlite3
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sweep.errors import InputError, Stopped
from sweep.rungs import PARTS, Rung, reach
from sweep.settings import SearchSettings, Stopping, StudySettings
from sweep.study import live_trial, load_study


@dataclass
class Toy:
    x: float = 0.5
    n: int = 3
    colour: str = "red"
    behave: str = "well"  # as `_misbehave` can in trial `when`; nan; all_raise
    when: int = 2
    rungs: bool = False  # whether a trial is scored on its way, and may end there
    seconds: float = 0.0  # a trial takes
    search: SearchSettings = field(
        default_factory=lambda: SearchSettings(params={"x": "interval(0,1)", "n": "range(0,6)"}, n_trials=6)
    )
    study: StudySettings = field(default_factory=lambda: StudySettings(name="toy", min_free_gb=0))


ConfigStore.instance().store(
    name="toy",
    node={
        "defaults": [
            "toy_schema",
            "_self_",
            {"override hydra/sweeper": "stylesweep"},
            {"override hydra/hydra_logging": "none"},
            {"override hydra/job_logging": "none"},
        ],
        "hydra": {
            "sweep": {"dir": "${study.folder}/${study.name}", "subdir": "${hydra:job.num}"},
            "output_subdir": None,
        },
    },
)
ConfigStore.instance().store(name="toy_schema", node=Toy)


@hydra.main(version_base="1.3", config_path=None, config_name="toy")
def main(config: DictConfig) -> tuple[float, float] | Stopped:
    number = HydraConfig.get().job.num
    folder = Path(HydraConfig.get().runtime.output_dir)
    with (folder / "runs.txt").open("a") as runs:
        runs.write(f"x={config.x} n={config.n} colour={config.colour}\n")
    if config.behave == "all_raise":
        raise RuntimeError("every toy broke")
    if number == config.when and config.behave != "well":
        if config.behave == "nan":
            return math.nan, -math.inf
        _misbehave(config.behave, folder)
    study = load_study(folder.parent)
    values = (math.cos(config.x) * config.n, math.sin(config.x) * config.n)
    if config.rungs:
        for part in PARTS:
            with (folder / "runs.txt").open("a") as runs:
                runs.write(f"rung {part}\n")
            try:
                rung = Rung(part, 900 // part, [value / part for value in values], {"n is small": config.n - 4})
                reach(study, number, rung, Stopping(config.search.stopping))
            except Stopped as stopped:
                return stopped
    time.sleep(config.seconds)
    card, threads = os.environ.get("CUDA_VISIBLE_DEVICES") or None, os.environ.get("OMP_NUM_THREADS")
    (folder / "card.txt").write_text(f"{card} {os.getpid()} {threads}")
    live_trial(study, number).set_constraint("n is small", config.n - 4)
    return values


def _misbehave(how: str, folder: Path) -> None:
    first_time = not (folder / "seen").exists()
    (folder / "seen").touch()
    if how == "raise":
        raise RuntimeError("the toy broke")
    if how == "exit":
        sys.exit(3)
    if how == "vanish" and first_time:  # as a library that gives up
        os._exit(0)
    if how == "memory":
        bytearray(1 << 60)
    if how == "full" and first_time:  # no file of this process may grow any further, the database's neither
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        database = (folder.parent / "study.db").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (database // 2, resource.RLIM_INFINITY))
    if how == "disk" and first_time:
        Path("/dev/full").write_text("a LoRA")
    if how == "input" and first_time:
        raise InputError("the toy's pictures are gone")
    if how == "always_kill" or (how == "kill" and first_time):
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":  # nothing of Python's gets a turn any more, and no signal comes through
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        ctypes.PyDLL(None).pause()
    if how == "interrupted" and first_time:  # by Ctrl-C, in the middle of a statement
        rows = sqlite3.connect(folder.parent / "study.db").execute("SELECT * FROM sqlite_master")
        rows.fetchone()
        raise KeyboardInterrupt
    if how in ("wait", "pause") and first_time:
        time.sleep(60 if how == "wait" else 5)


if __name__ == "__main__":
    main()
