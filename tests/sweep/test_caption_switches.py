"""Every switch of the captions is a parameter that a study can search by itself, in any strategy that it changes."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution

from sweep.points import as_override
from sweep.space import contains, distribution
from tests.sweep.test_configurations import composed
from trainer.settings import CaptionSettings, Strip


@pytest.mark.parametrize(
    ("key", "searched", "beside"),
    [
        ("strip", "choice([],[style],[medium,technique],[style,medium,technique,emotion])", "captions=edited"),
        ("length", "choice(as_is,half)", "captions=original"),
        ("max_tokens", "4,16,null", "captions=original"),
        ("trigger", "choice(antmy,'ohwx drawing')", "captions=subject_only"),
        ("trigger_place", "choice(front,end)", "captions=trigger"),
        ("class_phrase", "choice('',drawing,'anatomical drawing')", "captions=subject_only"),
        ("dropout", "interval(0.0,0.3)", "captions=subject_only"),
        ("shuffle_tags", "choice(true,false)", "captions=tags"),
        ("keep_tokens", "range(0,4)", "captions=tags"),
    ],
)
def test_a_switch_is_searched_and_each_point_composes(key: str, searched: str, beside: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"captions.{key}={searched}"])
    dist = distribution(override)
    if isinstance(dist, CategoricalDistribution):
        points = list(dist.choices)
    else:
        points = [dist.low, dist.high]  # type: ignore[attr-defined]
        assert isinstance(dist, FloatDistribution) == (key == "dropout")
    found = [getattr(composed(beside, as_override(f"captions.{key}", point)).captions, key) for point in points]
    assert len({repr(value) for value in found}) == len(points) > 1
    assert all(contains(dist, point) for point in points)
    if key == "strip":
        assert found[2] == [Strip.medium, Strip.technique]


def test_no_switch_is_left_out() -> None:
    marks = test_a_switch_is_searched_and_each_point_composes.pytestmark  # type: ignore[attr-defined]
    assert {row[0] for row in marks[0].args[1]} == set(vars(CaptionSettings())) - {"strategy", "sheet"}
