"""What a sweeper costs per trial, beside hydra-optuna-sweeper 1.3.0 in an environment of its own.

    python bench/sweeper.py                  1,000 trials of each, and the bars: 100 ms per trial, flat to the end
    python bench/sweeper.py --trials 100     a look

The same application three times: an objective of no cost and two parameters, SQLite, TPE, Hydra's own launcher. Hydra's
own sweeper, which suggests nothing and stores nothing, shows what composing and starting a job costs; what is above it
is the sweeper's. Each job notes when it began, by the wall's clock and by the processor's; the time between two of them
is what a trial costs. The bars are asked of the wall's; on a machine with other work, ask the processor's: --processor.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
PEER = ["hydra-core==1.3.8", "hydra-optuna-sweeper==1.3.0", "optuna==2.10.1", "sqlalchemy<2", "numpy<2"]
LIMIT_MS = 100.0  # per trial, beside Hydra's own
FLAT = 1.5  # times the first trials that the last may take
ENDS = 100  # trials at either end
CLOCKS = ("wall", "processor")
THEIRS, OWN = "hydra-optuna-sweeper 1.3.0", "stylesweep"

APP = """
import time
from pathlib import Path
import hydra
{extra}
@hydra.main(version_base="1.3", config_path={path!r}, config_name="bench")
def main(config):
    with Path("began.txt").open("a") as began:
        began.write(f"{{time.perf_counter()}} {{time.process_time()}}\\n")
    return config.x**2 + (config.y - 1) ** 2

main()
"""
PEERS_CONFIG = """
defaults: [_self_, override hydra/sweeper: optuna, override hydra/sweeper/sampler: tpe]
x: 0.0
y: 0.0
hydra:
  output_subdir: null
  sweep: {dir: multirun}
  sweeper: {storage: "sqlite:///study.db", study_name: bench, n_jobs: 1, direction: minimize,
            sampler: {seed: 0}, params: {x: "interval(-5,5)", y: "interval(-5,5)"}}
"""
PLAIN_CONFIG = "x: 0.0\ny: 0.0\nhydra: {output_subdir: null, sweep: {dir: multirun}}\n"
OURS = """
from dataclasses import dataclass, field
from hydra.core.config_store import ConfigStore
from sweep.settings import SearchSettings, StudySettings

@dataclass
class Bench:
    x: float = 0.0
    y: float = 0.0
    search: SearchSettings = field(default_factory=lambda: SearchSettings(
        params={"x": "interval(-5,5)", "y": "interval(-5,5)"}, objectives=["value"]))
    study: StudySettings = field(default_factory=lambda: StudySettings(name="bench"))

ConfigStore.instance().store(name="schema", node=Bench)
ConfigStore.instance().store(name="bench", node={
    "defaults": ["schema", "_self_", {"override hydra/sweeper": "stylesweep"}],
    "hydra": {"output_subdir": None, "sweep": {"dir": "${study.folder}/${study.name}"}}})
"""


@dataclass(frozen=True)
class Cost:
    """ms per trial, by one of the clocks; medians."""

    first: float  # of the first trials
    last: float
    middle: float  # of all


def environment_of_peer(place: Path) -> Path:
    """The peer's python, installed on first use."""
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER], check=True)
    return python


def run(python: Path | str, folder: Path, app: str, config: str, *words: str) -> dict[str, Cost]:
    """Runs the application and reads when its jobs began, by each clock.

    Raises:
        RuntimeError: if it does not end well; with the end of what it said.
    """
    folder.mkdir(parents=True)
    (folder / "app.py").write_text(app, encoding="utf-8")
    (folder / "bench.yaml").write_text(config, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} if python == sys.executable else dict(os.environ)
    command = [str(python), "app.py", "-m", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} in {folder}:\n{(done.stdout + done.stderr)[-2000:]}")
    rows = [[float(word) for word in line.split()] for line in (folder / "began.txt").read_text().splitlines()]
    costs = {}
    for clock, column in zip(CLOCKS, zip(*rows, strict=True), strict=True):
        took = [1000 * (b - a) for a, b in pairwise(column)]
        costs[clock] = Cost(median(took[:ENDS]), median(took[-ENDS:]), median(took))
    return costs


def measure(trials: int, work: Path) -> dict[str, dict[str, Cost]]:
    """Hydra alone, the peer and ours, one after the other."""
    peer = environment_of_peer(work / "peer")
    place = Path(tempfile.mkdtemp(dir=work))
    app = APP.format(extra="", path=".")
    return {
        "Hydra alone": run(sys.executable, place / "hydra", app, PLAIN_CONFIG, f"x=range({trials})"),
        THEIRS: run(peer, place / "peer", app, PEERS_CONFIG, f"hydra.sweeper.n_trials={trials}"),
        OWN: run(sys.executable, place / "ours", APP.format(extra=OURS, path=None), "", f"search.n_trials={trials}"),
    }


def main() -> None:
    """Prints the table; exit code 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "stylesweep-bench")
    parser.add_argument("--json", type=Path, help="writes the figures there as well")
    parser.add_argument("--processor", action="store_true", help="ask the bars of the processor's time")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    found = measure(asked.trials, asked.work)
    if asked.json:
        asked.json.write_text(json.dumps({n: {c: vars(v) for c, v in by.items()} for n, by in found.items()}, indent=1))
    Console().print(as_table(found))
    missed = bars_missed(found, "processor" if asked.processor else "wall")
    sys.exit(f"missed: {', '.join(missed)}" if missed else 0)


def as_table(found: dict[str, dict[str, Cost]]) -> Table:
    """One row per side and clock."""
    table = Table(title="ms per trial, medians", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in ("clock", "all", "above Hydra", f"last {ENDS} / first"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, by in found.items():
        for clock, cost in by.items():
            above = cost.middle - found["Hydra alone"][clock].middle
            table.add_row(name, clock, f"{cost.middle:.0f}", f"{above:.0f}", f"{cost.last / cost.first:.2f}")
    return table


def bars_missed(found: dict[str, dict[str, Cost]], clock: str) -> list[str]:
    """What ours costs too much of, by one of the clocks."""
    ours = found[OWN][clock]
    missed = [f"{LIMIT_MS:.0f} ms per trial"] if ours.middle - found["Hydra alone"][clock].middle > LIMIT_MS else []
    return missed + ([f"last at most {FLAT} x first"] if ours.last > FLAT * ours.first else [])


if __name__ == "__main__":
    main()
