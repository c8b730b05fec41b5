"""conf/: every file says what it is for, composes, and agrees with the enums it chooses from."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from sweep.door import settings
from sweep.recipes import flat
from sweep.schema import Config, register
from trainer.settings import Strategy

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "conf").rglob("*.yaml"))
CHOICES = [f for f in FILES if f.parent != ROOT / "conf" and "hydra" not in f.parts]
RECIPES = sorted(f.stem for f in (ROOT / "conf" / "experiment").glob("*.yaml"))
GIVEN = ["data.path=pictures", "data.references=held_out"]


def composed(*overrides: str) -> Config:
    register()
    with initialize_config_module(version_base="1.3", config_module="conf"):
        config = compose("config", list(overrides), return_hydra_config=True)
        config.study.name = "named"
        return settings(config)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT / "conf")))
def test_every_file_opens_with_a_sentence_and_the_command_that_uses_it(file: Path) -> None:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
    assert re.fullmatch(r"# .+ Used by: python -m sweep.*", lines[0]), lines[0]


@pytest.mark.parametrize("file", CHOICES, ids=lambda f: str(f.relative_to(ROOT / "conf")))
def test_every_choice_composes_into_settings_that_keep_their_rules(file: Path) -> None:
    given = {"folder": GIVEN, "endpoint": ["captioner.url=http://127.0.0.1:1/v1", "captioner.model=tiny"]}
    made = composed(f"{file.parent.name}={file.stem}", *given.get(file.stem, []))
    assert made.mix.repeats and made.eval.prompts


def test_strategies_and_their_files_agree() -> None:
    files = {f.stem for f in (ROOT / "conf" / "captions").glob("*.yaml")}
    assert files == {strategy.value for strategy in Strategy}
    for name in files:
        assert composed(f"captions={name}").captions.strategy == name


def test_the_trigger_word_of_ones_own_pictures_is_their_folders_name_unless_it_is_given() -> None:
    own = ["captions=trigger", "data=folder", *GIVEN]
    assert composed("captions=trigger").captions.trigger == "anatomica"
    assert composed(*own).captions.trigger == "pictures"
    assert composed(*own, "data.trigger=krayx").captions.trigger == "krayx"
    assert composed(*own, "captions.trigger=krayx").captions.trigger == "krayx"


def test_repeats_of_a_side_compose_with_any_mix() -> None:
    made = composed("mix=512x3_768x2", "mix.repeats.256=2", "mix.repeats.512=0")
    assert made.mix.repeats == {256: 2, 512: 0, 768: 2, 1024: 0}


def test_a_base_brings_the_groups_that_suit_it_and_the_command_line_wins() -> None:
    flux = composed("base=flux1_dev", "data=folder", *GIVEN, "train=sandbox")
    assert (flux.base.scale, flux.sample.steps, flux.eval.prompts[0].width) == (1.0, 28, 1024)
    assert flux.train.budget == composed().train.budget


@pytest.mark.parametrize(
    ("name", "pictures", "captions", "repeats"),
    [
        ("anatomica_v1", 20, "trigger", {512: 1}),
        ("anatomica_v3", None, "tags", {512: 5}),
        ("anatomica_v6", None, "subject_only", {512: 5}),
        ("anatomica_v8", None, "subject_only", {256: 1, 512: 3, 768: 1}),
        ("anatomica_v9", None, "subject_only", {512: 3, 768: 2}),
        ("chalk_v1", None, "subject_only", {256: 1, 512: 3, 768: 1}),
        ("chalk_v2", None, "subject_only", {512: 5}),
    ],
)
def test_recipes_are_the_articles(name: str, pictures: int | None, captions: str, repeats: dict[int, int]) -> None:
    made = composed(f"experiment={name}")
    assert made.data.limit == pictures
    assert made.captions.strategy == captions
    assert {side: times for side, times in made.mix.repeats.items() if times} == repeats
    assert ("chalk" in made.data.path) == name.startswith("chalk")


def test_every_recipe_is_in_the_table_above() -> None:
    marks = test_recipes_are_the_articles.pytestmark  # type: ignore[attr-defined]
    assert sorted(row[0] for row in marks[0].args[1]) == RECIPES


def test_where_a_study_lives_and_how_it_searches_is_no_part_of_a_training() -> None:
    register()
    with initialize_config_module(version_base="1.3", config_module="conf"):
        one = flat(compose("config", ["study.name=a", "search.n_trials=3", "base.device=cuda"]))
        two = flat(compose("config", ["study.name=b", "search.seed=4", "track=off"]))
        other = flat(compose("config", ["study.name=a", "train.seed=4"]))
    assert one == two
    assert {key for key in one if one[key] != other[key]} == {"train.seed"}
    assert OmegaConf.create(one)  # plain values only
