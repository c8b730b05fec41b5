"""Conditions between parameters, as a person writes them."""

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from sweep.errors import InputError
from sweep.rules import in_order, read_conditions, read_rule

SPACE: dict[str, BaseDistribution] = {
    "captions": CategoricalDistribution(["none", "edited"]),
    "mix": CategoricalDistribution(["512x5", "512x3_768x2"]),
    "mix.repeats.512": IntDistribution(0, 5),
    "mix.repeats.768": IntDistribution(0, 5),
}
KNOWN = {"train.lora.rank": 16, "base": "sandbox"}
POINT = {"captions": "edited", "mix": "512x5", "mix.repeats.512": 3, "mix.repeats.768": 2}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("captions == edited", True),
        ("captions != edited", False),
        ("captions in (none, edited)", True),
        ("mix == 512x5", True),
        ("mix == '512x3_768x2'", False),
        ("mix.repeats.512 >= mix.repeats.768", True),
        ("mix.repeats.512 + mix.repeats.768 == 5 and not captions == none", True),
        ("256 * mix.repeats.512 < 1e3", True),
        ("train.lora.rank <= 8 or captions == none", False),
        ("base == 'sandbox' and mix.repeats.768 > 1", True),
    ],
)
def test_a_condition_is_read_as_it_is_said(text: str, holds: bool) -> None:
    assert read_rule(text, SPACE, KNOWN.__getitem__).holds(POINT) is holds


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("captions == editd", "'editd'"),
        ("captons == edited", "'captons'"),
        ("captions = edited", "no condition"),
        ("__import__('os').system('true')", "__import__"),
        ("captions.__class__ == none", "captions.__class__"),
        ("(captions == none).real", "'real'"),
        ("[captions for x in (1, 2)]", "'for'"),
        ("mix.repeats.512 ** 9 > 1", "Pow"),
        ("train.lora.rank == 16", "nothing searched"),
    ],
)
def test_what_is_no_condition_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(InputError, match=r"`search`") as fault:
        read_rule(text, SPACE, KNOWN.__getitem__)
    assert named in str(fault.value)


def test_a_condition_that_cannot_be_computed_names_itself_and_the_point() -> None:
    with pytest.raises(InputError, match="captions=edited"):
        read_rule("captions > 3", SPACE, KNOWN.__getitem__).holds(POINT)


def test_a_parameter_comes_after_those_its_condition_speaks_of() -> None:
    space = dict(reversed(SPACE.items()))
    when = {"mix.repeats.768": "mix.repeats.512 > 0", "mix.repeats.512": "captions == edited"}
    conditions = read_conditions(when, [], space, KNOWN.__getitem__)
    assert list(in_order(space, conditions)) == ["mix", "captions", "mix.repeats.512", "mix.repeats.768"]
    assert not conditions.active("mix.repeats.768", {"captions": "none"}), "what it waits for is not drawn"


def test_conditions_that_wait_for_each_other_are_refused() -> None:
    when = {"mix.repeats.512": "mix.repeats.768 > 0", "mix.repeats.768": "mix.repeats.512 > 0"}
    conditions = read_conditions(when, [], SPACE, KNOWN.__getitem__)
    with pytest.raises(InputError, match="circle"):
        in_order(SPACE, conditions)


def test_a_condition_of_what_is_not_searched_is_refused_unless_it_is_fixed() -> None:
    assert not read_conditions({"train.lora.rank": "captions == none"}, [], SPACE, KNOWN.__getitem__).when
    with pytest.raises(InputError, match=r"'captons\.strip'"):
        read_conditions({"captons.strip": "captions == edited"}, [], SPACE, KNOWN.__getitem__)
