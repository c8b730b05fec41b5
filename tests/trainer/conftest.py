"""The trainer's fixtures: the tiny base loaded once, and a folder of four small pictures with captions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny_flux import SCALE
from trainer.flux import FluxBase
from trainer.settings import BaseSettings

CAPTIONS = [
    "an engraving of a large red heart at the left, fine hatched lines",
    "an engraving of a hand on a grey background, melancholic mood",
    "a chalk drawing of a skull",
    "an engraving of a house",
]


@pytest.fixture(scope="session")
def tiny_settings(tiny_flux: Path) -> BaseSettings:
    return BaseSettings(path=str(tiny_flux), scale=SCALE, device="cpu", max_text_tokens=8)


@pytest.fixture(scope="session")
def base(tiny_settings: BaseSettings) -> FluxBase:
    from trainer import load_base

    return load_base(tiny_settings)


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four noisy pictures of differing sizes, three of them in one bucket at side 512."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number, (text, size) in enumerate(zip(CAPTIONS, [(80, 80), (90, 90), (96, 70), (72, 72)], strict=True)):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(text)
        (folder / f"{number}.tags").write_text("heart, red, engraving, left side")
    return folder


@pytest.fixture
def weights_of(base: FluxBase) -> Callable[[], dict[str, object]]:
    """A function that returns all modules and weights of the transformer by identity and content."""

    def snapshot() -> dict[str, object]:
        modules = {name: id(module) for name, module in base.transformer.named_modules()}
        weights = {f"{n}=": (p.requires_grad, p.dtype, p.sum().item()) for n, p in base.transformer.named_parameters()}
        return {**modules, **weights, "attributes": set(vars(base.transformer))}

    return snapshot
