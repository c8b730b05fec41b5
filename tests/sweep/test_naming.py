"""How a command is told which study it is about."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep.errors import InputError
from sweep.naming import find_study, with_study
from tests.sweep.conftest import command
from tests.sweep.made import add_scored, new_study

Make = Callable[[str], Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a study in multirun/ of the working folder; the one made last is the newest."""
    monkeypatch.chdir(tmp_path)
    made: list[Path] = []

    def begin(name: str) -> Path:
        folder = tmp_path / "multirun" / name
        folder.mkdir(parents=True)
        (folder / "study.db").touch()
        made.append(folder)
        os.utime(folder / "study.db", (len(made), len(made)))
        return folder

    return begin


@pytest.mark.parametrize(
    "words", [["old"], ["multirun/old/"], ["study.name=old"], ["study.folder=multirun", "old"], ["old", "old"]]
)
def test_a_study_is_named_in_any_way(words: list[str], make: Make) -> None:
    old, new = make("old"), make("new")
    assert find_study(words) == old
    assert find_study([]) == find_study(["study.folder=multirun"]) == find_study([str(new)]) == new


def test_a_study_that_is_not_there_is_answered_with_those_that_are(make: Make) -> None:
    make("made")
    for words in (["other"], ["study.name=other"]):
        with pytest.raises(InputError, match=r"^other has no study .* in multirun/ there is: made"):
            find_study(words)
    with pytest.raises(InputError, match="name one study, got made, other"):
        find_study(["made", "other"])
    with pytest.raises(InputError, match=r"no study in .*elsewhere"):
        find_study(["study.folder=elsewhere"])


def test_hydra_is_told_of_the_study_in_its_own_words(make: Make) -> None:
    make("old"), make("my study's ü")
    old, newest = (["study.name='old'", "study.folder='multirun'"], r"study.name='my study\'s ü'")
    assert with_study(["old", "track=off"]) == with_study(["track=off", "study.name='old'"]) == ["track=off", *old]
    assert with_study([])[0] == with_study(["my study's ü"])[0] == newest
    assert with_study(["-cd", "old", "track=off"])[3] == newest, "a flag's value names no study"
    for words in (["data.path=pictures"], ["--cfg", "job"]):
        assert with_study(words) == words


@pytest.mark.parametrize("words", [[], ["made"], ["study.name=made"], ["multirun/made"]])
def test_a_report_takes_every_way_to_name_a_study(words: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "multirun" / "made"
    add_scored(new_study(folder, on_disk=True), folder, 0.7)
    ran = command("-m", "sweep.report", *words, cwd=tmp_path)
    assert ran.code == 0, ran.text
    assert "report: multirun/made/report.html" in ran.out
