"""The search grammar, read as distributions."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sweep.errors import InputError
from sweep.points import as_override
from sweep.space import contains, distribution, from_json, ranges, read_arguments, to_json


def read(text: str) -> BaseDistribution:
    return distribution(OverridesParser.create().parse_overrides([text])[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("captions=choice(none,edited)", CategoricalDistribution(["none", "edited"])),
        ("captions=none,edited", CategoricalDistribution(["none", "edited"])),
        ("data.limit=20,null", CategoricalDistribution([20, None])),
        ("mix.repeats.512=range(0,6)", IntDistribution(0, 5)),
        ("mix.repeats.512=range(1,6,2)", IntDistribution(1, 5, step=2)),
        ("x=range(0.0,1.0,0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
        ("x=interval(1e-4,1e-2)", FloatDistribution(1e-4, 1e-2)),
        ("x=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("rank=int(interval(4,64))", IntDistribution(4, 64)),
        ("captions.strip=choice([style],[style,medium])", CategoricalDistribution(["[style]", "[style,medium]"])),
    ],
)
def test_hydras_grammar_becomes_optunas_distributions(text: str, expected: BaseDistribution) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    "text", ["x=5", "x=range(3,3)", "x=interval(2,1)", "x=tag(log,interval(0,1))", "x=range(5,1,-1)"]
)
def test_what_cannot_be_searched_is_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match="`x`"):
        read(text)


@pytest.mark.parametrize("key", ["study.storage", "search.seed", "track.wandb", "hydra/launcher", "hydra.job.num"])
def test_how_a_study_is_run_is_not_searched(key: str) -> None:
    with pytest.raises(InputError, match=f"`{key}` cannot be searched"):
        read_arguments([f"{key}=a://me:s3cret,b"], {}, None)


def test_the_command_line_replaces_extends_and_fixes_the_configured_space() -> None:
    given = read_arguments(
        ["a=range(0,3)", "b=7", "d=interval(0,1)"], {"a": "range(0,9)", "b": "range(0,9)", "c": "choice(x,y)"}, None
    )
    assert given.fixed == ["b=7"]
    assert given.space == {
        "c": CategoricalDistribution(["x", "y"]),
        "a": IntDistribution(0, 2),
        "d": FloatDistribution(0.0, 1.0),
    }


def test_a_search_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="nothing is left to search"):
        read_arguments(["a=1"], {"a": "range(0,9)"}, None)


def test_a_space_survives_being_written_and_read() -> None:
    space = read_arguments(["a=range(0,3)", "b=x,null", "c=tag(log,interval(1,2))"], {}, None).space
    assert from_json(to_json(space)) == space


@pytest.mark.parametrize(
    ("text", "value", "inside"),
    [
        ("x=range(0,6)", 5, True),
        ("x=range(0,6)", 6, False),
        ("x=range(0,6)", True, False),
        ("x=range(0,6,2)", 3, False),
        ("x=choice(1,2)", True, False),
        ("x=choice(a,b)", "a", True),
        ("x=choice(a,b)", "c", False),
        ("x=20,null", None, True),
        ("x=interval(0,1)", 0.5, True),
    ],
)
def test_membership_is_exact(text: str, value: object, inside: bool) -> None:
    assert contains(read(text), value) is inside


@pytest.mark.parametrize(("value", "text"), [("edited", "x=edited"), (None, "x=null"), (True, "x=True"), (3, "x=3")])
def test_a_parameter_is_the_override_that_repeats_it(value: object, text: str) -> None:
    assert as_override("x", value) == text


def test_choices_of_the_configured_space_that_lack_something_are_left_out_and_those_typed_are_not() -> None:
    def lacks(key: str, choice: str) -> str:
        return "no tags" if choice == "tags" else ""

    params = {"captions": "choice(none,tags,edited)", "only": "choice(tags)"}
    found = read_arguments([], params, None, lacks)
    assert found.space["captions"].choices == ("none", "edited")  # type: ignore[attr-defined]
    assert found.space["only"].choices == ("tags",)  # type: ignore[attr-defined] # all of it: refused by the check
    assert found.left_out == ("captions=tags: no tags",)
    typed = read_arguments(["captions=choice(none,tags)"], params, None, lacks)
    assert typed.space["captions"].choices == ("none", "tags") and not typed.left_out  # type: ignore[attr-defined]
    assert ranges(found.space) == "captions none, edited; only tags"
