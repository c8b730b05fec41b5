"""What stays loaded: the judge keeps pictures as large as it looks at, or photographs would fill the memory."""

from pathlib import Path

import torch
from PIL import Image

from sweep.warm import _pictures
from trainer.examples import read_examples
from trainer.pixels import read_picture


def test_the_judge_is_given_photographs_reduced_and_other_pictures_as_they_are(tmp_path: Path) -> None:
    Image.effect_noise((3000, 2000), 50).save(tmp_path / "photo.png")
    Image.effect_noise((1024, 1024), 50).save(tmp_path / "plate.png")
    photo, plate = _pictures(read_examples(tmp_path))
    assert photo.shape == (3, 836, 1254)
    assert torch.equal(plate, read_picture(tmp_path / "plate.png"))
    assert photo.min() >= 0 and photo.max() <= 1
