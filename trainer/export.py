"""LoRA files for other tools: kohya's layout with `.alpha`, and the PEFT layout with alpha = rank.

kohya's layers are FLUX's own, which fuse what diffusers keeps apart: query, key and value of a stream, and with the
feed-forward in single blocks. Fusing stacks the downs and sets the ups on the diagonal, so the rank grows threefold or
fourfold and the product is the same. Tools other than diffusers read alpha from `.alpha` alone, so it is always
written, and in the PEFT layout baked into the weights.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from trainer.cache import write_atomic

# Layers of a block: kohya's name -> diffusers' names, in the order in which FLUX fuses them.
_DOUBLE = {
    "img_attn_qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "img_attn_proj": ["attn.to_out.0"],
    "img_mlp_0": ["ff.net.0.proj"],
    "img_mlp_2": ["ff.net.2"],
    "img_mod_lin": ["norm1.linear"],
    "txt_attn_qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    "txt_attn_proj": ["attn.to_add_out"],
    "txt_mlp_0": ["ff_context.net.0.proj"],
    "txt_mlp_2": ["ff_context.net.2"],
    "txt_mod_lin": ["norm1_context.linear"],
}
_SINGLE = {
    "linear1": ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"],
    "linear2": ["proj_out"],
    "modulation_lin": ["norm.linear"],
}
_BLOCKS = {
    "double": ("transformer_blocks", _DOUBLE),
    "single": ("single_transformer_blocks", _SINGLE),
}
_MLP_RATIO = 4  # of FLUX's single blocks: linear1 has 3 + 4 times the width as rows


class LoraError(ValueError):
    """A LoRA file cannot be read, written in another layout, or used with this base; the message names the file."""


Layers = dict[str, tuple[Tensor, Tensor]]  # diffusers' layer name -> down (r, in) and up (out, r), scale baked in


def to_kohya(path: str | Path, out: str | Path) -> Path:
    """Write a PEFT-layout LoRA in kohya's layout, for ComfyUI, Forge and kohya's scripts.

    Raises:
        LoraError: a layer that kohya's layout has no name for.
    """
    layers, metadata = _read_peft(Path(path))
    weights: dict[str, Tensor] = {}
    for (kind, number), block in _by_block(layers).items():
        for fused, names in _BLOCKS[kind][1].items():
            parts = [block.pop(name, None) for name in names]
            if any(part is not None for part in parts):
                down, up = _fuse(parts, fused)
                name = f"lora_unet_{kind}_blocks_{number}_{fused}"
                weights[f"{name}.lora_down.weight"] = down
                weights[f"{name}.lora_up.weight"] = up
                weights[f"{name}.alpha"] = torch.tensor(float(down.shape[0]))
        if block:
            raise LoraError(f"{path}: kohya's layout has no layer for {sorted(block)} of {kind} block {number}")
    return _write(Path(out), weights, metadata)


def read_lora(path: str | Path) -> Layers:
    """The layers of a LoRA file of either layout, with alpha / rank baked in.

    Raises:
        LoraError: the file is no LoRA of a Flux transformer in one of the two layouts.
    """
    return (_read_kohya if _is_kohya(Path(path)) else _read_peft)(Path(path))[0]


def to_peft(path: str | Path, out: str | Path) -> Path:
    """Write a LoRA of either layout in the PEFT layout with alpha = rank, which every tool reads alike.

    Raises:
        LoraError: a layer the layout does not know.
    """
    layers, metadata = _read_kohya(Path(path)) if _is_kohya(Path(path)) else _read_peft(Path(path))
    weights = {}
    for name, (down, up) in layers.items():
        weights[f"transformer.{name}.lora_A.weight"] = down
        weights[f"transformer.{name}.lora_B.weight"] = up
    return _write(Path(out), weights, metadata)


def _is_kohya(path: Path) -> bool:
    return any(key.startswith("lora_unet_") for key in _open(path)[0])


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


def _read_peft(path: Path) -> tuple[Layers, dict[str, str]]:
    weights, metadata = _open(path)
    config = _adapter_config(path, metadata)
    layers: Layers = {}
    for key, down in weights.items():
        if key.endswith(".lora_A.weight"):
            name = key.removesuffix(".lora_A.weight")
            if f"{name}.lora_B.weight" not in weights:
                raise LoraError(f"{path}: layer {name} has no lora_B.weight")
            scale = config.get("transformer.lora_alpha", down.shape[0]) / config.get("transformer.r", down.shape[0])
            layers[name.removeprefix("transformer.")] = down, weights[f"{name}.lora_B.weight"] * scale
    if 2 * len(layers) != len(weights):
        raise LoraError(f"{path} is not a LoRA in the PEFT layout of a Flux transformer")
    return layers, metadata


def _adapter_config(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """PEFT's settings, taken out of the metadata: "transformer.r", "transformer.lora_alpha"."""
    try:
        config = dict(json.loads(metadata.pop("lora_adapter_metadata", "{}")))
    except (ValueError, TypeError) as error:
        raise LoraError(f"{path}: its lora_adapter_metadata is not a JSON object: {error}") from error
    patterns = [key for key in ("rank_pattern", "alpha_pattern") if config.get(f"transformer.{key}")]
    if patterns:
        raise LoraError(
            f"{path}: {' and '.join(patterns)} give layers their own rank or alpha, which is not read here;"
            " save the LoRA with one rank and one alpha for all layers"
        )
    return config


