"""`python -m metrics.calibrate STUDY_OR_OUTCOME...`: how much of every number is noise, and what thresholds must clear.

Two noises are read from what a sweep leaves behind (outcome.json and the pictures beside it). *Training*: trials that
differ in nothing but `train.seed` are repeats of one recipe; their spread is the ruler below which a difference is a
tie. *Seed*: where a prompt was drawn with two seeds (conf/eval/finalists.yaml), the base's second picture is scored as
if it were a sample of a LoRA; no constraint may break on that, whatever its threshold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from metrics.__main__ import judge_of, refused
from metrics.folders import NamedPrompt, read_folder, read_picture
from metrics.images import ScoreError
from metrics.settings import THRESHOLDS, Constraint, ScoreSettings, settings_from
from metrics.statistics import Ruler, bootstrap_interval, training_ruler
from metrics.suite import UNRELATED, Scores

OBJECTIVES = ("style", "composition")


@dataclass(frozen=True)
class SeedNoise:
    """The base scored against itself with another seed."""

    prompts: int
    scores: Scores
    bounds: dict[Constraint, float]  # the 95 % bound of what each threshold is held against

    def breaks(self, settings: ScoreSettings) -> list[Constraint]:
        """Return the constraints whose threshold lies within the noise."""
        held = {name: float(getattr(settings, THRESHOLDS[name].setting)) for name in self.bounds}
        return [
            name
            for name, found in self.bounds.items()
            if (found < held[name] if THRESHOLDS[name].is_least else found > held[name])
        ]


def main(arguments: list[str]) -> int:
    """Read the outcomes, print the report and return the exit code."""
    parser = argparse.ArgumentParser("python -m metrics.calibrate", description=__doc__.split(":", 1)[1].strip())
    parser.add_argument("outcomes", nargs="+", type=Path, help="outcome.json files, trial folders or study folders")
    parser.add_argument("--nouns", nargs="+", default=[], help="training subjects, for leakage")
    parser.add_argument("--out", type=Path, help="file for the report, Markdown; printed in any case")
    options = parser.parse_args(arguments)
    try:
        outcomes = read_outcomes(options.outcomes)
        rulers = training_rulers(list(outcomes.values()))
        seeds = seed_noise(outcomes, options.nouns)
        settings = settings_from(next(iter(outcomes.values()))["config"]["score"])
        report = written(rulers, seeds, settings, len(outcomes))
    except (ScoreError, ValueError) as error:
        return refused(error)
    print(report)
    if options.out:
        options.out.write_text(report, encoding="utf-8")
    return 0


def read_outcomes(places: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """Return file -> outcome for files and everything below folders.

    Raises:
        ScoreError: if there is none, or a file is no outcome.
    """
    files = [file for place in places for file in (sorted(place.rglob("outcome.json")) if place.is_dir() else [place])]
    missing = [str(file) for file in files if not file.is_file()]
    if missing or not files:
        raise ScoreError(f"no outcome.json in {', '.join(map(str, missing or places))}; run python -m sweep first")
    found = {}
    for file in files:
        try:
            found[file] = json.loads(file.read_text(encoding="utf-8"))
            found[file]["candidates"], found[file]["config"]["score"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ScoreError(f"{file} is no outcome of a trial: {error}") from error
    return found


def recipe(outcome: Mapping[str, Any]) -> str:
    """Return everything that was set but the training's seed and what plays no part: equal texts, equal recipes."""
    config = json.loads(json.dumps(outcome["config"]))
    for part in ("search", "study", "track"):
        config.pop(part, None)
    config.get("train", {}).pop("seed", None)
    return json.dumps(config, sort_keys=True)


def training_rulers(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Ruler]:
    """Return the noise between trainings of one recipe for every number of the last candidate; {} without repeats."""
    recipes: dict[str, dict[int, dict[str, float]]] = {}  # by training seed: the same one twice is no repeat
    for outcome in outcomes:
        last = outcome["candidates"][-1]  # not the chosen one: choosing would add its own noise
        numbers = {name: last[name] for name in OBJECTIVES} | last["constraints"] | last["diagnostics"]
        recipes.setdefault(recipe(outcome), {})[outcome["config"]["train"]["seed"]] = numbers
    trained = [list(by_seed.values()) for by_seed in recipes.values()]
    names = dict.fromkeys(name for trainings in trained for numbers in trainings for name in numbers)
    rulers = {
        name: training_ruler([[numbers[name] for numbers in trainings if name in numbers] for trainings in trained])
        for name in names
    }
    return {name: ruler for name, ruler in rulers.items() if ruler is not None}


