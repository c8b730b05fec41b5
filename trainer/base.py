"""Finding the base on disk, before anything heavy is imported.

A base is a diffusers folder of FLUX.1 or FLUX.2 klein, a hub id (`black-forest-labs/FLUX.1-dev`) whose weights are
already on this machine, or a transformer's .safetensors with such a folder for the rest; nothing is downloaded behind
anyone's back. Its identity is a hash of what is in the files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatch
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.settings import BaseSettings

if TYPE_CHECKING:
    from trainer.flux import FluxBase


class Family(StrEnum):
    """Bases that are trained by the same loop; each has its own adapter."""

    flux = "flux"  # FLUX.1: dev, schnell, Krea-dev
    klein = "klein"  # FLUX.2 klein


# component -> its class in model_index.json
COMPONENTS = {
    Family.flux: {
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "T5Tokenizer",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    },
    Family.klein: {
        "transformer": "Flux2Transformer2DModel",
        "vae": "AutoencoderKLFlux2",
        "text_encoder": "Qwen3ForCausalLM",
        "tokenizer": "Qwen2Tokenizer",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    },
}
_WITH_WEIGHTS = ("transformer", "vae", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class _OnTheHub:
    """What a person has to know before fetching a base."""

    gigabytes: int  # of the diffusers folder
    without: int  # GB of it without the transformer
    licence: str
    gated: bool  # whether the licence has to be accepted on the model's page
    single_file: str  # pattern of the same weights in another layout, which need not be fetched


_DEV = "FLUX.1 [dev] Non-Commercial"
HUB = {
    "black-forest-labs/FLUX.1-dev": _OnTheHub(34, 10, _DEV, True, "flux1-*.safetensors"),
    "black-forest-labs/FLUX.1-Krea-dev": _OnTheHub(34, 10, _DEV, True, "flux1-*.safetensors"),
    "black-forest-labs/FLUX.1-schnell": _OnTheHub(34, 10, "Apache-2.0", True, "flux1-*.safetensors"),
    "black-forest-labs/FLUX.2-klein-base-4B": _OnTheHub(16, 8, "Apache-2.0", False, "flux-2-*.safetensors"),
    "black-forest-labs/FLUX.2-klein-base-9B": _OnTheHub(35, 17, "FLUX Non-Commercial", True, "flux-2-*.safetensors"),
}
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
    folder = find_base(settings)
    from trainer.opening import open_base  # here, since it imports torch and diffusers

    return open_base(folder, settings)


def find_base(base: str | BaseSettings) -> Path:
    """The complete diffusers folder that `base.path` means; with a single file, the one that `base.parts` means.

    Raises:
        BaseError: as `load_base`.
    """
    if isinstance(base, str):
        return _find_folder(base, "base.path", without=())
    file = single_file(base)
    if file is None:
        return _find_folder(base.path, "base.path", without=())
    faults = [] if file.is_file() else [_no_such_file(base, file)]
    try:
        folder = _find_folder(base.parts, "base.parts", without=("transformer",))
    except BaseError as fault:
        faults.append(str(fault))
    if faults:
        raise BaseError("\n".join(faults))
    return folder


def _no_such_file(base: BaseSettings, file: Path) -> str:
    said = f"`base.path`={base.path}: no such file. Set it to the transformer's .safetensors, which ComfyUI keeps in"
    said += " models/diffusion_models or models/unet"
    if base.parts in HUB and fnmatch(file.name, HUB[base.parts].single_file):
        said += f". Or fetch it:\n    hf download {base.parts} {file.name} --local-dir {file.parent}"
    return said


def single_file(base: BaseSettings) -> Path | None:
    """The file with the transformer's weights, where the base is one."""
    return Path(base.path).expanduser() if base.path.endswith(".safetensors") else None