def _read_kohya(path: Path) -> tuple[Layers, dict[str, str]]:
    weights, metadata = _open(path)
    layers: Layers = {}
    for key, down in weights.items():
        if not key.endswith(".lora_down.weight"):
            continue
        name = key.removesuffix(".lora_down.weight")
        found = re.fullmatch(r"lora_unet_(double|single)_blocks_(\d+)_(\w+)", name)
        if found is None or found[3] not in _BLOCKS[found[1]][1]:
            raise LoraError(f"{path}: not a layer of Flux's blocks: {name}")
        if f"{name}.lora_up.weight" not in weights:
            raise LoraError(f"{path}: layer {name} has no lora_up.weight")
        stack, table = _BLOCKS[found[1]]
        rank = down.shape[0]
        scale = weights.get(f"{name}.alpha", torch.tensor(float(rank))).item() / rank
        parts = _split(down, weights[f"{name}.lora_up.weight"] * scale, table[found[3]])
        layers |= {f"{stack}.{found[2]}.{part}": pair for part, pair in parts.items()}
    return layers, metadata


def _by_block(layers: Layers) -> dict[tuple[str, int], Layers]:
    """(double or single, number) -> the block's layers by their name in it."""
    blocks: dict[tuple[str, int], Layers] = {}
    for name, pair in layers.items():
        found = re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.(.+)", name)
        if found is None:
            raise LoraError(f"kohya's layout has no layer for {name}")
        blocks.setdefault(("single" if found[1] else "double", int(found[2])), {})[found[3]] = pair
    return blocks


def _fuse(parts: list[tuple[Tensor, Tensor] | None], fused: str) -> tuple[Tensor, Tensor]:
    """Stack the downs, set the ups on the diagonal; a part without LoRA gets zeros."""
    known = [part for part in parts if part is not None]
    down, up = known[0]
    width = down.shape[1] if fused == "linear1" else up.shape[0]  # linear1 maps the width to 3 + 4 times it
    rows = [width * (_MLP_RATIO if number == 3 else 1) for number in range(len(parts))] if len(parts) > 1 else [len(up)]
    filled = [
        part if part is not None else (torch.zeros_like(down), up.new_zeros(count, up.shape[1]))
        for part, count in zip(parts, rows, strict=True)
    ]
    return torch.cat([part[0] for part in filled]).contiguous(), torch.block_diag(*[part[1] for part in filled])


def _split(down: Tensor, up: Tensor, names: list[str]) -> Layers:
    """Undo `_fuse`; a fused LoRA that is not block-diagonal gives every part the whole down."""
    if len(names) == 1:
        return {names[0]: (down, up)}
    unit = up.shape[0] // (3 + _MLP_RATIO if len(names) == 4 else len(names))
    rows = [unit * (_MLP_RATIO if number == 3 else 1) for number in range(len(names))]
    ups = dict(zip(names, up.split(rows), strict=True))
    rank = down.shape[0] // len(names)
    diagonal = torch.block_diag(*[torch.ones(count, rank) for count in rows]).bool()
    if down.shape[0] % len(names) or (up * ~diagonal).any():
        return {name: (down.clone(), part.contiguous()) for name, part in ups.items()}  # files share no memory
    slots = {name: slice(rank * number, rank * (number + 1)) for number, name in enumerate(names)}
    pairs = {name: (down[slots[name]].contiguous(), part[:, slots[name]].contiguous()) for name, part in ups.items()}
    return {name: pair for name, pair in pairs.items() if pair[0].any() or pair[1].any()}


def _write(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    write_atomic(path, save(dict(weights), metadata={"format": "pt", **metadata}))
    return path
