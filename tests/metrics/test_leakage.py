"""Subject leakage by text: words, probabilities and what counts as a leak."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metrics.leakage import asked_for, leaks, mentions, noun_probabilities, picture_leak, subject_directions


@pytest.mark.parametrize(
    ("text", "noun", "expected"),
    [
        ("a large red heart at the left", "heart", True),
        ("three Hearts", "heart", True),
        ("a sweetheart", "heart", False),
        ("two boxes", "box", True),
        ("an eyelid", "eye", False),
        ("a girl (smiling)", "girl", True),
    ],
)
def test_a_noun_is_asked_for_as_a_word_of_its_own(text, noun, expected):
    assert mentions(text, noun) is expected


def test_probabilities_are_those_of_a_softmax_over_training_and_neutral_nouns():
    words = torch.eye(3)
    found = noun_probabilities(torch.eye(3), words[:1], words[1:], logit_scale=2.0)
    top = np.exp(2) / (np.exp(2) + 2)
    assert found[:, 0] == pytest.approx([top, 1 / (np.exp(2) + 2), 1 / (np.exp(2) + 2)], rel=1e-5)


def test_only_what_the_base_does_not_show_and_nobody_asked_for_is_a_leak():
    samples = np.array([[0.9, 0.0], [0.9, 0.0], [0.9, 0.0], [0.4, 0.4], [0.0, 0.8]])
    base = np.array([[0.1, 0.0], [0.8, 0.0], [0.1, 0.0], [0.0, 0.0], [0.0, 0.0]])
    asked = asked_for(["a cup", "a cup", "a red heart", "a cup", "a heart"], ["heart", "skull"])
    assert leaks(samples, base, asked).tolist() == [True, False, False, False, True]


def test_without_a_change_nothing_leaks():
    probabilities = np.random.default_rng(0).uniform(size=(50, 4))
    assert not leaks(probabilities, probabilities, np.zeros((50, 4), dtype=bool)).any()


def test_the_leak_rate_is_the_share_of_pictures_in_which_a_subject_was_put():
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 0.3, (200, 3))
    for share in (0.0, 0.25, 0.5, 1.0):
        samples = base.copy()
        samples[: int(200 * share), 1] = 0.9
        assert leaks(samples, base, np.zeros((200, 3), dtype=bool)).mean() == share


def test_going_towards_the_style_alone_is_no_leak_and_towards_a_training_subject_is():
    """Style is one axis that training pictures and references share, subjects are others."""
    unit = torch.nn.functional.normalize
    training = unit(torch.tensor([[1.0, 1, 0, 0], [1.0, 0.9, 0.1, 0]]), dim=1)
    references = unit(torch.tensor([[1.0, 0, 1, 0], [1.0, 0, 0.9, 0.1]]), dim=1)
    base = torch.tensor([[0.0, 0, 0, 1], [0.0, 0, 0, 1]])
    samples = unit(torch.tensor([[1.0, 0, 0, 1], [1.0, 1, 0, 1]]), dim=1)
    styled, leaking = picture_leak(samples, base, training, references)
    assert abs(styled) < 0.05 < 0.3 < leaking


def test_subject_directions_are_those_in_which_nouns_differ_and_hold_no_style():
    rng = torch.Generator().manual_seed(0)
    nouns = torch.cat([torch.randn(30, 3, generator=rng), torch.ones(30, 5)], 1)  # all in one style
    directions = subject_directions(nouns)
    assert directions.shape == (3, 8) and directions[:, 3:].abs().max() < 1e-6
    assert torch.allclose(directions @ directions.T, torch.eye(3), atol=1e-5)


def test_without_two_different_nouns_every_direction_is_kept():
    assert torch.equal(subject_directions(torch.ones(3, 4)), torch.eye(4))
