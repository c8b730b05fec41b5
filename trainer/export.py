"""LoRA files for other tools: kohya's layout with `.alpha`, and the PEFT layout with alpha = rank.

    python -m trainer.export LORA_FILE OUT_FILE --layout kohya --dtype bfloat16

Read are both of them, the other names in use (`trainer.layouts`), and whatever else diffusers converts (xlabs).
kohya's layers are FLUX's own, which fuse what diffusers keeps apart: query, key and value of a stream, and with the
feed-forward in single blocks. Fusing stacks the downs and sets the ups on the diagonal, so the rank grows threefold
or fourfold and the product is the same. Tools other than diffusers read alpha from `.alpha` alone, so it is always
written, and in the PEFT layout baked into the weights.
"""

import argparse
import json
import re
from collections.abc import Mapping
from math import frexp
from pathlib import Path
from typing import Any

import torch
from peft import LoKrConfig, LoraConfig, PeftConfig
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainer.base import Family
from trainer.cache import file_bytes, write_atomic
from trainer.layouts import BLOCKS, STACKS, Layers, family_by_names, family_by_shapes, fuse, known_names, split
from trainer.settings import FileDtype

_KOHYAS = re.compile(r"lora_unet_(double|single)_blocks_(\d+)_(\w+)")  # a layer's name, of which a key begins


class LoraError(ValueError):
    """A LoRA file cannot be read, written in another layout, or used with this base; the message names the file."""


def to_kohya(path: str | Path, out: str | Path, dtype: FileDtype | None = None) -> Path:
    """Write a LoRA of any layout in kohya's, for ComfyUI, Forge and kohya's scripts.

    Args:
        dtype: of the file; None: as it was, or float32 where alpha could not be baked in without rounding.

    Raises:
        LoraError: a layer that kohya's layout has no name for.
    """
    layers, metadata = _read(Path(path))
    weights: dict[str, Tensor] = {}
    family = family_by_names(layers)
    for (kind, number), block in _by_block(layers).items():
        for fused, names in BLOCKS[family][kind].items():
            parts = [block.pop(name, None) for name in names]
            if any(part is not None for part in parts):
                down, up = fuse(parts, fused)
                name = f"lora_unet_{kind}_blocks_{number}_{fused}"
                weights[f"{name}.lora_down.weight"] = down
                weights[f"{name}.lora_up.weight"] = up
                weights[f"{name}.alpha"] = torch.tensor(float(down.shape[0]))
        if block:
            raise LoraError(f"{path}: kohya's layout has no layer for {sorted(block)} of {kind} block {number}")
    return _write(Path(out), weights, metadata, dtype)


def read_lora(path: str | Path) -> Layers:
    """The layers of a LoRA file of any layout, with alpha / rank baked in; LoRAs of text encoders are left out.

    Raises:
        LoraError: the file is no LoRA of a Flux transformer.
    """
    return _read(Path(path))[0]


def to_peft(path: str | Path, out: str | Path, dtype: FileDtype | None = None) -> Path:
    """Write a LoRA of any layout in the PEFT layout with alpha = rank, which every tool reads alike.

    Raises:
        LoraError: a layer the layout does not know.
    """
    layers, metadata = _read(Path(path))
    weights = {}
    for name, (down, up) in layers.items():
        weights[f"transformer.{name}.lora_A.weight"] = down
        weights[f"transformer.{name}.lora_B.weight"] = up
    return _write(Path(out), weights, metadata, dtype)


def peft_adapter(path: str | Path) -> tuple[PeftConfig, dict[str, Tensor]] | None:
    """peft's settings and the weights by layer of a DoRA or LoKr that was trained here; None for a plain LoRA."""
    weights, metadata = _open(Path(path))
    config = _adapter_config(Path(path), metadata)
    if not config.get("transformer.use_dora") and config.get("transformer.peft_type") != "LOKR":
        return None
    weights = {key.removeprefix("transformer."): tensor for key, tensor in weights.items()}
    layers = sorted({re.split(r"\.lo(?:ra|kr)_", key)[0] for key in weights})
    rank = config["transformer.r"]
    if config.get("transformer.use_dora"):
        alpha = config["transformer.lora_alpha"]
        return LoraConfig(r=rank, lora_alpha=alpha, use_dora=True, target_modules=layers), weights
    return LoKrConfig(r=rank, alpha=config["transformer.alpha"], target_modules=layers), weights


