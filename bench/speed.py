"""A sweep of twelve trials, ours against the peer's script and against a plain loop, side by side.

    make bench                                                # P2 and ours
    make bench BENCH_PEER=/somewhere/train_dreambooth_lora_flux.py
    python -m bench.speed --rounds 1 --rates 6e-5 3.46e-4         # fewer trials, for a look
    python -m bench.speed --smoke                             # whether every side runs; two trials of three steps
    make bench-check                                          # fails when a ratio fell by more than a fifth

What the sides are, what must be equal and how to read the table: bench/README.md.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from optuna.trial import TrialState

from bench.kept import Measured, fallen, figures_before, read_row, write_figures, write_row, write_table
from bench.physics import flop_of, peak_flops
from bench.table import gates, heading, show
from bench.trials import (
    BASE,
    BATCH,
    CAPTION,
    LENGTHS,
    PICTURES,
    RANK,
    RATES,
    SHARED,
    SIDE,
    TEXT_TOKENS,
    WARMUP,
    WEIGHT_DECAY,
    Point,
    choices,
    lists,
    points,
)
from sweep.record import TIMINGS
from sweep.study import load_study

Side = Callable[[list[Point], Path], Measured]


class Usage:
    """Runs processes and counts what they take."""

    def __init__(self, log: Path) -> None:
        self.wall = self.cpu = self.peak = 0.0
        self.log = log
        self.load = os.getloadavg()[0]

    def run(self, *words: str | Path) -> None:
        """Runs one to its end.

        Raises:
            SystemExit: if it fails; the log says why.
        """
        began = time.perf_counter()
        with self.log.open("ab") as log:
            process = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log, env=environment())
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.wall += time.perf_counter() - began
        self.cpu += used.ru_utime + used.ru_stime
        self.peak = max(self.peak, used.ru_maxrss / 1024)
        if process.returncode:
            raise SystemExit(f"{words[1:4]} ended with {process.returncode}; its output: {self.log}")


def environment() -> dict[str, str]:
    """The same for every side: one thread, no network, nothing logged elsewhere."""
    fixed = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **fixed, "WANDB_MODE": "disabled", "PYTHONPATH": str(Path.cwd())}


def peer(script: Path, chosen: list[Point], folder: Path) -> Measured:
    """P1: the script, then the scoring, a process each per trial."""
    usage = Usage(folder / "log.txt")
    pictures = folder / "pictures"
    pictures.mkdir()
    for picture in sorted(Path(PICTURES).glob("*.png")):
        (pictures / picture.name).symlink_to(picture.resolve())
    asked = folder / "asked.json"
    asked.write_text(json.dumps(asked_of_judge()), encoding="utf-8")
    styles, compositions, split = {}, {}, {"sample": 0.0, "score": 0.0}
    for point in chosen:
        out = folder / point.name
        before = usage.wall
        usage.run(sys.executable, script, *peer_words(point, pictures, out))
        split["training process"] = split.get("training process", 0.0) + usage.wall - before
        usage.run(sys.executable, "-m", "bench.plain_score", asked, out, out / "scores.json")
        found = json.loads((out / "scores.json").read_text(encoding="utf-8"))
        styles[point.name], compositions[point.name] = found["style"], found["composition"]
        for part, seconds in found["timings"].items():
            split[part] += seconds
    return _measured("P1", usage, styles, compositions, split, flop_of(chosen, images=None, drawings=2))


def peer_words(point: Point, pictures: Path, out: Path) -> list[str]:
    """The script's command line for a trial."""
    steps = round(point.images / 30 * 4)  # 30 pictures in batches of 8 are 4 steps
    given = {
        "pretrained_model_name_or_path": BASE,
        "instance_data_dir": pictures,
        "instance_prompt": CAPTION,
        "resolution": SIDE,
        "train_batch_size": BATCH,
        "max_train_steps": steps,
        "learning_rate": point.rate,
        "rank": RANK,
        "lora_alpha": RANK,
        "lr_scheduler": "constant_with_warmup",
        "lr_warmup_steps": WARMUP,
        "adam_weight_decay": WEIGHT_DECAY,
        "weighting_scheme": "logit_normal",
        "guidance_scale": 1,
        "max_sequence_length": TEXT_TOKENS,
        "checkpointing_steps": 10**6,
        "mixed_precision": "no",
        "seed": 0,
        "output_dir": out,
    }
    return [*(f"--{key}={value}" for key, value in given.items()), "--center_crop", "--cache_latents"]


