"""`python -m sweep.finalists`: is the best trial really the best? Trains the front's best again and asks other prompts.

A search takes the largest of many noisy values, so its winner owes part of its lead to luck. The best of the Pareto
front are trained anew with other training seeds, at the strength and step their trial stands for, and scored on prompts
that no search has seen (conf/eval/finalists.yaml; flux_finalists.yaml with another base). The winner is compared with
every other finalist picture by picture; a difference counts after Holm's correction over all of these comparisons, and
against the noise between trainings.

Same overrides as `python -m sweep`: study.name says which study; search.finalists.count and .seeds how many. What has
been trained is not trained again, and an interrupted training goes on from its checkpoint.
"""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial
from rich import box
from rich.table import Table

from metrics.statistics import Difference, bootstrap_interval, holm, paired_difference, statistic_of, training_ruler
from sweep.door import Place, settings, start
from sweep.errors import InputError
from sweep.experiment import settle
from sweep.findings import OBJECTIVES, score_settings
from sweep.lines import StepProgress, console, shown
from sweep.numbers import TRAININGS_AT_LEAST, final_interval
from sweep.outcome import Outcome, read_outcome, unrelated
from sweep.schema import Config
from sweep.settings import study_folder
from sweep.study import front, load_study, rectangle, study_lock
from sweep.summary import label
from sweep.typed import python
from sweep.views import write_views

FOLDER = "finalists"
FILE = "finalists.json"


@dataclass(frozen=True)
class Finalist:
    """One recipe, trained several times."""

    number: int  # of its trial
    values: dict[str, float]  # objective -> mean over trainings, on held-out prompts
    intervals: dict[str, tuple[float, float]]  # over prompts, their seeds and trainings
    searched: dict[str, float]  # objective -> what the search had found, on its own prompts
    feasible: list[bool]  # for each training, whether every constraint is kept
    behind: dict[str, Difference]  # objective -> winner minus this one; empty for the winner
    broken: dict[str, int]  # constraint -> in how many trainings; only those that were

    @property
    def rectangle(self) -> float:
        """style × composition."""
        return rectangle([self.values[name] for name in OBJECTIVES])

    @property
    def relation(self) -> str:
        """To the winner: the winner itself, tie, behind or trade-off."""
        if not self.behind:
            return "first"
        clear = [difference.value > 0 for difference in self.behind.values() if not difference.tie]
        return "tie" if not clear else "behind" if all(clear) else "trade-off"


def candidates(trials: Sequence[FrozenTrial], count: int) -> list[FrozenTrial]:
    """The largest rectangles of the Pareto front."""
    return sorted(front(trials), key=lambda trial: (-rectangle(trial.values), trial.number))[:count]


def rerun(outcome: Outcome, held_out: Config, seed: int) -> Config:
    """The configuration that trains a trial's recipe again, with another seed, for prompts that were held out.

    Raises:
        InputError: if this command's base is another than the trial's: its prompts would not suit the trial.
    """
    stored = {key: value for key, value in outcome.config.items() if key not in ("search", "study", "track")}
    made = settings(DictConfig(OmegaConf.merge(OmegaConf.structured(Config), stored)))
    if made.base.path != held_out.base.path:
        said = [word for word in outcome.overrides if word.startswith(("base", "data"))]
        raise InputError(
            f"the study was made with base.path={made.base.path}, this command has {held_out.base.path}: repeat what"
            f" the sweep's command said of base and data: {shlex.join(said) or 'base=…'}"
        )
    return replace(
        made,
        train=replace(made.train, seed=seed),
        eval=replace(held_out.eval, checkpoints=made.eval.checkpoints, strengths=[outcome.best.strength]),
        base=replace(held_out.base, path=made.base.path, scale=made.base.scale),  # this machine's device and threads
        study=held_out.study,
        search=held_out.search,
        track=held_out.track,
    )


