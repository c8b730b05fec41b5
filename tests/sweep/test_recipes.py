"""What trials of a study share, and the best of them as an experiment that runs."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from optuna.trial import create_trial

from sweep.experiment import settle, write_experiment
from sweep.recipes import MACHINE, Recipe, fixed_settings, flat, read_recipe
from sweep.rules import Conditions
from sweep.schema import register
from sweep.settings import SearchSettings
from sweep.space import read_arguments


def composed(*overrides: str) -> DictConfig:
    """The configuration of these overrides, with Hydra's own node."""
    register()
    with initialize_config_module(version_base="1.3", config_module="conf"):
        config = compose("config", ["study.name=named", *overrides], return_hydra_config=True)
    return config


def recipe(name: str, *words: str) -> Recipe:
    """An experiment seen from the search that these words ask for."""
    register()
    with initialize_config_module(version_base="1.3", config_module="conf"):
        loader = GlobalHydra.instance().config_loader()
        given = read_arguments(words, {}, loader)
        config = compose("config", ["study.name=named", *given.fixed], return_hydra_config=True)
        return read_recipe(
            name, config=config, loader=loader, fixed=given.fixed, space=given.space, conditions=Conditions()
        )


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
    file = write_experiment(found, found.hydra.runtime.choices, tmp_path, trial, SearchSettings())
    again = composed(f"hydra.searchpath=[file://{tmp_path}]", f"experiment={file.stem}")
    assert flat(again) == flat(found)
    assert again.hydra.runtime.choices.captions == found.hydra.runtime.choices.captions
    assert not any(OmegaConf.select(OmegaConf.load(file), key) for key in MACHINE), "it is for any machine"
    assert "search:" not in file.read_text() and "style 0.500, composition 0.250" in file.read_text()


def test_the_experiment_follows_the_final(tmp_path: Path) -> None:
    for number, captions in enumerate(("none", "edited")):
        notes = tmp_path / f"{number:04d}" / ".hydra"
        notes.mkdir(parents=True)
        found = composed(f"captions={captions}")
        plain = {key: value for key, value in found.items() if key != "hydra"}
        OmegaConf.save(OmegaConf.create(plain), notes / "config.yaml")
        choices = {"hydra": {"runtime": {"choices": found.hydra.runtime.choices}}}
        OmegaConf.save(OmegaConf.create(choices), notes / "hydra.yaml")
    trials = [create_trial(values=[0.5, 0.25]), create_trial(values=[0.4, 0.3])]
    trials[0].number, trials[1].number = 0, 1
    file = write_experiment(found, found.hydra.runtime.choices, tmp_path, trials[0], SearchSettings())
    settle(tmp_path, None, SearchSettings())
    assert "Trial 0000" in file.read_text() and "not confirmed by its final" in file.read_text()
    settle(tmp_path, trials[1], SearchSettings())
    assert "Trial 0001" in file.read_text() and "its best: style 0.400" in file.read_text()
    assert "override /captions: edited" in file.read_text()


def test_an_earlier_best_is_a_first_trial_of_another_search(tmp_path: Path) -> None:
    found = composed("captions=edited", "mix=512x3_768x2", "train.lora.rank=8")
    write_experiment(found, found.hydra.runtime.choices, tmp_path, create_trial(values=[0.5, 0.25]), SearchSettings())
    place = f"hydra.searchpath=[file://{tmp_path}]"
    mine = recipe("best", place, "captions=choice(none,edited)", "train.lora.rank=choice(8,16)", "mix=512x3_768x2")
    assert mine == Recipe("best", {"captions": "edited", "train.lora.rank": 8})


def test_a_recipe_outside_of_the_space_is_no_first_trial_and_says_why() -> None:
    space = ["captions=choice(none,edited)", "mix.repeats.512=range(0,2)"]
    assert "mix.repeats.512=" in recipe("anatomica_v9", *space).misfit
    fewer = recipe("anatomica_v9", "captions=choice(subject_only,edited)")
    assert not fewer.params and "mix" in fewer.misfit, "and what is not searched has to be as it is in the recipe"