def warm_loop(chosen: list[Point], folder: Path) -> Measured:
    """P2: bench/warm.py."""
    usage = Usage(folder / "log.txt")
    usage.run(sys.executable, "-m", "bench.warm", folder, *(f"{point.rate:g}:{point.images}" for point in chosen))
    return _ours("P2", usage, sorted(folder.glob("*/trial/outcome.json")), flop_of(chosen, drawings=2))


def ours(chosen: list[Point], folder: Path) -> Measured:
    """The product's own command, early stopping off; nor are rungs scored, as the others have none."""
    usage = Usage(folder / "log.txt")
    words = [*SHARED, *lists(chosen), f"study.folder={folder}", "study.name=bench", "search.stopping=never"]
    usage.run(sys.executable, "-m", "sweep", "-m", *words)
    longest = [max(p.images for p in chosen if p.rate == rate) for rate in {p.rate for p in chosen}]
    flop = flop_of(chosen, images=sum(longest), drawings=1 + 1 / len(chosen))
    row = _ours("ours", usage, sorted(folder.glob("bench/*/outcome.json")), flop)
    kinds = [kind for kind in sorted((folder / "cache").iterdir()) if kind.is_dir()]
    # A longer training goes on from a shorter one's steps.
    steps = sum(round(images / sum(p.images for p in chosen) * row.steps) for images in longest)
    return replace(row, steps=steps, kept={kind.name: len(list(kind.iterdir())) for kind in kinds})


def stopping(chosen: list[Point], folder: Path) -> Measured:
    """The same, and trials may end early."""
    usage = Usage(folder / "log.txt")
    words = [*SHARED, *choices(chosen), f"study.folder={folder}", "study.name=bench", "search.stopping=always"]
    usage.run(sys.executable, "-m", "sweep", "-m", *words, "search.sampler=grid", f"search.n_trials={len(chosen)}")
    row = _ours("ours, stopping", usage, sorted(folder.glob("bench/*/outcome.json")), 0.0)
    split = dict(row.split)
    for trial in load_study(folder / "bench").get_trials(states=(TrialState.PRUNED,)):
        for part, seconds in trial.user_attrs[TIMINGS].items():
            split[part] += seconds
            split["rest"] -= seconds
    return replace(row, split=split)


def _ours(side: str, usage: Usage, outcomes: Sequence[Path], flop: float) -> Measured:
    """What the outcomes of a side say."""
    styles, compositions, split, steps = {}, {}, dict[str, float](), 0
    for file in outcomes:
        outcome = json.loads(file.read_text(encoding="utf-8"))
        train = outcome["config"]["train"]
        name = Point(train["optimizer"]["learning_rate"], train["budget"]["images_seen"]).name
        best = outcome["candidates"][outcome["chosen"]]
        styles[name], compositions[name] = best["style"], best["composition"]
        steps += len(outcome["losses"])
        for part, seconds in outcome["timings"].items():
            split[part] = split.get(part, 0.0) + seconds
    return replace(_measured(side, usage, styles, compositions, split, flop), steps=steps)


def _measured(
    side: str,
    usage: Usage,
    styles: dict[str, float],
    compositions: dict[str, float],
    split: dict[str, float],
    flop: float,
) -> Measured:
    split = {**split, "rest": usage.wall - sum(split.values())}
    return Measured(side, usage.wall, usage.cpu, usage.load, usage.peak, styles, compositions, split, flop)


def asked_of_judge() -> dict[str, object]:
    """Prompts, sampler and thresholds of the sandbox, as JSON."""
    from hydra import compose, initialize_config_dir

    from sweep.door import settings
    from sweep.manual import CONF
    from sweep.outcome import plain_config
    from sweep.schema import register

    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain_config(settings(compose("config", list(SHARED))))
    return {"prompts": config["eval"]["prompts"], "sample": config["sample"], "score": config["score"]}


