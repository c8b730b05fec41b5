"""What is in the files a study reads: equal settings with other pictures or weights behind them are another study."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from metrics.settings import ScoreSettings
from sweep.examples import sheet_file, sheet_rows
from sweep.schema import Config
from trainer.base import base_ids
from trainer.files import file_id


def content_id(place: str | Path) -> str:
    """A hash of a file, or of a folder's files and their names; hidden ones and folders in it do not count."""
    place = Path(place).expanduser()
    if place.is_file():
        return file_id(place)
    files = [file for file in sorted(place.iterdir()) if file.is_file() and not file.name.startswith(".")]
    names = "\x1f".join(f"{file.name}\x1f{content_id(file)}" for file in files)
    return blake2b(names.encode(), digest_size=16).hexdigest()


def judge_files(score: ScoreSettings) -> dict[str, str]:
    """Setting -> the file or folder behind it, for what the judges are loaded from."""
    return {f"score.{key}": place for key, place in score.weights().items()}


def contents(configs: Mapping[str, Config]) -> dict[str, str]:
    """What all configurations of a study read -> hash of what is in it.

    Args:
        configs: what was chosen -> the configuration it gives, already checked: every file is there.
    """
    found: dict[str, str] = {}
    for config in configs.values():
        base = config.base.path
        if f"base.path {base}: transformer" not in found:
            found |= {f"base.path {base}: {part}": hashed for part, hashed in base_ids(config.base).items()}
        places = {"data.path": config.data.path, "data.references": config.data.references}
        places |= {"eval.others": config.eval.others, "eval.lora": config.eval.lora, **judge_files(config.score)}
        for key, place in places.items():
            name = f"content of {key} {place}"
            if place and name not in found:
                found[name] = content_id(place)
        found |= sheet_content(config)
    return found


def sheet_content(config: Config) -> dict[str, str]:
    """A hash of what a person wrote into the caption sheet; nothing while nothing is written."""
    rows = sorted((*row.key, row.text) for row in sheet_rows(config))
    if not rows:
        return {}
    digest = blake2b(json.dumps(rows).encode(), digest_size=16).hexdigest()
    return {f"content of captions.sheet {sheet_file(config)}": digest}
