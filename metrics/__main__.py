"""`python -m metrics IMAGES --base BASE_IMAGES --references REFS`: scores folders of pictures, no LoRA involved.

A picture and its base image have the same file name: the same prompt, seed and sampler, with and without whatever is
to be judged. NAME.txt beside either holds the prompt.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metrics.settings import Constraint, ScoreSettings, settings_from

if TYPE_CHECKING:
    from metrics.folders import PairedFolders
    from metrics.suite import Scores

WRONG_INPUT = 2  # argparse's own exit code
MISSING = {Constraint.leakage: "give --nouns", Constraint.memorisation: "give --training"}
PACKAGES = ("stylesweep", "torch", "open-clip-torch", "timm", "lpips", "numpy", "scipy")


def main(arguments: list[str]) -> int:
    """Score what the command line names and return the exit code."""
    options = _parser().parse_args(arguments)
    from metrics.images import ScoreError

    try:
        settings = read_settings(options.settings)
        pairs, scores = _score(options, settings)
    except (ScoreError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    _print(scores, settings)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(_record(options, settings, pairs, scores), indent=1) + "\n", "utf-8")
        print(f"every value: {options.json}")
    return 0


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
    from metrics.suite import Judge

    pairs = read_pairs(options.images, options.base)
    references, others, training = (
        list(read_folder(folder).values()) if folder else []
        for folder in (options.references, options.others, options.training)
    )
    judge = Judge(settings, references, others, training, options.nouns)
    asked = judge.asked_among(pairs.prompts)
    if asked:
        print(f"warning: {len(asked)} prompts ask for training subjects, no leak of these can be seen there:")
        print("\n".join(f"  {text} ({', '.join(nouns)})" for text, nouns in asked.items()))
    scores = judge.score(pairs.samples, pairs.base_images, pairs.prompts)
    if not pairs.captioned:
        print("note: not every picture has its prompt beside it as NAME.txt, so adherence means little")
    return pairs, scores


def _print(scores: Scores, settings: ScoreSettings) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("", "value", f"{settings.confidence:.0%} interval", "meaning"):
        table.add_column(column)
    for name, meaning in (("style", "0 as the base, 1 as references"), ("composition", "0 unrelated, 1 kept")):
        low, high = scores.intervals[name]
        table.add_row(name, f"{getattr(scores, name):.3f}", f"{low:.3f} to {high:.3f}", meaning)
    for name, value in scores.constraints.items():
        table.add_row(name, f"{value:+.3f}", _interval(scores, name), "broken" if value > 0 else "kept")
    for name in settings.constraints:
        if name not in scores.constraints:
            table.add_row(name, "–", "", f"not measured: {MISSING.get(name, 'something is missing')}")
    Console(soft_wrap=True).print(table)
    if settings.encoder == ScoreSettings().encoder:
        print("The sandbox's judges know the sandbox's drawings only. Real pictures: --settings conf/score/flux.yaml")


def _interval(scores: Scores, constraint: str) -> str:
    """Return the interval of a constraint's value: that of the mean it is read from, moved to it."""
    from metrics.calibrate import BOUNDS

    if constraint not in BOUNDS:
        return "–"  # diversity is one number of the whole set
    name = BOUNDS[Constraint(constraint)][0]
    sign = -1 if constraint in (Constraint.lines, Constraint.adherence) else 1
    mean = sum(scores.per_image[name]) / len(scores.per_image[name])
    offset = scores.constraints[constraint] - sign * mean
    low, high = sorted(sign * bound + offset for bound in scores.intervals[name])
    return f"{low:+.3f} to {high:+.3f}"


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