def _read(path: Path) -> tuple[Layers, dict[str, str]]:
    """Layers and metadata of a file of any layout."""
    weights, metadata = _open(path)
    weights = {key: w for key, w in weights.items() if not key.startswith(("lora_te", "text_encoder"))}
    special = sorted({key.rsplit(".", 1)[-1] for key in weights} & {"dora_scale", "lora_magnitude_vector"})
    if special or any(".lokr_" in key or ".hada_" in key for key in weights):
        what = "a DoRA" if special else "a LoKr or LoHa"
        raise LoraError(f"{path} is {what}: it is no pair of matrices and has no other layout")
    if any(key.endswith(".lora_B.bias") for key in weights):
        raise LoraError(f"{path} holds biases beside its pairs, as BFL's control LoRAs do, and cannot be read")
    if not weights:
        raise LoraError(f"{path} is no LoRA of a Flux transformer")
    renamed = known_names(weights)
    family = family_by_shapes(renamed)
    if all(_KOHYAS.match(key) for key in renamed):
        return _read_kohya(path, renamed, family), metadata
    if family == Family.klein:
        return _read_by_diffusers(path, _alphas_baked(weights), family), metadata
    if all(re.search(r"\.lora_[AB]\.weight$|\.alpha$", key) for key in renamed):
        return _read_peft(path, renamed, _adapter_config(path, metadata)), metadata
    return _read_by_diffusers(
        path, renamed if all(key.startswith("lora_unet_") for key in renamed) else weights
    ), metadata


def _read_by_diffusers(path: Path, weights: dict[str, Tensor], family: Family = Family.flux) -> Layers:
    """What only diffusers' converters know; those of FLUX.1 expect its real widths."""
    from diffusers import loaders

    alphas: Mapping[str, Tensor] | None = None
    try:
        if family == Family.klein:
            converted = loaders.Flux2LoraLoaderMixin.lora_state_dict(dict(weights))
        else:
            converted, alphas = loaders.FluxLoraLoaderMixin.lora_state_dict(dict(weights), return_alphas=True)
    except Exception as error:  # the converters raise whatever an unknown key leads to
        raise LoraError(f"{path} is in no layout that can be read: {str(error).splitlines()[0][:200]}") from error
    kept = {key: w for key, w in converted.items() if re.search(r"\.lora_[AB]\.weight$", key)}
    if not kept:
        raise LoraError(f"{path} is no LoRA of a Flux transformer")
    return _read_peft(path, kept | dict(alphas or {}), {})


