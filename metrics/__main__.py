"""`python -m metrics IMAGES --base BASE_IMAGES --references REFS`: scores folders of pictures, no LoRA involved.

A picture and its base image have the same file name: the same prompt, seed and sampler, with and without whatever is
to be judged. NAME.txt beside either holds the prompt.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from metrics.settings import THRESHOLDS, Constraint, ScoreSettings, settings_from

if TYPE_CHECKING:
    from torch import Tensor

    from metrics.folders import PairedFolders
    from metrics.suite import Judge, Scores

WRONG_INPUT = 2  # argparse's own exit code
MISSING = {Constraint.leakage: "give --nouns", Constraint.memorisation: "give --training"}
ALLOWED = {  # what of it is allowed
    Constraint.leakage: "at most {} of pictures",
    Constraint.memorisation: "at most {} of pictures",
    Constraint.failures: "at most {} over the base",
    Constraint.adherence: "at most {} nats lost",
    Constraint.diversity: "at least {} of the base's",
    Constraint.lines: "at least {}",
}
FLAGGED = (Constraint.leakage, Constraint.memorisation, Constraint.failures)  # a yes or no for every picture
PACKAGES = ("stylesweep", "torch", "open-clip-torch", "timm", "lpips", "numpy", "scipy")


def main(arguments: list[str]) -> int:
    """Score what the command line names and return the exit code."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch loads; why: sweep/__init__.py
    from metrics.images import ScoreError

    try:
        settings = read_settings(options.settings)
        pairs, scores = _score(options, settings)
    except (ScoreError, ValueError) as error:
        return refused(error)
    _print(scores, settings, pairs.names)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(_record(options, settings, pairs, scores), indent=1) + "\n", "utf-8")
        print(f"every value: {options.json}")
    return 0


def refused(error: Exception) -> int:
    """Say what is wrong within 79 columns, paths in one piece, and return the exit code."""
    for line in f"error: {error}".splitlines():
        print(fill(line, 79, break_long_words=False, break_on_hyphens=False), file=sys.stderr)
    return WRONG_INPUT


def read_settings(file: Path | None) -> ScoreSettings:
    """Return the settings of a file such as conf/score/flux.yaml, the sandbox's without one.

    Raises:
        ValueError: if it is no such file, or has an unknown key.
    """
    if file is None:
        return ScoreSettings()
    import yaml

    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--settings {file} cannot be read: {error}") from error
    try:
        return settings_from(found)
    except ValueError as error:
        raise ValueError(f"--settings {file}: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m metrics", description=__doc__.split(":", 1)[1].strip())
    parser.add_argument("images", type=Path, help="folder of the pictures to judge")
    parser.add_argument("--base", type=Path, required=True, help="the same prompts and seeds without the LoRA")
    parser.add_argument("--references", type=Path, required=True, help="held-out pictures of the style")
    parser.add_argument("--training", type=Path, help="pictures trained on; without them memorisation is not read")
    parser.add_argument("--nouns", nargs="+", default=[], help="their subjects; without them leakage is not read")
    parser.add_argument("--others", type=Path, help="pictures of other styles; without them the base's are used")
    parser.add_argument("--settings", type=Path, help="such as conf/score/flux.yaml; without it the sandbox's judges")
    parser.add_argument("--json", type=Path, help="file for every value, picture by picture")
    return parser


def _score(options: argparse.Namespace, settings: ScoreSettings) -> tuple[PairedFolders, Scores]:
    from metrics.folders import read_folder, read_pairs

    pairs = read_pairs(options.images, options.base)
    references, others, training = (
        read_folder(folder, reduce=True) if folder else {}
        for folder in (options.references, options.others, options.training)
    )
    judge = judge_of(settings, references, others, training, options.nouns)
    asked = judge.asked_among(pairs.prompts)
    if asked:
        ask = "1 prompt asks" if len(asked) == 1 else f"{len(asked)} prompts ask"
        print(f"warning: {ask} for training subjects, no leak of these can be seen there:")
        print("\n".join(f"  {text} ({', '.join(nouns)})" for text, nouns in asked.items()))
    scores = judge.score(pairs.samples, pairs.base_images, pairs.prompts)
    if not pairs.captioned:
        print("note: adherence means little, as not every picture has its prompt beside it\n  as NAME.txt")
    return pairs, scores


def judge_of(
    settings: ScoreSettings,
    references: dict[str, Tensor],
    others: dict[str, Tensor],
    training: dict[str, Tensor],
    nouns: Sequence[str],
) -> Judge:
    """Return the judge of folders as `read_folder` gives them.

    Raises:
        ScoreError: what `Judge` raises; references that were trained on are listed by name.
    """
    from metrics.images import TrainedOnError
    from metrics.suite import Judge

    try:
        return Judge(
            settings, list(references.values()), list(others.values()), list(training.values()), training_nouns=nouns
        )
    except TrainedOnError as error:
        names = [f"reference {name}" for name in references], [f"training picture {name}" for name in training]
        raise TrainedOnError(error.pairs, *names) from None


def _print(scores: Scores, settings: ScoreSettings, names: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("", "value", f"{settings.confidence:.0%} interval", "meaning"):
        table.add_column(column)
    for name, meaning in (("style", "0 as the base, 1 as references"), ("composition", "0 unrelated, 1 kept")):
        low, high = scores.intervals[name]
        table.add_row(name, f"{getattr(scores, name):.3f}", f"{low:.3f} to {high:.3f}", meaning)
    for name, value in scores.constraints.items():
        threshold = THRESHOLDS[Constraint(name)]
        limit = getattr(settings, threshold.setting)
        measured = limit - value if threshold.is_least else limit + value
        verdict = f"{'broken' if value > 0 else 'kept'}: {ALLOWED[Constraint(name)].format(f'{limit:g}')}"
        table.add_row(name, f"{measured:.3f}", _interval(scores, name, measured), verdict)
    for name in settings.constraints:
        if name not in scores.constraints:
            table.add_row(name, "–", "", f"not measured: {MISSING.get(name, 'something is missing')}")
    Console(soft_wrap=True).print(table)
    for constraint in FLAGGED:
        flags = scores.per_image.get(THRESHOLDS[constraint].mean_of, [])
        at_fault = [name for name, flag in zip(names, flags, strict=False) if flag]
        if at_fault:
            print(f"flagged for {constraint}: {', '.join(at_fault[:8])}{' and others' if len(at_fault) > 8 else ''}")
    if settings.encoder == ScoreSettings().encoder:
        print("The sandbox's judges know the sandbox's drawings only.")
        print("For real pictures: --settings conf/score/flux.yaml")


def _interval(scores: Scores, constraint: str, measured: float) -> str:
    """Return the interval of what a constraint holds: that of the mean it is read from, moved to it."""
    name = THRESHOLDS[Constraint(constraint)].mean_of
    if not name:
        return "–"
    sign = -1 if constraint == Constraint.adherence else 1
    offset = measured - sign * sum(scores.per_image[name]) / len(scores.per_image[name])
    low, high = sorted(sign * bound + offset for bound in scores.intervals[name])
    return f"{low:.3f} to {high:.3f}"


def _record(
    options: argparse.Namespace, settings: ScoreSettings, pairs: PairedFolders, scores: Scores
) -> dict[str, Any]:
    folders = {
        name: str(getattr(options, name) or "") for name in ("images", "base", "references", "training", "others")
    }
    return {
        **asdict(scores),
        "names": pairs.names,
        "texts": [prompt.text for prompt in pairs.prompts],
        "folders": folders,
        "settings": asdict(settings),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
