"""What cannot be scored is refused with the way out, and known by its content, not by its name."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import pictures
from torch import Tensor

from metrics import Judge, ScoreError
from metrics.images import resized, same_pictures
from metrics.leakage import asked_among


def saved_as_jpeg(picture: Tensor) -> Tensor:
    file = io.BytesIO()
    Image.fromarray((picture.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(file, "JPEG", quality=75)
    return torch.from_numpy(np.asarray(Image.open(file), dtype=np.float32) / 255).permute(2, 0, 1)


COPIES = {
    "the same": lambda p: p,
    "saved again": saved_as_jpeg,
    "mirrored": lambda p: p.flip(-1),
    "at half the size": lambda p: resized([p], 32, 32)[0],
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("style", ["flat", "hatch", "chalk"])
def test_a_picture_is_known_again_by_its_content(style, copy):
    training = pictures(style, range(900, 930))
    assert same_pictures([COPIES[copy](training[3])], training) == [(0, 3)]


@pytest.mark.parametrize("style", ["flat", "hatch", "chalk", "outline"])
def test_other_pictures_of_a_style_are_not_the_same(style):
    assert same_pictures(pictures(style, range(40)), pictures(style, range(900, 940))) == []


def test_references_that_were_trained_on_are_refused_and_listed(settings):
    references = pictures("hatch", range(500, 508))
    training = [*pictures("hatch", range(3)), saved_as_jpeg(references[0]), references[5].flip(-1)]
    with pytest.raises(
        ScoreError, match=r"never be trained on.*2 show.*\s.*\[0\] = training\[3\]\s+references\[5\] = tra"
    ):
        Judge(settings, references, training=training)


def test_too_few_references_are_refused_with_the_number_needed(settings):
    with pytest.raises(ScoreError, match=r"at least 4 references.*got 3"):
        Judge(settings, pictures("hatch", range(3)))
    with pytest.raises(ScoreError, match=r"pool of other styles needs at least 4.*got 2"):
        Judge(settings, pictures("hatch", range(8)), others=pictures("flat", range(2)))


def test_prompts_that_ask_for_training_subjects_are_listed():
    texts = ["a red house", "a girl with a heart", "two Skulls", "a sweetheart"]
    assert asked_among(texts, ["heart", "skull"]) == {"a girl with a heart": ["heart"], "two Skulls": ["skull"]}
