"""The picture world: pure, complete, and telling the truth about its pictures."""

import numpy as np
import pytest

from sandbox import words
from sandbox.judge import Judge, agreement
from sandbox.media import BASE_MEDIA, MEDIA, STYLES
from sandbox.subjects import ANATOMY, labels
from sandbox.world import SUBJECTS, Scene, draw, random_scene, silhouette

SCENE = Scene("cat", "blue", "left", "large", "white", "flat")


def test_the_world_has_the_subjects_the_article_needs() -> None:
    assert len(SUBJECTS) >= 24
    assert {"girl", "flowers", "house", "cat", "dog", *ANATOMY} <= set(SUBJECTS)
    assert set(ANATOMY) == {"heart", "hand", "skull", "eye", "bones", "ribs"}


@pytest.mark.parametrize("medium", MEDIA)
def test_a_scene_is_drawn_the_same_twice(medium: str) -> None:
    scene = random_scene(np.random.default_rng(1), medium=medium)
    assert np.array_equal(draw(scene, 48, 64), draw(scene, 48, 64))


def test_no_two_subjects_look_alike() -> None:
    drawn = np.stack([labels(s).ravel() > 0 for s in SUBJECTS]).astype(float)
    overlap = drawn @ drawn.T
    union = drawn.sum(1)[:, None] + drawn.sum(1) - overlap
    likeness = overlap / union - np.eye(len(SUBJECTS))
    assert likeness.max() < 0.85  # heart and skull; their inner details tell them apart


def test_the_medium_changes_the_picture_and_not_the_layout() -> None:
    scenes = [Scene("cat", "blue", "left", "large", "white", m) for m in MEDIA]
    assert all(np.array_equal(silhouette(s, 64, 64), silhouette(SCENE, 64, 64)) for s in scenes)
    drawn = [draw(s, 64, 64).astype(float) for s in scenes]
    distance = min(np.abs(a - b).mean() for i, a in enumerate(drawn) for b in drawn[:i])
    assert distance > 3  # of 255


def test_styles_to_be_learned_are_not_among_the_bases_media() -> None:
    assert not set(STYLES) & set(BASE_MEDIA)
    rng = np.random.default_rng(0)
    assert {random_scene(rng).medium for _ in range(200)} == set(BASE_MEDIA)


def test_a_caption_says_what_is_in_the_picture_and_only_what_was_asked() -> None:
    assert words.caption(SCENE, frozenset()) == "a cat"
    assert words.caption(SCENE, frozenset({"size", "colour", "place", "background"})) == (
        "a large blue cat at the left on a white background"
    )
    full = words.caption(SCENE)
    assert full.startswith("a flat drawing of a large blue cat") and full.endswith("calm mood")
    assert "cat" in words.tags(SCENE) and "left side" in words.tags(SCENE)


def test_the_judge_reads_fresh_pictures_of_every_medium() -> None:
    subjects, rng = ("girl", "house", "skull"), np.random.default_rng(3)
    asked = [random_scene(rng, medium=m, subject=s) for m in ("flat", "engraving") for s in subjects for _ in range(3)]
    judge = Judge(64, 64, media=("flat", "engraving"), subjects=subjects)
    found = agreement(judge([draw(s, 64, 64) for s in asked]), asked)
    assert found["subject"] == found["place"] == found["medium"] == 1.0


def test_the_judge_is_not_fooled_by_noise_into_agreement() -> None:
    subjects, rng = ("girl", "house", "skull", "cat"), np.random.default_rng(4)
    asked = [random_scene(rng, medium="flat", subject=subjects[i % 4]) for i in range(40)]
    noise = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in asked]
    judge = Judge(64, 64, media=("flat",), subjects=subjects)
    assert agreement(judge(noise), asked)["subject"] < 0.6
