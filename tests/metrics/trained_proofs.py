"""What issue 5 asks of real trainings in the sandbox, through the command a person types.

Each training is `python -m sweep` in a folder of its own; nothing here knows how a LoRA is made.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from proof_world import Row
from scipy.stats import spearmanr

ROOT = Path(__file__).parents[2]
FOLDER = tempfile.TemporaryDirectory(prefix="trained_proofs_")
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
VERSIONS = ("v1", "v3", "v6", "v8", "v9")


@cache
def outcome(*overrides: str) -> dict[str, Any]:
    """Train, sample and score once and return outcome.json.

    Raises:
        RuntimeError: with the command's last words if it failed.
    """
    folder = Path(FOLDER.name) / str(len(list(Path(FOLDER.name).iterdir())))
    folder.mkdir()
    command = [sys.executable, "-m", "sweep", *overrides, f"study.folder={folder}", "track=off"]
    print(" ".join(command[1:-2]), file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    files = list(folder.rglob("outcome.json"))
    if done.returncode or len(files) != 1:
        raise RuntimeError(f"{' '.join(command[1:])} failed: {(done.stdout + done.stderr)[-1500:]}")
    found: dict[str, Any] = json.loads(files[0].read_text(encoding="utf-8"))
    return found


def best(found: dict[str, Any]) -> dict[str, Any]:
    candidate: dict[str, Any] = found["candidates"][found["chosen"]]
    return candidate


def untrained() -> Iterator[Row]:
    found = best(outcome("train.optimizer.learning_rate=1e-12", "train.budget.images_seen=60"))
    off = abs(found["style"]) + abs(1 - found["composition"])
    note = f"style {found['style']:.3f}, composition {found['composition']:.3f}"
    yield Row("an untrained LoRA has style 0 and composition 1", off, "<= 0.01", off <= 0.01, note)


def over_trained() -> Iterator[Row]:
    usual = outcome("experiment=anatomica_v6")["config"]["train"]["budget"]["images_seen"]
    found = best(outcome("experiment=anatomica_v6", f"train.budget.images_seen={10 * usual}"))
    worst = max(found["constraints"][name] for name in ("leakage", "memorisation"))
    told = ("leak_rate", "copy_rate", "memorisation_gap", "style_in_domain")
    note = ", ".join(f"{name} {found['diagnostics'][name]:.3f}" for name in told)
    yield Row("10 times the budget breaks leakage or memorisation", worst, "> 0", worst > 0, note)


def strengths() -> Iterator[Row]:
    listed = ",".join(map(str, STRENGTHS))
    found = outcome("experiment=anatomica_v6", f"eval.strengths=[{listed}]")["candidates"]
    by_strength = sorted(found, key=lambda candidate: candidate["strength"])
    for name, sign in (("style", 1), ("composition", -1)):
        values = [0.0 if name == "style" else 1.0, *(candidate[name] for candidate in by_strength)]
        rho = float(spearmanr([0, *STRENGTHS], values).statistic)
        monotone = bool((sign * np.diff(values) >= 0).all())
        note = " ".join(f"{value:.2f}" for value in values)
        word = "up" if sign > 0 else "down"
        yield Row(f"strength 0 to 1.2 moves {name} {word} (Spearman)", rho, "monotone", monotone, note)


def versions() -> Iterator[Row]:
    found = {version: best(outcome(f"experiment=anatomica_{version}")) for version in VERSIONS}
    for version, candidate in found.items():
        for name in ("style", "composition"):
            low, high = candidate["intervals"][name]
            yield Row(f"article's {version}, {name}", candidate[name], "reported", None, f"{low:.2f} to {high:.2f}")
    orders = {
        "v1 < v3 < v6 in style on unrelated prompts": [found[v]["style"] for v in ("v1", "v3", "v6")],
        "v6 <= v8 in composition": [found[v]["composition"] for v in ("v6", "v8")],
        "v6 <= v9 in composition": [found[v]["composition"] for v in ("v6", "v9")],
    }
    for name, values in orders.items():
        said = "so here" if bool((np.diff(values) >= 0).all()) else "not so here"
        yield Row(f"the article's order: {name}", values[-1] - values[0], "reported", None, said)


def trained() -> Iterator[Row]:
    """Every proof on trainings; a training that fails is a row that failed."""
    for proof in (untrained, strengths, over_trained, versions):
        try:
            yield from proof()
        except RuntimeError as error:
            yield Row(
                proof.__name__.replace("_", " "), float("nan"), "runs", False, str(error)[:200].replace("\n", " ")
            )
