"""The final: who takes part, what is trained again, and what may be called best."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from optuna.trial import create_trial
from rich.console import Console

from metrics.statistics import Difference
from sweep.errors import InputError
from sweep.finalists import candidates, corrected, held_out_prompts, judge, rerun, table, verdict, write
from sweep.lines import console
from sweep.numbers import final_interval
from sweep.outcome import Outcome
from sweep.settings import EvalSettings
from tests.sweep import made
from trainer.settings import Prompt


def final(*levels: float, leakage: float = -0.05) -> tuple[dict[int, list[Outcome]], dict[int, Outcome]]:
    """Finalists that do about as well as their level in each of three trainings, and did as well in the search."""
    searched = {number: made.outcome(number, level) for number, level in enumerate(levels)}
    trained = {
        number: [made.outcome(100 * number + i, level + 0.003 * i, leakage=leakage) for i in range(3)]
        for number, level in enumerate(levels)
    }
    return trained, searched


def test_a_clear_winner_is_called_best_and_the_others_are_behind() -> None:
    found = judge(*final(0.5, 0.8, 0.3))
    assert [f.number for f in found] == [1, 0, 2]
    assert [f.relation for f in found] == ["first", "behind", "behind"]
    assert found[1].behind["style"].value == pytest.approx(0.3, abs=0.03)
    assert all(d.p < 0.05 and d.low > 0 for f in found[1:] for d in f.behind.values())
    assert verdict(found) == "Trial 0001 is best: ahead of every other finalist after Holm's correction."


def test_of_two_that_cannot_be_told_apart_none_is_called_best() -> None:
    found = judge(*final(0.6, 0.601))
    assert found[1].relation == "tie"
    assert "cannot be told from it" in verdict(found) and "is best" not in verdict(found)


def test_a_finalist_that_breaks_a_constraint_in_one_training_is_not_called_best() -> None:
    found = judge(*final(0.6, 0.4, leakage=0.1))
    assert found[0].feasible == [False] * 3 and found[0].broken == {"leakage": 3}
    assert "nothing is called best" in verdict(found)


def test_p_values_are_corrected_over_all_finalists_and_both_objectives() -> None:
    raw = {
        (number, name): Difference(0.1, 0.01, 0.2, p, tie=False, ruler=0.0)
        for (number, name), p in zip(
            [(1, "style"), (1, "composition"), (2, "style"), (2, "composition")], [0.04, 0.01, 0.02, 0.001], strict=True
        )
    }
    found = corrected(raw, confidence=0.95)
    assert [found[key].p for key in raw] == pytest.approx([0.04, 0.03, 0.04, 0.004])
    assert not any(difference.tie for difference in found.values())
    assert corrected({**raw, (3, "style"): replace(raw[1, "style"], p=0.9)}, confidence=0.95)[1, "style"].tie


def test_the_largest_rectangles_of_the_front_take_part(tmp_path: Path) -> None:
    study = made.new_study(tmp_path / "made")
    for level in (0.4, 0.7, 0.6):
        made.add_scored(study, tmp_path / "made", level)
    assert [t.number for t in candidates(study.get_trials(), 3)] == [1]


def test_a_recipe_is_trained_again_as_it_was_but_for_seed_and_prompts() -> None:
    searched = made.outcome(0, 0.5)
    held_out = made.config()
    held_out.eval = EvalSettings(prompts=[Prompt(text="a horse", seed=9)], strengths=[0.5, 1.0])
    again = rerun(searched, held_out, seed=101)
    assert again.train.seed == 101
    assert again.eval.prompts == held_out.eval.prompts and again.eval.strengths == [searched.best.strength]
    before = made.config()
    assert replace(again.train, seed=before.train.seed) == before.train
    assert (again.captions, again.mix, again.data.path) == (before.captions, before.mix, before.data.path)


def test_a_study_of_another_base_asks_for_the_words_of_its_command() -> None:
    searched = replace(made.outcome(0, 0.5), overrides=["base=flux1_dev", "data=folder", "captions=none"])
    other = made.config()
    other.base = replace(other.base, path="another base")
    with pytest.raises(InputError, match="base=flux1_dev data=folder"):
        rerun(searched, other, seed=101)


def test_the_held_out_prompts_are_taken_unless_others_are_asked_for() -> None:
    assert held_out_prompts(["study.name=x"]) == ["study.name=x", "eval=finalists"]
    assert held_out_prompts(["base=flux1_dev"])[-1] == "eval=flux_finalists"
    assert held_out_prompts(["eval=sandbox"]) == ["eval=sandbox"]
    root = Path(__file__).parents[2] / "conf" / "eval"
    for search, final_ in (("sandbox", "finalists"), ("flux", "flux_finalists")):
        texts = [{p.text for p in OmegaConf.load(root / f"{name}.yaml").prompts} for name in (search, final_)]
        assert not texts[0] & texts[1], "a prompt of the search decides nothing in the final"


def test_the_table_fits_and_everything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = made.new_study(tmp_path / "made")
    for level in (0.5, 0.8):
        made.add_scored(study, tmp_path / "made", level)
    found = judge(*final(0.5, 0.8))
    out = console()
    out.width = 80
    out.print(table(found, {trial.number: trial for trial in study.get_trials()}))
    printed = capsys.readouterr().out
    assert "0001" in printed and "3 of 3" in printed and "…" in printed
    assert max(len(line) for line in printed.splitlines()) <= 80
    assert '"relation": "behind"' in write(found, tmp_path).read_text()


def test_two_trainings_are_too_few_for_an_interval_and_none_leaves_its_scale() -> None:
    trained, searched = final(0.5, 0.8)
    found = judge({number: outcomes[:2] for number, outcomes in trained.items()}, searched)
    out = Console(width=80, record=True, file=io.StringIO())
    trials = {number: create_trial(values=[0.5, 0.5]) for number in trained}
    out.print(table(found, trials))
    printed = out.export_text()
    assert "–" in printed and "…" not in printed, "nor is anything cut"
    assert final_interval("composition", (0.77, 1.11), 2) == "too few trainings"
    assert final_interval("composition", (0.77, 1.11), 3) == "0.77 to 1.00"
