"""What the scores hold against a LoRA, in words and on its pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from PIL import Image

from sweep.checks import asked_in_words, broken_in_words, flagged, marks, measured, not_learned
from sweep.contact_sheet import RED, contact_sheet, plain_sheet, save_sheet
from sweep.outcome import Outcome
from sweep.record import WARNINGS, warn
from tests.sweep import made


def flawed(failed: set[int], leaks: set[int], **constraints: float) -> Outcome:
    """An outcome of eight unrelated prompts whose pictures at these places failed or show a training subject."""
    outcome = made.outcome(0, 0.6)
    flags = {"failed": failed, "leak": leaks}
    per_image = outcome.best.per_image | {
        name: [float(i in at) for i in range(len(made.PROMPTS))] for name, at in flags.items()
    }
    return replace(outcome, candidates=[replace(outcome.best, per_image=per_image, constraints=constraints)])


def test_a_picture_is_marked_by_every_flag_it_has() -> None:
    found = flawed({1, 7}, {1})
    assert marks(found.best.per_image, 8) == ["", "failed, leak", "", "", "", "", "", "failed"]
    assert flagged(found) == ["failed: “a red house”, “a star”", "leak: “a red house”"]


@pytest.mark.parametrize(
    ("check", "value", "said"),
    [
        ("failures", 2 / 8 - 0.125, ("2 of 8 pictures failed", "1 allowed")),
        ("leakage", 1 / 8 - 0.05, ("1 of 8 pictures show a training subject", "0 allowed")),
        ("memorisation", -0.02, ("0 of 8 pictures copy a training picture", "0 allowed")),
        ("diversity", -0.15, ("0.95 of the base's variety", "at least 0.80")),
        ("lines", 0.1, ("line quality 0.40", "at least 0.50")),
        ("adherence", 0.4, ("prompts are followed 0.90 nats less", "0.50 allowed")),
        ("a limit of one's own", 0.4, ("", "")),
    ],
)
def test_a_check_says_what_was_found_and_what_is_allowed(check: str, value: float, said: tuple[str, str]) -> None:
    assert measured(check, value, flawed({1, 7}, {1})) == said


def test_a_trial_without_an_outcome_says_by_how_much_it_broke_a_limit() -> None:
    constraints = {"failures": 0.125, "leakage": -0.05, "own": 0.4}
    trial = optuna.trial.create_trial(values=[0.6, 0.5], constraints=constraints)
    assert broken_in_words(trial, None) == "failures (+0.12 over its limit), own (+0.40 over its limit)"
    found = broken_in_words(trial, flawed({1, 7}, set()))
    assert found == "failures (2 of 8 pictures failed, 1 allowed), own (+0.40 over its limit)"


@pytest.mark.parametrize(
    ("styles", "low", "said"),
    [
        ([0.004, -0.001], 0.001, ": the highest is style 0.004, of trial 0000."),
        ([0.3], -0.1, ": the highest is style 0.300 (its interval holds 0), of trial 0000."),
        ([0.004, 0.3], 0.001, ""),
        ([], 0, ""),
    ],
)
def test_what_has_not_learned_the_style_is_said_so(styles: list[float], low: float, said: str) -> None:
    bounds = {"intervals": {"style": [low, 0.9]}}
    trials = [optuna.trial.create_trial(values=[style, 1.0], user_attrs=bounds) for style in styles]
    trials = [replace_number(trial, i) for i, trial in enumerate(trials)]
    told = not_learned(trials, ["style", "composition"])
    assert told.startswith("No usable LoRA has learned the style yet") == bool(said) and said in told
    assert not_learned(trials, ["loss"]) == ""


def replace_number(trial: optuna.trial.FrozenTrial, number: int) -> optuna.trial.FrozenTrial:
    trial.number = number
    return trial


def test_a_marked_picture_has_a_red_frame_that_a_blind_judge_does_not_see(tmp_path: Path) -> None:
    pictures = [torch.rand(3, 40, 40 + 8 * i, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    rows = [("base", pictures), ("LoRA", pictures)]
    words = ["a girl", "a boat", "a star"]
    sheets = [contact_sheet(words, rows, "scores", held) for held in ([[""] * 3, ["", "failed", ""]], [])]
    for sheet, name in zip(sheets, ("marked", "plain"), strict=True):
        save_sheet(sheet, tmp_path / f"{name}.png")
    red = np.array(Image.new("RGB", (1, 1), RED))[0, 0]
    assert [bool((np.array(sheet) == red).all(-1).any()) for sheet in sheets] == [True, False]
    blind, plain = (np.array(plain_sheet(tmp_path / f"{name}.png")) for name in ("marked", "plain"))
    assert (blind == plain).all(), "the pictures are whole, the frame and the word are gone"


def test_a_study_says_a_warning_once_and_a_single_run_always(tmp_path: Path) -> None:
    asked = asked_in_words({"a girl with a heart": ["heart"]} | {f"skull {i}": ["skull"] for i in range(5)})
    assert asked_in_words({}) == [] and "6 prompts ask for" in asked[0] and "; and 2 more." in asked[0]
    said: list[str] = []
    for number in (0, 1, None):
        warn([*asked, f"of {number}"], said.append, tmp_path / f"{number}", number)
    of_trials = [f"warning: {asked[0]}", "warning: of 0", "warning: of 1"]
    assert said == [*of_trials, f"warning: {asked[0]}", "warning: of None"]
    assert (tmp_path / WARNINGS).read_text().splitlines() == [line.removeprefix("warning: ") for line in of_trials]
