"""Starts the training of test_loop.py in a process of its own, so that the test can kill it: BASE PICTURES FOLDER."""

import sys
import time
from pathlib import Path

from tests.tiny_flux import SCALE
from tests.trainer.test_loop import MIX, SETTINGS
from trainer import load_base, read_examples, train
from trainer.settings import BaseSettings, CaptionSettings

base_path, pictures, folder = map(Path, sys.argv[1:])
for _ in train(
    base=load_base(BaseSettings(path=str(base_path), scale=SCALE, device="cpu", max_text_tokens=8)),
    examples=read_examples(pictures),
    captions=CaptionSettings(),
    mix=MIX,
    settings=SETTINGS,
    folder=folder,
    cache=folder.parent / "cache_of_the_killed",
):
    time.sleep(0.3)  # the kill comes here or in the next step
time.sleep(600)
