"""What a terminal of 80 columns shows before the first trial and after the last."""

import io
from pathlib import Path

import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.trial import create_trial
from rich.console import Console

from sweep.progress import SweepProgress, best_line
from sweep.recipes import Recipe
from sweep.settings import SearchSettings
from sweep.space import Arguments
from sweep.summary import REASONS, print_summary
from tests.sweep.made import add_failed, add_scored, new_study

LONG = "out of memory: CUDA out of memory. Tried to allocate 2.00 GiB; try memory=16gb, or a smaller mix.batch_size"


@pytest.fixture
def out() -> Console:
    return Console(file=io.StringIO(), width=80, highlight=False, markup=False)


def lines(out: Console) -> list[str]:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


def test_the_summary_fits_80_columns_and_gives_the_reasons_below_the_table(tmp_path: Path, out: Console) -> None:
    folder = tmp_path / "made"
    study = new_study(folder)
    study.set_user_attr("sandbox", True)
    add_scored(study, folder, 0.7)
    for _ in range(REASONS + 1):
        add_failed(study, LONG)
    for number in range(REASONS + 1):
        add_failed(study, f"a reason of its own, {number}")
    print_summary(out, study, folder)
    text = lines(out)
    assert max(len(line.rstrip()) for line in text if str(tmp_path) not in line) <= 80
    [row] = [line for line in text if line.strip().startswith("0001 ") and "–" in line]
    assert row.split()[-1] == "failed"
    assert "  0001, 0002, 0003, 0004, 0005, 0006, … failed: out of memory: CUDA out of" in text, "one reason, one line"
    assert "  … and 2 more without values" in text and "  to be applied at strength 1" in text
    assert "From the sandbox: what is best here is no promise for FLUX.1-dev." in text


def test_whatever_was_searched_is_told_apart_in_table_and_front(tmp_path: Path, out: Console) -> None:
    study = optuna.create_study(directions=["maximize"] * 2)
    for rank in (4, 8):
        space = {"train.lora.rank": IntDistribution(1, 64), "mix.repeats.512": IntDistribution(1, 5)}
        params = {"train.lora.rank": rank, "mix.repeats.512": 3}
        study.add_trial(
            create_trial(
                params=params,
                distributions=space,
                values=[0.1 * rank, 0.9 - 0.1 * rank],
                user_attrs={"captions": "subject_only", "mix": "256x1+512x3+768x1"},
            )
        )
    print_summary(out, study, tmp_path)
    text = lines(out)
    assert [sum(f"rank {rank}" in line for line in text) for rank in (4, 8)] == [2, 2]
    assert not any("512 px" in line for line in text), "the mix says it"
    assert max(len(line.rstrip()) for line in text) <= 80


def test_without_a_usable_trial_the_nearest_is_named_and_no_final_proposed(tmp_path: Path, out: Console) -> None:
    folder = tmp_path / "made"
    study = new_study(folder)
    for leakage in (0.3, 0.02):
        add_scored(study, folder, 0.7, leakage=leakage)
    print_summary(out, study, folder)
    text = "\n".join(lines(out))
    assert "The nearest is trial 0001, ruled out by leakage (+0.02 over its limit)." in text
    assert "sweep.report" in text and "sweep.finalists" not in text


def test_recipes_that_are_left_out_share_a_line_with_their_reason(tmp_path: Path, out: Console) -> None:
    progress = SweepProgress(SearchSettings(), tmp_path)
    progress.console = out
    other = "not this study's data.path, data.references"
    misfits = [Recipe("anatomica_v1", misfit="not this study's data.limit")]
    misfits += [Recipe(f"chalk_v{i}", misfit=other) for i in (1, 2)]
    progress.start(new_study(tmp_path / "made"), Arguments([], {}), misfits)
    assert lines(out)[-2:] == [
        "  left out anatomica_v1: not this study's data.limit",
        f"  left out chalk_v1, chalk_v2: {other}",
    ]


def test_what_has_no_style_is_not_offered_as_the_best_lora(tmp_path: Path, out: Console) -> None:
    folder = tmp_path / "made"
    study = new_study(folder)
    add_scored(study, folder, 0.02)
    trials = study.get_trials()
    print_summary(out, study, folder)
    text = " ".join(" ".join(lines(out)).split())
    assert "No usable LoRA has learned the style yet: the highest is style 0.0" in text
    assert "Best LoRA" not in text and "sweep.finalists" not in text
    assert best_line(SearchSettings(), trials).endswith("and the style is not learned yet")
    add_scored(study, folder, 0.6)
    assert "area" in best_line(SearchSettings(), study.get_trials())
    print_summary(out, study, folder)
    assert "Best LoRA" in "".join(lines(out))