def seed_noise(outcomes: Mapping[Path, Mapping[str, Any]], nouns: Sequence[str]) -> SeedNoise | None:
    """Return the base against itself, from the first outcome whose prompts were drawn twice; None without one."""
    for file, outcome in outcomes.items():
        prompts, images = outcome["config"]["eval"]["prompts"], outcome.get("base_images", [])
        places: dict[tuple[str, int, int], list[int]] = {}
        for index, prompt in enumerate(prompts[: len(images)]):
            if prompt["group"] == UNRELATED:
                places.setdefault((prompt["text"], prompt["width"], prompt["height"]), []).append(index)
        twice = [(some[0], some[1]) for some in places.values() if len(some) > 1]
        if len(twice) > 1:
            return _against_itself(file.parent, outcome, twice, nouns)
    return None


def _against_itself(
    folder: Path, outcome: Mapping[str, Any], twice: Sequence[tuple[int, int]], nouns: Sequence[str]
) -> SeedNoise:
    config = outcome["config"]
    settings = settings_from(config["score"])
    others, training = config["eval"].get("others"), config["data"]["path"]
    references, pool, trained = (
        read_folder(Path(place), reduce=True) if place else {}
        for place in (config["data"]["references"], others, training)
    )
    judge = judge_of(settings, references, pool, trained, nouns)
    first, second = ([read_picture(folder / outcome["base_images"][pair[i]]) for pair in twice] for i in (0, 1))
    texts = [config["eval"]["prompts"][i]["text"] for i, _ in twice]
    scores = judge.score(second, first, [NamedPrompt(text) for text in texts])
    return SeedNoise(len(twice), scores, _bounds(scores, texts))


def _bounds(scores: Scores, texts: Sequence[str]) -> dict[Constraint, float]:
    found = {}
    for constraint, threshold in THRESHOLDS.items():
        if threshold.mean_of not in scores.per_image:
            continue
        low, high = bootstrap_interval(scores.per_image[threshold.mean_of], texts, confidence=0.9)  # 95 % on one side
        found[constraint] = low if threshold.is_least else high
    if Constraint.adherence in found:  # what may be lost is held against the threshold
        low, _ = bootstrap_interval(scores.per_image["adherence"], texts, confidence=0.9)
        found[Constraint.adherence] = -low
    if Constraint.failures in found:
        found[Constraint.failures] -= scores.diagnostics["failed_rate_base"]
    return found


def written(rulers: Mapping[str, Ruler], seeds: SeedNoise | None, settings: ScoreSettings, count: int) -> str:
    """Return the report as Markdown."""
    lines = ["# The noise ruler and the thresholds", "", f"From {count} outcomes, {date.today().isoformat()}.", ""]
    lines += ["## Trainings of one recipe, other seeds", ""]
    if rulers:
        lines += ["| number | SD | degrees of freedom | a difference is a tie below |", "|---|---|---|---|"]
        lines += [f"| {name} | {r.sd:.3f} | {r.df} | {r.tie():.3f} |" for name, r in rulers.items() if r.sd > 0]
        silent = [name for name, ruler in rulers.items() if ruler.sd == 0]
        lines += [f"\nEqual in every repeat: {', '.join(silent)}."] if silent else []
    else:
        lines += ["No recipe was trained twice. Repeat one:", "", "    python -m sweep -m 'train.seed=choice(1,2,3)'"]
    lines += ["", "## The base against itself with another seed", ""]
    if seeds is None:
        lines += [
            "No prompt was drawn with two seeds. Draw some:",
            "",
            "    python -m sweep.score LORA_FILE eval=finalists",
        ]
        return "\n".join(lines) + "\n"
    lines += [f"{seeds.prompts} prompts. A LoRA that did nothing but change the noise would be given:", ""]
    for name in OBJECTIVES:
        low, high = seeds.scores.intervals[name]
        lines += [f"- {name} {getattr(seeds.scores, name):.3f}, 95 % interval {low:.3f} to {high:.3f}"]
    lines += ["", "| threshold | is | 95 % bound of the noise | |", "|---|---|---|---|"]
    broken = seeds.breaks(settings)
    for constraint, bound in seeds.bounds.items():
        name = THRESHOLDS[constraint].setting
        verdict = "**within the noise**: move it beyond" if constraint in broken else "clears it"
        lines += [f"| score.{name} | {getattr(settings, name):.3f} | {bound:.3f} | {verdict} |"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
