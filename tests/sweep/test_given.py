"""LoRAs that are there already: what their files say, and how views speak of what was not trained here."""

import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial
from safetensors.torch import save_file

from sweep.answers import answers
from sweep.effects import KEY, effects, level_in_words
from sweep.errors import Faults, InputError
from sweep.finalists import _searched
from sweep.findings import find
from sweep.given import recipe_words
from sweep.outcome import read_outcome
from sweep.preflight import check_inputs
from sweep.summary import label
from tests.sweep.made import add_scored, config, new_study


def lora(path: Path, **metadata: str) -> Path:
    save_file({"x.lora_A.weight": torch.zeros(1, 2)}, path, metadata=metadata or None)
    return path


def test_a_file_of_ours_says_what_it_was_trained_with_and_another_does_not(tmp_path: Path) -> None:
    made = config()
    assert recipe_words(made) == ("subject_only", "512x3+768x2")
    told = {"captions": {"strategy": "tags"}, "mix": {"repeats": {"768": 1, "256": 2, "1024": 0}}}
    for comment, words in ((json.dumps(told), ("tags", "256x2+768x1")), ("by hand", ("", "")), ("[1]", ("", ""))):
        made.eval.lora = str(lora(tmp_path / "v1.safetensors", ss_training_comment=comment))
        assert recipe_words(made) == words
    made.eval.lora = str(lora(tmp_path / "v2.safetensors"))
    assert recipe_words(made) == ("", "")


def test_it_is_called_by_its_name_or_by_its_place_where_the_name_says_nothing() -> None:
    assert level_in_words(KEY, '"loras/style v3.safetensors"') == "LoRA style v3"
    assert level_in_words(KEY, "a/lora.safetensors") == "LoRA a/lora.safetensors"


def test_what_is_missing_is_told_and_captions_are_not_asked_for(tmp_path: Path) -> None:
    made = config(str(tmp_path))
    made.eval.lora = str(tmp_path / "none.safetensors")
    with pytest.raises(Faults) as fault:
        check_inputs({"": made})
    assert "`eval.lora`: no such LoRA file" in str(fault.value) and "`data.path`" in str(fault.value)
    assert "captions" not in str(fault.value)


@pytest.fixture
def ranked(tmp_path: Path) -> tuple[optuna.Study, Path]:
    """Four LoRAs of another trainer, scored."""
    folder = tmp_path / "loras"
    study, scored = new_study(folder), new_study(tmp_path / "trained")
    files = CategoricalDistribution([f"v{n}.safetensors" for n in range(4)])
    for number, level in enumerate((0.5, 0.6, 0.7, 0.65)):
        made = add_scored(scored, folder, level)
        made.config["eval"]["lora"] = f"v{number}.safetensors"
        replace(made, captions="", mix="", overrides=[f"{KEY}=v{number}.safetensors"]).write(folder / f"{number:04d}")
        attrs = scored.trials[number].user_attrs | {"captions": "", "mix": "", "lora": str(tmp_path / "v.safetensors")}
        params = {KEY: f"v{number}.safetensors"}
        study.add_trial(
            create_trial(values=list(made.values), params=params, distributions={KEY: files}, user_attrs=attrs)
        )
    return study, folder


def test_the_report_ranks_them_and_says_nothing_of_how_they_were_trained(ranked: tuple[optuna.Study, Path]) -> None:
    study, folder = ranked
    found = find(study, folder)
    assert found.best is not None and found.best.given and label(found.best.trial) == "LoRA v2"
    assert effects(study.trials, [trial.values[0] for trial in study.trials]) == [], "a file is no factor"
    told = {answer.question: f"{answer.text} {answer.detail} {answer.copied}" for answer in answers(found)}
    assert "clearly ahead" in told["How sure is that?"] and "sweep.finalists" not in told["How sure is that?"]
    assert "were not trained here" in told["Which factor mattered?"]
    assert "train it again" not in told["How do I get this LoRA?"]


def test_they_cannot_be_trained_anew_for_a_final(ranked: tuple[optuna.Study, Path]) -> None:
    study, folder = ranked
    assert read_outcome(folder / "0002") is not None
    with pytest.raises(InputError, match=r"0002 .* was there already"):
        _searched(folder, study.trials[2])
