"""What trials of a study share, and the best of them as an experiment that runs."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from optuna.trial import create_trial

from sweep.experiment import write_experiment
from sweep.recipes import MACHINE, fixed_settings, flat
from sweep.schema import register
from sweep.settings import SearchSettings


def composed(*overrides: str) -> DictConfig:
    """The configuration of these overrides, with Hydra's own node."""
    register()
    with initialize_config_module(version_base="1.3", config_module="conf"):
        config = compose("config", ["study.name=named", *overrides], return_hydra_config=True)
    return config


def shared(*overrides: str) -> dict[str, object]:
    """What the trials of a search over mixes and the repeats of 512 share."""
    mixes = ("512x5", "512x3_768x2")
    configs = {"": composed(*overrides), **{f"mix={mix}": composed(f"mix={mix}", *overrides) for mix in mixes}}
    return fixed_settings(configs, ["mix", "mix.repeats.512"], ["mix"])


def test_a_setting_given_for_a_whole_searched_group_is_part_of_the_study() -> None:
    before, after = shared(), shared("mix.batch_size=3")
    assert {key for key in after if before.get(key) != after[key]} == {"mix.batch_size"}
    assert before["mix.repeats.768 with mix=512x3_768x2"] == 2, "and so is what each choice brings along"
    assert not any(key.startswith("mix.repeats.512") for key in before), "but not what is searched by itself"


@pytest.mark.parametrize(
    "overrides",
    [
        ("captions=edited", "mix=512x3_768x2", "mix.repeats.512=4", "train.lora.rank=8", "experiment=chalk_v1"),
        ("base=flux1_dev", "data=folder", "data.path=pictures", "data.references=held_out", "train=sandbox"),
    ],
)
def test_the_best_trials_experiment_gives_the_same_training_again(overrides: tuple[str, ...], tmp_path: Path) -> None:
    found = composed(*overrides, "base.threads=7", "search.n_trials=3")
    trial = create_trial(values=[0.5, 0.25])
    file = write_experiment(found, tmp_path, trial, SearchSettings())
    again = composed(f"hydra.searchpath=[file://{tmp_path}]", f"experiment={file.stem}")
    assert flat(again) == flat(found)
    assert again.hydra.runtime.choices.captions == found.hydra.runtime.choices.captions
    assert not any(OmegaConf.select(OmegaConf.load(file), key) for key in MACHINE), "it is for any machine"
    assert "search:" not in file.read_text() and "style 0.500, composition 0.250" in file.read_text()
