"""What a person reads who looks a setting up, or mistypes one."""

import pytest
from hydra import compose, initialize_config_dir

from sweep.manual import CONF, manual, meanings, nearest, unknown_keys
from sweep.schema import Config, register


def test_every_setting_has_a_meaning_and_a_choice_its_values() -> None:
    said = meanings(Config)
    assert not [key for key, meaning in said.items() if not meaning]
    assert "mse, huber" in said["train.loss"] and "tpe, gp" in said["search.sampler"]
    assert said["data.path"] and said["mix.repeats"], "what the schema declares anew keeps its room's words"


def test_the_manual_has_every_setting_as_the_override_that_sets_it() -> None:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        lines = manual("About.", compose("config", ["train.lora.rank=7", "data.path=???"])).splitlines()
    for line in ("  train.lora.rank=7", "  mix.repeats.512=5", "  data.path=???", "      inner width of the LoRA"):
        assert line in lines
    assert not [line for line in lines if len(line) > 80 and " " in line.strip()]


@pytest.mark.parametrize(
    ("typed", "meant"), [("train.lora.rnk", "train.lora.rank"), ("rank", "train.lora.rank"), ("captioms", "captions")]
)
def test_the_nearest_setting_is_proposed(typed: str, meant: str) -> None:
    assert meant in nearest(typed)
    assert "Did you mean" not in nearest("xyzzy")


def test_what_a_plus_brings_in_is_found_at_any_depth() -> None:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["+foo=1", "+train.lora.bar=2", "+mix.repeats.640=1", "+search.params.base=x"])
    assert sorted(unknown_keys(config)) == ["foo", "train.lora.bar"]
