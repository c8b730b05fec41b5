"""The tests see no model of the machine they run on."""

from pathlib import Path

import hypothesis
from huggingface_hub import constants


def test_no_cached_model_of_this_machine_is_seen() -> None:
    cache = Path(constants.HF_HUB_CACHE)
    assert constants.HF_HUB_OFFLINE and "stylesweep_tests_" in str(cache)
    assert not list(cache.glob("models--*"))


def test_hypothesis_sets_no_deadline_and_keeps_no_examples() -> None:
    assert hypothesis.settings().deadline is None
    assert hypothesis.settings().database is None
