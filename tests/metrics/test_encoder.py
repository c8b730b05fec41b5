"""The open_clip encoder: strict about its files, the same for every batch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from scenes import pictures

from metrics.encoder import Encoder
from metrics.images import ScoreError


def test_embeddings_are_unit_vectors_of_pictures_of_any_size_and_of_texts(encoder_folder):
    encoder = Encoder(str(encoder_folder))
    images = [*pictures("flat", range(2)), *pictures("hatch", range(2), (96, 48))]
    assert encoder.pictures(images).norm(dim=1) == pytest.approx(torch.ones(4))
    assert encoder.nouns(["heart", "cup"]).shape == (2, 64)
    assert encoder.nouns(["heart", "cup"]).norm(dim=1) == pytest.approx(torch.ones(2))


def test_style_is_read_as_mean_and_spread_of_the_channels_of_inner_blocks(encoder_folder):
    encoder, images = Encoder(str(encoder_folder), batch_size=2), pictures("hatch", range(3))
    embeddings, statistics = encoder.look(images)
    visual = encoder._model.visual
    with torch.inference_mode():
        pixels = (torch.stack(images) - encoder._mean) / encoder._std
        blocks = visual.forward_intermediates(pixels)["image_intermediates"]  # two, of 64 channels
        expected = [part for b in blocks for part in (b.flatten(2).mean(2), b.flatten(2).std(2))]
        embedded = encoder._model.encode_image(pixels, normalize=True)
    assert statistics == pytest.approx(torch.cat(expected, 1), abs=1e-4) and statistics.shape == (3, 256)
    assert embeddings == pytest.approx(embedded, abs=1e-5)


def test_the_batch_a_picture_is_in_does_not_matter(encoder_folder):
    images = pictures("chalk", range(5))
    one = Encoder(str(encoder_folder), batch_size=1).pictures(images)
    many = Encoder(str(encoder_folder), batch_size=5).pictures(images)
    assert torch.allclose(one, many, atol=1e-5)


def test_two_loads_give_the_same_model_and_the_id_names_its_content(encoder_folder):
    first, second = Encoder(str(encoder_folder)), Encoder(str(encoder_folder))
    images = pictures("flat", range(2))
    assert torch.equal(first.pictures(images), second.pictures(images))
    assert first.id == second.id and len(first.id.rpartition(":")[2]) == 32


def test_a_folder_without_weights_is_refused_and_never_random(encoder_folder, tmp_path: Path):
    shutil.copy(encoder_folder / "open_clip_config.json", tmp_path)
    with pytest.raises(ScoreError, match="has no weights"):
        Encoder(str(tmp_path))


def test_weights_that_do_not_fit_are_refused(encoder_folder, tmp_path: Path):
    config = (encoder_folder / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(config.replace('"layers": 2', '"layers": 3'))
    shutil.copy(encoder_folder / "open_clip_model.safetensors", tmp_path)
    with pytest.raises(ScoreError, match="cannot be loaded"):
        Encoder(str(tmp_path))


def test_a_name_that_is_no_folder_is_refused_with_the_way_out():
    with pytest.raises(ScoreError, match="ARCHITECTURE@WEIGHTS_FILE"):
        Encoder("ViT-L-14")


def test_a_built_in_architecture_takes_its_weights_from_a_file(encoder_folder):
    named = Encoder(f"tiny-clip@{encoder_folder / 'open_clip_model.safetensors'}")
    images = pictures("flat", range(2))
    # Without the folder's preprocessing OpenAI's mean and SD hold, so equal texts, not equal pictures.
    assert torch.equal(named.texts(["a heart"]), Encoder(str(encoder_folder)).texts(["a heart"]))
    assert named.pictures(images).shape == (2, 64)


def test_an_accelerator_that_is_not_there_is_an_error(encoder_folder):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ScoreError, match="device=cpu"):
        Encoder(str(encoder_folder), device="cuda")
