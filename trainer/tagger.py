"""Booru tags by a WD14-type tagger: a folder with model.onnx and selected_tags.csv, run by onnxruntime.

As SmilingWolf's taggers expect: padded to a white square, BGR in [0, 255], NHWC; categories 0 general, 4 character,
9 rating. (kohya-ss/sd-scripts, finetune/tag_images_by_wd14_tagger.py, has the same constants.)
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from trainer.answers import CaptionerDown
from trainer.captioner_settings import TaggerSettings
from trainer.examples import Example
from trainer.files import write_atomic
from trainer.local_captioner import model_folder
from trainer.viewing import view

GENERAL, CHARACTER = "0", "4"
_FILES = ("model.onnx", "selected_tags.csv")


def tag_examples(examples: Sequence[Example], settings: TaggerSettings, kept: Path) -> list[Example]:
    """The examples with the tags of the tagger instead of the sidecars'.

    Args:
        kept: folder where tags are kept under a hash of picture, model and thresholds.

    Raises:
        CaptionerDown: onnxruntime or the model is missing, or is no tagger.
    """
    tagger: Tagger | None = None
    folder = _checked(settings)
    model = blake2b((folder / _FILES[1]).read_bytes(), digest_size=8).hexdigest()
    size = (folder / _FILES[0]).stat().st_size
    tagged = []
    for example in examples:
        picture = blake2b(example.path.read_bytes(), digest_size=16).hexdigest()
        parts = json.dumps([asdict(settings), model, size, picture])
        file = kept / f"{blake2b(parts.encode(), digest_size=20).hexdigest()}.json"
        if not file.is_file():
            tagger = tagger or Tagger(folder, settings)
            write_atomic(file, json.dumps(tagger(example.path), ensure_ascii=False).encode())
        tagged.append(replace(example, tags=tuple(json.loads(file.read_text(encoding="utf-8")))))
    return tagged


def _checked(settings: TaggerSettings) -> Path:
    if find_spec("onnxruntime") is None:
        raise CaptionerDown(
            "`tagger.model` needs onnxruntime, which is not installed: pip install onnxruntime, or -e '.[tagger]' here"
        )
    folder = model_folder("tagger.model", settings.model)
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise CaptionerDown(f"tagger.model={settings.model}: {folder} lacks {' and '.join(missing)}")
    return folder


class Tagger:
    """A loaded tagger."""

    def __init__(self, folder: Path, settings: TaggerSettings) -> None:
        import onnxruntime

        self._settings = settings
        with (folder / _FILES[1]).open(encoding="utf-8", newline="") as table:
            self._tags = [(row["name"], row["category"]) for row in csv.DictReader(table)]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # threads wait for each other on shared cores
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / _FILES[0]), options, providers=onnxruntime.get_available_providers()
            )
        except Exception as error:  # onnxruntime's errors share no class
            raise CaptionerDown(f"{folder / _FILES[0]} is no ONNX model: {str(error).splitlines()[0]}") from error
        self._input = self._session.get_inputs()[0]

    def __call__(self, picture: Path) -> list[str]:
        """The picture's tags, the likeliest first."""
        [[scores]] = self._session.run(None, {self._input.name: self._pixels(picture)})
        if len(scores) != len(self._tags):
            raise CaptionerDown(
                f"the tagger gives {len(scores)} scores, its selected_tags.csv has {len(self._tags)} rows"
            )
        least = {GENERAL: self._settings.threshold}
        if self._settings.characters:
            least[CHARACTER] = self._settings.character_threshold
        found = [
            (float(score), name.replace("_", " ") if len(name) > 3 else name)  # ^_^ is a face
            for score, (name, category) in zip(scores, self._tags, strict=True)
            if category in least and score >= least[category]
        ]
        return [name for _, name in sorted(found, reverse=True)]

    def _pixels(self, picture: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
        size = int(self._input.shape[1])
        square = ImageOps.pad(view(picture), (size, size), Image.Resampling.BICUBIC, color="white")
        return np.ascontiguousarray(np.asarray(square, dtype=np.float32)[None, :, :, ::-1])