def family_of(folder: Path) -> Family:
    """Which adapter a complete folder needs."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    found = (index.get("transformer") or [None, None])[1]
    return next((family for family, parts in COMPONENTS.items() if parts["transformer"] == found), Family.flux)


def _find_folder(path: str, key: str, without: tuple[str, ...]) -> Path:
    folder = Path(path).expanduser()
    if folder.is_file():
        raise BaseError(_way_out(str(folder.absolute()), key, "a file, but none that ends in .safetensors"))
    if not folder.is_dir():
        folder = _snapshot(path, key)
    _check_folder(folder, path, key, without)
    return folder


def _snapshot(path: str, key: str) -> Path:
    """The folder in the hub's local cache that holds a hub id."""
    if path.count("/") != 1 or path.startswith((".", "/", "~")) or path.endswith("/"):
        raise BaseError(_way_out(path, key, "no such folder"))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError) as error:
        raise BaseError(_way_out(path, key, "neither a folder nor weights on this machine")) from error


def _check_folder(folder: Path, path: str, key: str, without: tuple[str, ...]) -> None:
    index = folder / "model_index.json"
    if not index.is_file():
        raise BaseError(_way_out(path, key, f"not a diffusers folder, it has no model_index.json ({folder})"))
    try:
        classes = json.loads(index.read_text(encoding="utf-8"))
        parts = COMPONENTS[family_of(folder)]
    except ValueError as error:
        raise BaseError(f"`{key}`: {index} is not JSON: {error}") from error
    for name, wanted in parts.items():
        found = (classes.get(name) or [None, None])[1]
        if found is None or found.removesuffix("Fast") != wanted:
            raise BaseError(f"`{key}`: {path} is not a Flux base: its {name} is {found}, not {wanted}")
    missing = [name for name in parts if not (folder / name).is_dir()]
    weighty = [name for name in _WITH_WEIGHTS if name in parts and name not in (*missing, *without)]
    missing += [name for name in weighty if not _weights_complete(folder / name)]
    if missing:
        raise BaseError(_way_out(path, key, f"incomplete in {folder}, no weights or files for {', '.join(missing)}"))


def _weights_complete(component: Path) -> bool:
    """Whether all weight files are there; the index of a sharded model names them."""
    indices = list(component.glob("*.safetensors.index.json"))
    if indices:
        shards = set(json.loads(indices[0].read_text(encoding="utf-8"))["weight_map"].values())
        return all((component / shard).is_file() for shard in shards)
    return any(file.is_file() for file in component.glob("*.safetensors"))


def _way_out(path: str, key: str, what: str) -> str:
    lines = [f"`{key}`={path}: {what}."]
    if path.count("/") != 1 or path.startswith((".", "/", "~")):
        lines.append(f"Set {key} to a folder written by FluxPipeline.save_pretrained, or to a hub id.")
        return "\n".join(lines)
    known, parts = HUB.get(path), key == "base.parts"
    accept = f" accept its licence at https://huggingface.co/{path}, then" if known is None or known.gated else ""
    unneeded = [known.single_file] if known else []
    unneeded += ["transformer/*.safetensors"] if parts else []  # it is there as a file of its own
    skip = "".join(f" --exclude '{pattern}'" for pattern in unneeded)
    size = f" (about {known.without if parts else known.gigabytes} GB; licence {known.licence})" if known else ""
    from huggingface_hub import constants, get_token

    lines += [
        f"To fetch the weights{size}:{accept}",
        *(["    hf auth login    # or set HF_TOKEN"] if accept and not get_token() else []),
        f"    hf download {path}{skip}",
        f"They go to {constants.HF_HUB_CACHE} (HF_HOME or HF_HUB_CACHE move it) and are found there; or set {key} to a"
        " diffusers folder.",
    ]
    return "\n".join(lines)


def base_ids(base: BaseSettings) -> dict[str, str]:
    """Component -> hash of its files, configurations and weights."""
    ids = component_ids(find_base(base))
    file = single_file(base)
    return ids if file is None else {**ids, "transformer": f"{ids['transformer']}{_file_id(file)}"}


def component_ids(folder: Path) -> dict[str, str]:
    """Component -> hash of its files, of a whole folder."""
    return {name: _folder_id(folder / name) for name in COMPONENTS[family_of(folder)]}


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
