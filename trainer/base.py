"""Finding the base on disk, before anything heavy is imported.

A base is a diffusers Flux folder, or a hub id (`black-forest-labs/FLUX.1-dev`) whose weights are already on this
machine; nothing is downloaded behind anyone's back. Its identity is a hash of what is in the files.
"""

from __future__ import annotations

import json
import os
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.settings import BaseSettings

if TYPE_CHECKING:
    from trainer.flux import FluxBase

# component -> its class in model_index.json
COMPONENTS = {
    "transformer": "FluxTransformer2DModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "T5EncoderModel",
    "tokenizer": "CLIPTokenizer",
    "tokenizer_2": "T5Tokenizer",
    "scheduler": "FlowMatchEulerDiscreteScheduler",
}
_WITH_WEIGHTS = ("transformer", "vae", "text_encoder", "text_encoder_2")
_WHOLE = 256 * 2**20  # bytes; larger files are hashed by samples
_SAMPLES = 64


class BaseError(ValueError):
    """The base cannot be used; the message says what is missing and the way out."""


def load_base(settings: BaseSettings) -> FluxBase:
    """Load the base onto its device.

    Raises:
        BaseError: no such folder, parts missing, not a Flux, or weights of a hub id that are not on this machine; all
            found before torch is imported. Or a device this machine lacks.
    """
    folder = find_base(settings.path)
    from trainer.flux import open_flux  # here, since it imports torch and diffusers

    return open_flux(folder, settings)


def find_base(path: str) -> Path:
    """The complete diffusers folder that `base.path` means."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        folder = _snapshot(path)
    _check_folder(folder, path)
    return folder


def _snapshot(path: str) -> Path:
    """The folder in the hub's local cache that holds a hub id."""
    if path.count("/") != 1 or path.startswith((".", "/", "~")) or path.endswith("/"):
        raise BaseError(_way_out(path, "no such folder"))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        raise BaseError(_way_out(path, "neither a folder nor weights on this machine")) from error


def _check_folder(folder: Path, path: str) -> None:
    index = folder / "model_index.json"
    if not index.is_file():
        raise BaseError(_way_out(path, f"not a diffusers folder, it has no model_index.json ({folder})"))
    try:
        classes = json.loads(index.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BaseError(f"`base.path`: {index} is not JSON: {error}") from error
    for name, wanted in COMPONENTS.items():
        found = (classes.get(name) or [None, None])[1]
        if found is None or found.removesuffix("Fast") != wanted:
            raise BaseError(f"`base.path`: {path} is not a Flux base: its {name} is {found}, not {wanted}")
    missing = [name for name in COMPONENTS if not (folder / name).is_dir()]
    missing += [name for name in _WITH_WEIGHTS if name not in missing and not _weights_complete(folder / name)]
    if missing:
        raise BaseError(_way_out(path, f"incomplete in {folder}, no weights or files for {', '.join(missing)}"))


def _weights_complete(component: Path) -> bool:
    """Whether all weight files are there; the index of a sharded model names them."""
    indices = list(component.glob("*.safetensors.index.json"))
    if indices:
        shards = set(json.loads(indices[0].read_text(encoding="utf-8"))["weight_map"].values())
        return all((component / shard).is_file() for shard in shards)
    return any(file.is_file() for file in component.glob("*.safetensors"))


def _way_out(path: str, what: str) -> str:
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    lines = [f"`base.path`={path}: {what}."]
    if path.count("/") == 1 and not path.startswith((".", "/", "~")):
        licence = f" accept its licence at https://huggingface.co/{path}," if "FLUX.1-dev" in path else ""
        size = " (about 34 GB)" if "FLUX.1-dev" in path else ""
        lines += [
            f"To fetch the weights{size}:{licence} then `hf auth login` and `hf download {path}`.",
            f"They go to HF_HOME, now {home}; or set base.path to a diffusers folder.",
        ]
    else:
        lines.append("Set base.path to a folder written by FluxPipeline.save_pretrained, or to a hub id.")
    return "\n".join(lines)


def component_ids(folder: Path) -> dict[str, str]:
    """Component -> hash of its files, configurations and weights."""
    return {name: _folder_id(folder / name) for name in COMPONENTS}


def _folder_id(folder: Path) -> str:
    digest = blake2b(digest_size=16)
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in (".json", ".safetensors", ".model", ".txt"):
            digest.update(f"{file.name}\x1f{_file_id(file)}\x1f".encode())
    return digest.hexdigest()


def _file_id(file: Path) -> str:
    """Hash of a file: whole when small, of 64 spread MiB when large, which reads 34 GB in a second."""
    size = file.stat().st_size
    if size <= _WHOLE:
        return blake2b(file.read_bytes(), digest_size=16).hexdigest()
    digest = blake2b(str(size).encode(), digest_size=16)
    with file.open("rb") as data:
        for sample in range(_SAMPLES):
            data.seek((size - 2**20) * sample // (_SAMPLES - 1))
            digest.update(data.read(2**20))
    return digest.hexdigest()


def step_px(folder: Path) -> int:
    """px of the base that a token covers, read from the VAE's configuration: bucket edges are multiples of it."""
    vae = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
    return int(2 ** (len(vae["block_out_channels"]) - 1) * 2)