def _alphas_baked(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without `.alpha`, and with the prefix that diffusers' converter of FLUX.2 expects."""
    baked = {}
    for key, weight in weights.items():
        name = re.sub(r"\.lora_(up|B)(\.default)?\.weight$", "", key)
        if name != key and f"{name}.alpha" in weights:
            weight = weight.float() * (weights[f"{name}.alpha"].item() / weight.shape[1])
        if not key.endswith(".alpha"):
            baked[f"diffusion_model.{key}" if re.match(r"(double|single)_blocks\.", key) else key] = weight
    return baked


def _open(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights and metadata of a safetensors file."""
    if not path.is_file():
        raise LoraError(f"no such LoRA file: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            # safe_open is no mapping
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise LoraError(f"{path} is not a safetensors file: {error}") from error


def _read_peft(path: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> Layers:
    layers: Layers = {}
    for key, down in weights.items():
        if key.endswith(".lora_A.weight"):
            name = key.removesuffix(".lora_A.weight")
            if f"{name}.lora_B.weight" not in weights:
                raise LoraError(f"{path}: layer {name} has no lora_B.weight")
            plain = re.sub(r"^(base_model\.model\.|transformer\.|diffusion_model\.)+", "", name)
            alpha = weights[f"{name}.alpha"].item() if f"{name}.alpha" in weights else _alpha(plain, down, config)
            root = 0.5 if config.get("transformer.use_rslora") else 1.0
            layers[plain] = _baked(down, weights[f"{name}.lora_B.weight"], alpha / down.shape[0] ** root)
    if not layers or 2 * len(layers) != sum(not key.endswith(".alpha") for key in weights):
        raise LoraError(f"{path} is not a LoRA in the PEFT layout of a Flux transformer")
    return layers


def _alpha(layer: str, down: Tensor, config: Mapping[str, Any]) -> float:
    """A layer's alpha by peft's settings: its own, the file's, or its rank."""
    for pattern, alpha in (config.get("transformer.alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", layer):
            return float(alpha)
    return float(config.get("transformer.lora_alpha", down.shape[0]))


def _baked(down: Tensor, up: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The pair with its scale in `up`; a power of two is exact in any format, another is not in half precision."""
    if frexp(scale)[0] == 0.5:
        return down, up * scale
    return down.float(), up.float() * scale


def _adapter_config(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """PEFT's settings, taken out of the metadata: "transformer.r", "transformer.lora_alpha"."""
    try:
        return dict(json.loads(metadata.pop("lora_adapter_metadata", "{}")))
    except (ValueError, TypeError) as error:
        raise LoraError(f"{path}: its lora_adapter_metadata is not a JSON object: {error}") from error


def _read_kohya(path: Path, weights: Mapping[str, Tensor], family: Family) -> Layers:
    layers: Layers = {}
    for key, down in weights.items():
        if not key.endswith(".lora_down.weight"):
            continue
        name = key.removesuffix(".lora_down.weight")
        found = _KOHYAS.fullmatch(name)
        if found is None or found[3] not in BLOCKS[family][found[1]]:
            raise LoraError(f"{path}: not a layer of Flux's blocks: {name}")
        if f"{name}.lora_up.weight" not in weights:
            raise LoraError(f"{path}: layer {name} has no lora_up.weight")
        rank = down.shape[0]
        scale = weights.get(f"{name}.alpha", torch.tensor(float(rank))).item() / rank
        parts = split(*_baked(down, weights[f"{name}.lora_up.weight"], scale), BLOCKS[family][found[1]][found[3]])
        layers |= {f"{STACKS[found[1]]}.{found[2]}.{part}": pair for part, pair in parts.items()}
    return layers


def _by_block(layers: Layers) -> dict[tuple[str, int], Layers]:
    """(double or single, number) -> the block's layers by their name in it."""
    blocks: dict[tuple[str, int], Layers] = {}
    for name, pair in layers.items():
        found = re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", name)
        if found is None:
            raise LoraError(f"kohya's layout has no layer for {name}")
        blocks.setdefault(("single" if found[1] else "double", int(found[2])), {})[found[3]] = pair
    return blocks


def _write(
    path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str], dtype: FileDtype | None = None
) -> Path:
    as_asked = {
        key: w if dtype is None or key.endswith(".alpha") else w.to(getattr(torch, dtype)) for key, w in weights.items()
    }
    write_atomic(path, file_bytes(as_asked, {"format": "pt", **metadata}))
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Write a Flux LoRA in another layout.", prog="python -m trainer.export"
    )
    parser.add_argument("lora", type=Path, help="LoRA file (.safetensors) of any layout")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--layout", choices=["kohya", "peft"], default="kohya", help="kohya: for ComfyUI and Forge")
    parser.add_argument("--dtype", type=FileDtype, choices=list(FileDtype), help="number format; as it was")
    asked = parser.parse_args()
    try:
        print({"kohya": to_kohya, "peft": to_peft}[asked.layout](asked.lora, asked.out, asked.dtype))
    except (LoraError, OSError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