def judge(trained: Mapping[int, Sequence[Outcome]], searched: Mapping[int, Outcome]) -> list[Finalist]:
    """Compares the finalists, largest rectangle first.

    Args:
        trained: trial -> its new trainings, all scored on the same prompts and seeds.
        searched: trial -> its outcome in the search.
    """
    some = next(iter(trained.values()))[0]
    chosen = unrelated(some)
    texts = [some.config["eval"]["prompts"][i]["text"] for i in chosen]
    score = score_settings(some)
    options: dict[str, Any] = {"samples": score.bootstrap_samples, "confidence": score.confidence, "seed": score.seed}
    tables = {
        name: {
            number: [[_step(o, searched[number]).per_image[name][i] for i in chosen] for o in outcomes]
            for number, outcomes in trained.items()
        }
        for name in OBJECTIVES
    }
    found = []
    for number, outcomes in trained.items():
        scored = [_step(outcome, searched[number]) for outcome in outcomes]
        found.append(
            Finalist(
                number=number,
                values={n: sum(getattr(c, n) for c in scored) / len(scored) for n in OBJECTIVES},
                intervals={
                    n: bootstrap_interval(tables[n][number], texts, statistic=statistic_of(n, score), **options)
                    for n in OBJECTIVES
                },
                searched={n: getattr(searched[number].best, n) for n in OBJECTIVES},
                feasible=[candidate.feasible for candidate in scored],
                behind={},
                broken=dict(Counter(name for c in scored for name, value in c.constraints.items() if value > 0)),
            )
        )
    found.sort(key=lambda f: (not all(f.feasible), -f.rectangle, f.number))
    differences: dict[tuple[int, str], Difference] = {}
    for name in OBJECTIVES:
        ruler = training_ruler([[getattr(_step(o, searched[n]), name) for o in outs] for n, outs in trained.items()])
        for other in found[1:]:
            pair = (tables[name][found[0].number], tables[name][other.number])
            differences[other.number, name] = paired_difference(
                *pair, texts, statistic=statistic_of(name, score), ruler=ruler, **options
            )
    return [replace(f, behind=_of(f.number, corrected(differences, score.confidence))) for f in found]


def _step(outcome: Outcome, searched: Outcome) -> Any:
    """The candidate at the step that the search chose; the last where a training has ended sooner."""
    return min(outcome.candidates, key=lambda candidate: abs(candidate.images_seen - searched.best.images_seen))


def corrected(found: Mapping[tuple[int, str], Difference], confidence: float) -> dict[tuple[int, str], Difference]:
    """Holm over all finalists and both objectives at once: one question is asked, which of them is best."""
    p_values = holm([difference.p for difference in found.values()])
    return {
        key: replace(difference, p=p, tie=difference.tie or p > 1 - confidence)
        for (key, difference), p in zip(found.items(), p_values, strict=True)
    }


def _of(number: int, found: Mapping[tuple[int, str], Difference]) -> dict[str, Difference]:
    return {name: difference for (other, name), difference in found.items() if other == number}


def verdict(found: Sequence[Finalist]) -> str:
    """What may be said: the word best only for one that nothing ties with."""
    first = found[0]
    if not all(first.feasible):
        return "No finalist keeps every constraint on the held-out prompts in all trainings: nothing is called best."
    rivals = [f"{f.number:04d}" for f in found[1:] if f.relation != "behind" and all(f.feasible)]
    if len(found) == 1:
        return f"Trial {first.number:04d} is the only finalist; there is nothing to compare it with."
    if rivals:
        return (
            f"Trial {first.number:04d} has the largest rectangle, but {', '.join(rivals)} cannot be told from it or"
            " trades one objective for the other: take the one whose pictures you prefer, or train more seeds"
            " (search.finalists.seeds)."
        )
    return f"Trial {first.number:04d} is best: ahead of every other finalist after Holm's correction."


def is_best(found: Sequence[Finalist], trial: FrozenTrial) -> bool:
    """Whether a trial came first and kept every constraint."""
    return trial.number == found[0].number and all(found[0].feasible)


def run_finalists(config: Config, place: Place) -> None:
    """Trains what is missing, compares, prints, and writes finalists.json into the study's folder."""
    folder = study_folder(config.study)
    study = load_study(folder)
    trials = study.get_trials(deepcopy=False)
    chosen = candidates(trials, config.search.finalists.count)
    if not chosen:
        raise InputError(f"the study {folder.name} has no usable trial yet: there is nobody to send to a final")
    out = console()
    out.print(f"finalists of {folder.name}: {', '.join(f'{t.number:04d}' for t in chosen)}")
    with study_lock(folder):
        searched = {trial.number: _searched(folder, trial) for trial in chosen}
        trained = _train(config, folder, searched)
        found = judge(trained, searched)
        write(found, folder)
    study.set_user_attr("finalists", [f.number for f in found])
    settle(folder, next((trial for trial in chosen if is_best(found, trial)), None), config.search)
    out.print(table(found, {trial.number: trial for trial in chosen}))
    out.print(verdict(found))
    if config.search.finalists.seeds < TRAININGS_AT_LEAST:
        out.print(
            f"An interval takes {TRAININGS_AT_LEAST} trainings of each: search.finalists.seeds={TRAININGS_AT_LEAST}."
        )
    StepProgress().say(f"all values: {shown(folder / FOLDER / FILE)}")
    write_views(study, folder, StepProgress().say)


