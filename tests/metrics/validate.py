"""`python tests/metrics/validate.py`: prove the metrics and write the tables of metrics/README.md.

    python tests/metrics/validate.py --only v5 --count 8 --development   a look, on scenes that settings are chosen on
    python tests/metrics/validate.py --write                 everything on drawn pictures, about a quarter of an hour
    python tests/metrics/validate.py --write --trainings     and on trainings of the sandbox (make validate-metrics)

What is finished lies in multirun/validate-metrics, so that the same command continues after a kill; another state of
the code, the weights or the pictures begins anew. Failures stay in the table as failures; the exit code is 1 if there
are any.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import date
from hashlib import blake2b
from importlib import metadata
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script's own folder is on the path, the checkout is not

import proofs
from proof_study import Proofs, Row
from proof_world import DEVELOPMENT, PROOF
from statistics_proofs import v13_coverage
from trained_proofs import TRAINED, Trainings

from metrics.encoder import file_hash
from metrics.settings import ScoreSettings

ROOT = Path(__file__).parents[2]
README = ROOT / "metrics" / "README.md"
KEPT = ROOT / "multirun" / "validate-metrics"
JUDGES = ("metrics/*.py", "tests/metrics/*.py", "sandbox/*.py", "sandbox/data/*/*", "sandbox/weights/[el]*/*")
TRAINERS = (*JUDGES, "trainer/**/*.py", "conf/**/*.yaml", "sandbox/weights/base/**/*")


def main(arguments: list[str]) -> int:
    """Print the tables, write them where asked, and say whether everything passed."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    passed = True
    if not options.only_trainings:
        seed = DEVELOPMENT if options.development else PROOF
        began, rows = time.perf_counter(), drawn(options, seed)
        size = f"{options.count} scenes a test of seed {seed}, {options.repeats} repeats of V13"
        passed = conclude("drawn", rows, size, began, options)
    if options.trainings or options.only_trainings:
        began = time.perf_counter()
        folder = KEPT / f"trained-{state(TRAINERS)}"
        trainings = Trainings(folder, until=began + 60 * options.minutes)
        rows = [row for proof in TRAINED for row in trainings.rows(proof)]
        base = file_hash(next((ROOT / "sandbox/weights/base/transformer").glob("*.safetensors")))[:8]
        passed &= conclude("trained", rows, f"trainings at the sandbox's own settings, base {base}", began, options)
    return 0 if passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=144, help="fresh scenes a test")
    parser.add_argument("--repeats", type=int, default=10_000, help="simulated studies of V13")
    parser.add_argument("--only", nargs="+", default=[], help="tests by their names' beginnings, such as v5 v10")
    parser.add_argument("--development", action="store_true", help="on the scenes that settings are chosen on")
    parser.add_argument("--write", action="store_true", help="put the tables into metrics/README.md")
    parser.add_argument("--trainings", action="store_true", help="also train LoRAs in the sandbox")
    parser.add_argument("--only-trainings", action="store_true", help="train LoRAs, and leave out the drawn pictures")
    parser.add_argument("--minutes", type=float, default=60, help="for the trainings; what is left then is said")
    return parser


def drawn(options: argparse.Namespace, seed: int) -> list[Row]:
    """Run the proofs on drawn pictures."""
    folder = KEPT / f"drawn-{state(JUDGES, seed, options.count, options.repeats)}"
    made: list[Proofs] = []

    def on_pictures(proof: Callable[[Proofs], Iterable[Row]]) -> Iterable[Row]:
        made[:] = made or [Proofs(ScoreSettings(), options.count, seed)]  # not drawn where every row is kept already
        return proof(made[0])

    tests: dict[str, Callable[[], Iterable[Row]]] = {
        proof.__name__: (lambda proof=proof: on_pictures(proof)) for proof in proofs.ALL
    }
    tests["v13_coverage"] = lambda: v13_coverage(options.repeats, seed)
    wanted = [name for name in tests if not options.only or name.split("_")[0] in options.only]
    return [
        row
        for number, name in enumerate(wanted, 1)
        for row in kept(folder / f"{name}.json", tests[name], f"{number} of {len(wanted)}  {name.replace('_', ' ')}")
    ]


def kept(file: Path, make: Callable[[], Iterable[Row]], said: str) -> list[Row]:
    """Return the rows of a file, made first where it is not there yet."""
    if file.is_file():
        return [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
    began = time.perf_counter()
    rows = list(make())
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps([asdict(row) for row in rows], default=bool), encoding="utf-8")
    part.replace(file)
    bars = [row for row in rows if row.passed is not None]
    met = sum(bool(row.passed) for row in bars)
    print(f"{said}: {met} of {len(bars)} bars met, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def state(patterns: Sequence[str], *more: int) -> str:
    """Return the hash of the files of the checkout that the patterns name, and of numbers."""
    digest = blake2b(repr(more).encode(), digest_size=4)
    for file in sorted({file for pattern in patterns for file in ROOT.glob(pattern) if file.is_file()}):
        digest.update(f"{file.relative_to(ROOT)} {file_hash(file)}\n".encode())
    return digest.hexdigest()


def conclude(kind: str, rows: Sequence[Row], size: str, began: float, options: argparse.Namespace) -> bool:
    """Print and keep one table; return whether every row that has a bar passed."""
    text = table(rows, size, time.perf_counter() - began)
    print(text)
    if options.write and not options.only and not options.development:
        first, last = (f"<!-- {slash}proofs: {kind} -->" for slash in ("", "/"))
        before, _, rest = README.read_text(encoding="utf-8").partition(first)
        README.write_text(f"{before}{first}\n{text}\n{last}{rest.partition(last)[2]}", encoding="utf-8")
    return all(row.passed is not False for row in rows)


def table(rows: Sequence[Row], size: str, seconds: float) -> str:
    """Return the rows as Markdown, with date, versions and what failed."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "open-clip-torch", "numpy", "scipy"))
    encoder = file_hash(Path(ScoreSettings().encoder) / "open_clip_model.safetensors")[:8]
    failed = [row.test for row in rows if row.passed is False]
    verdict = (
        f"**{len(failed)} of {sum(row.passed is not None for row in rows)} bars missed.**"
        if failed
        else "All bars met."
    )
    lines = [f"{date.today().isoformat()}, {size}, {seconds / 60:.0f} min on one core; {versions}; encoder {encoder}.",
             verdict, "", "| test | measured | bar | | |", "|---|---|---|---|---|"]  # fmt: skip
    said = {True: "passed", False: "**FAILED**", None: ""}
    tests = [row.test.replace("|", "\\|") for row in rows]  # |corr| would be two cells more
    cells = [
        f"| {t} | {r.value:.3f} | {r.bar} | {said[r.passed]} | {r.note} |" for t, r in zip(tests, rows, strict=True)
    ]
    return "\n".join([*lines, *cells])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
