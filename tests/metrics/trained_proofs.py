"""What issue 5 asks of real trainings in the sandbox, through the commands a person types.

Each training is `python -m sweep` in a folder of its own; nothing here knows how a LoRA is made.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from proof_study import Row
from scipy.stats import spearmanr

ROOT = Path(__file__).parents[2]
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
VERSIONS = ("v1", "v3", "v6", "v8", "v9")
V6 = "experiment=anatomica_v6"


class Trainings:
    """Trainings by their overrides, each made once and kept in `folder`; a killed one goes on where it stopped."""

    def __init__(self, folder: Path, until: float) -> None:
        """Keep to the time `until`, on time.perf_counter's clock."""
        self.folder, self.until = folder, until

    def trained(self, *overrides: str) -> tuple[dict[str, Any], Path]:
        """Train, sample and score once; return outcome.json and its file. RuntimeError if that does not work."""
        return self._run(["-m", "sweep"], overrides)

    def scored(self, lora: Path, *overrides: str) -> dict[str, Any]:
        """Sample and score a LoRA that is there already. RuntimeError if that does not work."""
        return self._run(["-m", "sweep.score", str(lora)], overrides)[0]

    def rows(self, proof: Callable[[Trainings], Iterator[Row]]) -> list[Row]:
        """Return a proof's rows; a training that fails is a row that failed."""
        try:
            return list(proof(self))
        except RuntimeError as error:
            return [Row(proof.__name__.replace("_", " "), float("nan"), "runs", False, str(error))]

    def _run(self, start: list[str], overrides: tuple[str, ...]) -> tuple[dict[str, Any], Path]:
        words = " ".join([*start, *overrides])
        folder = self.folder / blake2b(words.encode(), digest_size=4).hexdigest()
        done = folder / "done.txt"
        if not done.is_file():
            left = self.until - time.perf_counter()
            print(f"\npython {words}   ({max(left, 0) / 60:.0f} min left)", file=sys.stderr, flush=True)
            self._command([*start, *overrides, f"study.folder={folder}", "track=off"], left)
            file = next(folder.rglob("outcome.json"))
            done.write_text(str(file.relative_to(folder)), encoding="utf-8")
        file = folder / done.read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found, file

    def _command(self, words: list[str], left: float) -> None:
        try:
            if left <= 0:
                raise subprocess.TimeoutExpired(words, left)
            ended = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=sys.stderr, check=False, timeout=left)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError("out of time; the same command goes on from here") from error
        if ended.returncode:
            raise RuntimeError(f"`python {' '.join(words[:3])}` ended with exit code {ended.returncode}")


def best(found: dict[str, Any]) -> dict[str, Any]:
    candidate: dict[str, Any] = found["candidates"][found["chosen"]]
    return candidate


def untrained(trainings: Trainings) -> Iterator[Row]:
    found = best(trainings.trained("train.optimizer.learning_rate=1e-12", "train.budget.images_seen=60")[0])
    off = abs(found["style"]) + abs(1 - found["composition"])
    note = f"style {found['style']:.3f}, composition {found['composition']:.3f}"
    yield Row("an untrained LoRA has style 0 and composition 1", off, "<= 0.01", off <= 0.01, note)


def strengths(trainings: Trainings) -> Iterator[Row]:
    outcome, file = trainings.trained(V6)
    listed = ",".join(map(str, STRENGTHS))
    found = trainings.scored(file.parent / best(outcome)["lora"], V6, f"eval.strengths=[{listed}]")["candidates"]
    by_strength = sorted(found, key=lambda candidate: candidate["strength"])
    for name, sign in (("style", 1), ("composition", -1)):
        values = [0.0 if name == "style" else 1.0, *(candidate[name] for candidate in by_strength)]
        rho = float(spearmanr([0, *STRENGTHS], values).statistic)
        monotone = bool((sign * np.diff(values) >= 0).all())
        note = " ".join(f"{value:.2f}" for value in values)
        word = "up" if sign > 0 else "down"
        yield Row(f"strength 0 to 1.2 moves {name} {word} (Spearman)", rho, "monotone", monotone, note)


def over_trained(trainings: Trainings) -> Iterator[Row]:
    """With the sandbox's own layers and with all of them, as other trainers take by default."""
    usual = trainings.trained(V6)[0]["config"]["train"]["budget"]["images_seen"]
    for layers, override in (("the sandbox's layers", []), ("every layer", ["train.lora.layers=[]"])):
        found = best(trainings.trained(V6, f"train.budget.images_seen={10 * usual}", *override)[0])
        worst = max(found["constraints"][name] for name in ("leakage", "memorisation"))
        told = ("leak_rate", "leak_picture", "copy_rate", "memorisation_gap", "style_in_domain")
        note = ", ".join(f"{name} {found['diagnostics'][name]:.3f}" for name in told)
        yield Row(f"10 times the budget on {layers} breaks leakage or memorisation", worst, "> 0", worst > 0, note)


def versions(trainings: Trainings) -> Iterator[Row]:
    found = {version: best(trainings.trained(f"experiment=anatomica_{version}")[0]) for version in VERSIONS}
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


TRAINED = (untrained, strengths, over_trained, versions)
