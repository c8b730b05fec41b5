"""Compositions from files that were read once are those that Hydra makes by itself, in any order."""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass

import hydra
import pytest
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from sweep.composing import _copies, keep_files
from sweep.manual import groups
from sweep.schema import register


@pytest.fixture
def loader() -> Iterator[ConfigLoader]:
    register()
    with hydra.initialize_config_module("conf", version_base="1.3"):
        composer = GlobalHydra.instance().hydra
        assert composer is not None
        yield composer.config_loader


def composed(loader: ConfigLoader, words: list[str]) -> object:
    return OmegaConf.to_container(loader.load_configuration("config", words, run_mode=RunMode.RUN))


def test_a_composition_from_kept_files_is_hydras_own(loader: ConfigLoader) -> None:
    asked = [[f"{group}={options[-1]}"] for group, options in groups().items()]
    asked += [["mix.repeats.512=2", "eval.strengths=[.5,1]", "train.lora.rank=4"], []]
    expected = [composed(loader, words) for words in asked]
    keep_files(loader)
    keep_files(loader)
    for _ in range(2):  # what the overrides of one wrote must not be found in the next
        for words, config in zip(asked, expected, strict=True):
            assert composed(loader, words) == config, words


def test_what_is_kept_does_not_travel_to_a_launchers_process(loader: ConfigLoader) -> None:
    keep_files(loader)
    expected = composed(loader, ["train.lora.rank=4"])
    there = pickle.loads(pickle.dumps(loader))
    assert not there.made and composed(there, ["train.lora.rank=4"]) == expected


@dataclass
class Known:
    """A structured configuration that pickles."""

    rank: int = 4


def test_copies_have_the_types_and_flags_of_what_they_copy_and_share_nothing() -> None:
    @dataclass
    class Local(Known):
        """One that does not, as an application may have it in a function."""

    for kind in (Known, Local):
        made = OmegaConf.create({"a": OmegaConf.structured(kind), "b": "${a.rank}", "c": "???"})
        OmegaConf.set_struct(made, True)
        copies = _copies(made)
        first, second = copies(), copies()
        first.a.rank = 8
        assert (first.b, second.b, made.b) == (8, 4, 4)
        assert OmegaConf.get_type(second.a) is kind and OmegaConf.is_missing(second, "c")
        assert OmegaConf.is_struct(second) and second._metadata == made._metadata
