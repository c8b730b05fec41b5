"""A sweep of a hundred tiny trials: memory and cost of a trial must not grow with the number of trials done.

    python -m bench.flat                 100 trials, some minutes; fails if the last is above the bars
    python -m bench.flat --trials 30     a look

The product's own command on the sandbox, one optimiser step and one sampler step a trial, so that what is kept, stored
and looked up weighs as much as it can. Memory is the resident memory of the process when a trial's outcome appears,
cost its processor's time from one outcome to the next. Linux only.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

from bench.speed import environment

TENTH, FEWEST = 10, 12
MEMORY, COST = 1.05, 1.2  # times the tenth trial's memory, times the cost of the trials after it

PROMPTS = ",".join(
    f"{{text:{text},seed:{seed},width:256,height:256,group:unrelated}}"
    for seed, text in enumerate(("a red house", "a boat", "a green tree", "a large fish", "a bottle at the top"))
)


def watch(trials: int, folder: Path) -> list[tuple[float, float]]:
    """Runs the sweep; returns (processor's s since its start, MB) at the end of every trial."""
    words = [
        f"train.seed={','.join(str(seed) for seed in range(trials))}",
        "train.budget.images_seen=8",
        "train.checkpoints=1",
        "sample.steps=1",
        f"eval.prompts=[{PROMPTS}]",
        "score.style_range_at_least=0.001",
        "track=off",
        "study.name=flat",
        f"study.folder={folder}",
    ]
    found: list[tuple[float, float]] = []
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sweep", "-m", *words], stdout=log, stderr=log, env=environment()
        )
        while process.poll() is None:
            done = len(list((folder / "flat").glob("*/outcome.json")))
            if done > len(found):
                found += [(processor_s(process.pid), resident_mb(process.pid))] * (done - len(found))
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the sweep ended with {process.returncode}; its output: {folder / 'log.txt'}")
    return found


def processor_s(process: int) -> float:
    """Processor's time a process has taken, s."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime


def resident_mb(process: int) -> float:
    """Resident memory of a process, MB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    asked = parser.parse_args()
    if asked.trials < FEWEST:
        parser.exit(2, f"--trials must be at least {FEWEST}: the tenth is compared with the last\n")
    found = watch(asked.trials, Path(tempfile.mkdtemp(prefix="stylesweep-flat-")))
    ends, memory = [end for end, _ in found], [mb for _, mb in found]
    costs = [b - a for a, b in pairwise(ends)]
    early, late = median(costs[TENTH : 2 * TENTH]), median(costs[-TENTH:])
    print(f"memory: tenth trial {memory[TENTH - 1]:.0f} MB, last {memory[-1]:.0f} MB")
    print(f"cost:   trials {TENTH} to {2 * TENTH} {early:.2f} s each, the last ten {late:.2f} s of the processor")
    broken = memory[-1] > MEMORY * memory[TENTH - 1], late > COST * early
    if any(broken):
        sys.exit(f"not flat: at most {MEMORY} times the memory and {COST} times the cost are allowed")


if __name__ == "__main__":
    main()