def _searched(folder: Path, trial: FrozenTrial) -> Outcome:
    outcome = read_outcome(folder / f"{trial.number:04d}")
    if outcome is None:
        raise InputError(
            f"{folder}/{trial.number:04d}/outcome.json is missing or of another version: its recipe is not known."
            f" Run {python()} -m sweep -m again under another study.name"
        )
    if outcome.config["eval"].get("lora"):
        raise InputError(
            f"trial {trial.number:04d} of the study {folder.name} is a LoRA that was there already: nothing is known"
            " of how to train it again. Name a study of trainings: study.name=NAME"
        )
    return outcome


def _train(config: Config, folder: Path, searched: Mapping[int, Outcome]) -> dict[int, list[Outcome]]:
    from sweep.trial import run_trial

    steps, trained = StepProgress(), dict[int, list[Outcome]]()
    wanted = [
        (n, config.search.finalists.first_seed + i) for n in searched for i in range(config.search.finalists.seeds)
    ]
    for i, (number, seed) in enumerate(wanted, start=1):
        steps.say(f"\ntraining {i} of {len(wanted)}: trial {number:04d} with seed {seed}")
        made = rerun(searched[number], config, seed)
        outcome = run_trial(made, folder=folder / FOLDER / f"{number:04d}-seed{seed}")
        trained.setdefault(number, []).append(outcome)
    return trained


def write(found: Sequence[Finalist], folder: Path) -> Path:
    """Writes all values, whole or not at all."""
    file = folder / FOLDER / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    rows = [{**asdict(f), "rectangle": f.rectangle, "relation": f.relation} for f in found]
    draft.write_text(json.dumps({"verdict": verdict(found), "finalists": rows}, indent=1), encoding="utf-8")
    draft.replace(file)
    return file


def table(found: Sequence[Finalist], trials: Mapping[int, FrozenTrial]) -> Table:
    """One row per finalist; fits 80 columns."""
    recipes = [f"{f.number:04d}  {label(trials[f.number])}" for f in found]
    made = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), caption="\n".join(recipes), caption_justify="left"
    )
    for name in ("trial", *OBJECTIVES, "searched", "usable", "to the first"):
        made.add_column(name, no_wrap=True)
    for f in found:
        values = [f"{f.values[name]:.3f}\n{_interval(f, name)}" for name in OBJECTIVES]
        before = "\n".join(f"{f.searched[name]:.3f}" for name in OBJECTIVES)
        lost = "\n".join(f"{d.value:+.3f} p={d.p:.3f}" for d in f.behind.values())
        kept = "\n".join([f"{sum(f.feasible)} of {len(f.feasible)}", *f.broken])
        made.add_row(f"{f.number:04d}", *values, before, kept, f"{f.relation}\n{lost}".strip())
    return made


def _interval(found: Finalist, name: str) -> str:
    """0.66…0.93, or a dash where trainings are too few; what they are is said below the table."""
    if len(found.feasible) < TRAININGS_AT_LEAST:
        return "–"
    return final_interval(name, found.intervals[name], len(found.feasible)).replace(" to ", "…")


def held_out_prompts(words: Sequence[str]) -> list[str]:
    """The command line with the prompts that were held out, unless others are asked for."""
    if any(word.startswith("eval=") for word in words):
        return list(words)
    base = next((word.partition("=")[2] for word in words if word.startswith("base=")), "sandbox")
    return [*words, "eval=finalists" if base == "sandbox" else "eval=flux_finalists"]


def main() -> None:
    """The command."""
    from sweep.preflight import check_inputs

    sys.argv[1:] = held_out_prompts(sys.argv[1:])
    start(run_finalists, check=check_inputs, keeps_folder=False, of_study=True)


if __name__ == "__main__":
    main()
