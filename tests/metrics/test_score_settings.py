"""Settings: rules that name the setting and the value; the room's door opens without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from metrics.settings import Constraint, ScoreSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("side", 8), ("leak_rate", 1.5), ("confidence", 1.0), ("tail_share", 0.0), ("gain_cap", 0.0)],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"`{name}`.*{value}"):
        ScoreSettings(**{name: value})


def test_without_lpips_constraints_no_trunk_is_needed():
    assert ScoreSettings(lpips_weights="", constraints=[Constraint.leakage]).lpips_weights == ""


def test_the_room_opens_without_torch():
    code = "import sys, metrics, metrics.settings; metrics.ScoreSettings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_public_name_is_an_attribute_error():
    import metrics

    with pytest.raises(AttributeError, match="scoer"):
        metrics.scoer  # noqa: B018
