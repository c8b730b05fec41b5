"""`python tests/metrics/validate.py`: prove the metrics and write the table of metrics/README.md.

    python tests/metrics/validate.py --only v5 --count 8     a look
    python tests/metrics/validate.py --write                 everything on drawn pictures (make validate-metrics)
    python tests/metrics/validate.py --write --trainings     and on real trainings of the sandbox

Failures stay in the table as failures; the exit code is 1 if there are any.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import date
from importlib import metadata
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script's own folder is on the path, the checkout is not

import proofs
from proof_world import Row

from metrics.encoder import file_hash
from metrics.settings import ScoreSettings

README = Path(__file__).parents[2] / "metrics" / "README.md"
MARKS = {"drawn": ("<!-- proofs: drawn -->", "<!-- /proofs: drawn -->"),
         "trained": ("<!-- proofs: trained -->", "<!-- /proofs: trained -->")}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Print the tables, write them where asked, and say whether everything passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=48, help="fresh scenes a test")
    parser.add_argument("--repeats", type=int, default=1000, help="simulated studies of V13")
    parser.add_argument("--only", nargs="+", default=[], help="tests by their names' beginnings, such as v5 v10")
    parser.add_argument("--write", action="store_true", help="put the table into metrics/README.md")
    parser.add_argument("--trainings", action="store_true", help="also train LoRAs in the sandbox, about ten minutes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    began = time.perf_counter()
    rows = drawn(options)
    passed = conclude("drawn", rows, f"{options.count} scenes a test, {options.repeats} repeats of V13", began, options)
    if options.trainings:
        from trained_proofs import trained

        began = time.perf_counter()
        passed &= conclude("trained", list(trained()), "trainings of the sandbox at its own settings", began, options)
    return 0 if passed else 1


def drawn(options: argparse.Namespace) -> list[Row]:
    """Run the proofs on drawn pictures."""
    tested = proofs.Proofs(ScoreSettings(), options.count)
    rows: list[Row] = []
    for proof in proofs.ALL:
        if not options.only or proof.__name__.startswith(tuple(f"{name}_" for name in options.only)):
            rows += list(proof(tested))
            print(f"{proof.__name__}: {rows[-1].value:.3f}", file=sys.stderr, flush=True)
    if not options.only or "v13" in options.only:
        rows += list(proofs.v13_coverage(options.repeats))
    return rows


def conclude(kind: str, rows: Sequence[Row], size: str, began: float, options: argparse.Namespace) -> bool:
    """Print and keep one table; return whether every row that has a bar passed."""
    text = table(rows, size, time.perf_counter() - began)
    print(text)
    if options.write and not options.only:
        first, last = MARKS[kind]
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
    return "\n".join([*lines, *(f"| {r.test} | {r.value:.3f} | {r.bar} | {said[r.passed]} | {r.note} |" for r in rows)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