def measure(asked: argparse.Namespace, chosen: list[Point]) -> list[Measured]:
    """All rounds: every side in turn, another one first each time."""
    sides: dict[str, Side] = {"P2": warm_loop, "ours": ours, "ours, stopping": stopping}
    if asked.peer:
        sides = {"P1": partial(peer, asked.peer.resolve()), **sides}
    found = []
    for turn in range(asked.rounds):
        first = turn % len(sides)
        for name in [*sides][first:] + [*sides][:first]:
            row, where = _side(name, sides[name], chosen, turn, asked.into)
            found.append(row)
            took = f"{row.wall:7.1f} s  {row.cpu:7.1f} CPU s  load {row.load:.1f}"
            print(f"round {turn + 1}  {row.side:15s} {took}  {where}", flush=True)
    return found


def _side(name: str, side: Side, chosen: list[Point], turn: int, into: Path | None) -> tuple[Measured, str]:
    """One side, once, and where its files lie; one that an earlier run finished `into` a folder is read from there."""
    if into is None:
        folder = Path(tempfile.mkdtemp(prefix="stylesweep-bench-"))  # stays where a side fails, with its log
        row = side(chosen, folder)
        shutil.rmtree(folder)
        return row, ""
    folder = into.absolute() / f"round{turn + 1}-{name.replace(', ', '-')}"
    kept = folder.with_suffix(".json")
    names = [point.name for point in chosen]
    if (done := read_row(kept, names)) is not None:
        return done, f"read from {kept}"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed: it is timed from its beginning
    folder.mkdir(parents=True)
    row = side(chosen, folder)
    write_row(kept, row, names)
    return row, str(folder)


def ratios(found: Sequence[Measured]) -> dict[str, float]:
    """CPU seconds of one side over another's, medians over the rounds."""
    median = {
        side: statistics.median(row.cpu for row in found if row.side == side) for side in {row.side for row in found}
    }
    pairs = [(a, b) for a in ("P1", "P2") for b in ("ours", "ours, stopping") if a in median and b in median]
    return {f"{a} / {b}": round(median[a] / median[b], 2) for a, b in pairs}


def arguments() -> argparse.Namespace:
    """The command line; what cannot work is refused before anything runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="train_dreambooth_lora_flux.py of diffusers; without it no P1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--smoke", action="store_true", help="one round of two tiny trials; its ratios mean nothing")
    parser.add_argument("--into", type=Path, help="keep every side there; the same command goes on after a kill")
    parser.add_argument("--write", action="store_true", help="keep the figures, in speed.json and in bench/README.md")
    parser.add_argument("--check", action="store_true", help="fail if a ratio fell against speed.json")
    asked = parser.parse_args()
    if asked.peer and not asked.peer.is_file():
        parser.exit(2, f"no such file: {asked.peer}; bench/README.md says where the script is found\n")
    if asked.smoke:
        if asked.write or asked.check:
            parser.exit(2, "--smoke measures nothing: leave out --write and --check\n")
        asked.rounds, asked.rates, asked.lengths = 1, [RATES[-1]], [8, 24]
    return asked


def main() -> None:
    """The command line."""
    asked = arguments()
    chosen = points(tuple(asked.rates), tuple(asked.lengths))
    names = [point.name for point in chosen]
    before = figures_before(names) if asked.check else {}
    found, peak = measure(asked, chosen), peak_flops()
    now, failed = ratios(found), gates(found)
    text = show(found, now, peak)
    print(text)
    if asked.write:
        write_figures(found, names, ratios=now, gates=failed, peak_gflops=peak / 1e9)
        verdict = "; ".join(failed) or "all kept"
        write_table(f"{heading(asked.rounds, len(chosen))}\n\n```\n{text.strip()}\ngates: {verdict}\n```")
    failed += fallen(now, before)
    if failed:
        sys.exit("void or worse:\n  " + "\n  ".join(failed))


if __name__ == "__main__":
    main()
