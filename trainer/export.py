"""LoRA files for other tools: kohya's layout with `.alpha`, and the PEFT layout with alpha = rank.

    python -m trainer.export LORA_FILE OUT_FILE --layout kohya --dtype bfloat16

Read are both of them, FLUX's own layer names (`diffusion_model.double_blocks…`), and whatever else diffusers converts
(xlabs, fal). kohya's layers are FLUX's own, which fuse what diffusers keeps apart: query, key and value of a stream,
and with the feed-forward in single blocks. Fusing stacks the downs and sets the ups on the diagonal, so the rank grows
threefold or fourfold and the product is the same. Tools other than diffusers read alpha from `.alpha` alone, so it is
always written, and in the PEFT layout baked into the weights.
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
from trainer.settings import FileDtype

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
_KLEIN_DOUBLE = {
    **{name: parts for name, parts in _DOUBLE.items() if "_attn_" in name},
    "img_mlp_0": ["ff.linear_in"],
    "img_mlp_2": ["ff.linear_out"],
    "txt_mlp_0": ["ff_context.linear_in"],
    "txt_mlp_2": ["ff_context.linear_out"],
}
_KLEIN_SINGLE = {"linear1": ["attn.to_qkv_mlp_proj"], "linear2": ["attn.to_out"]}
_BLOCKS = {
    Family.flux: {"double": _DOUBLE, "single": _SINGLE},
    Family.klein: {"double": _KLEIN_DOUBLE, "single": _KLEIN_SINGLE},
}
_STACKS = {"double": "transformer_blocks", "single": "single_transformer_blocks"}
# Layers of klein that FLUX.1 has in another shape: the longer edge in widths of the base (7, 5, 4 and 4 in FLUX.1).
_KLEIN_EDGES = {"linear1": 9, "linear2": 4, "mlp_0": 6, "mlp_2": 3}
_MLP_RATIO = 4  # of FLUX's single blocks: linear1 has 3 + 4 times the width as rows


class LoraError(ValueError):
    """A LoRA file cannot be read, written in another layout, or used with this base; the message names the file."""


Layers = dict[str, tuple[Tensor, Tensor]]  # diffusers' layer name -> down (r, in) and up (out, r), scale baked in


def to_kohya(path: str | Path, out: str | Path, dtype: FileDtype | None = None) -> Path:
    """Write a LoRA of any layout in kohya's, for ComfyUI, Forge and kohya's scripts.

    Args:
        dtype: of the file; None: as it was, or float32 where alpha could not be baked in without rounding.

    Raises:
        LoraError: a layer that kohya's layout has no name for.
    """
    layers, metadata = _read(Path(path))
    weights: dict[str, Tensor] = {}
    family = _family_by_names(layers)
    for (kind, number), block in _by_block(layers).items():
        for fused, names in _BLOCKS[family][kind].items():
            parts = [block.pop(name, None) for name in names]
            if any(part is not None for part in parts):
                down, up = _fuse(parts, fused)
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
    renamed = _kohya_names(weights)
    family = _family_by_shapes(renamed)
    if any(key.startswith("lora_unet_") for key in renamed) and _only_blocks(renamed):
        return _read_kohya(path, renamed, family), metadata
    if family == Family.klein:
        return _read_by_diffusers(path, _alphas_baked(weights), family), metadata
    weights = renamed
    if all(re.search(r"\.lora_[AB](\.default)?\.weight$|\.alpha$", key) for key in weights) and weights:
        return _read_peft(path, weights, _adapter_config(path, metadata)), metadata
    return _read_by_diffusers(path, weights), metadata


def _kohya_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """FLUX's own layer names as kohya writes them; other keys are left alone."""
    renamed = {}
    for key, weight in weights.items():
        found = re.fullmatch(
            r"(?:diffusion_model\.|model\.)*((?:double|single)_blocks\..+)\.(lora_[AB]|alpha)(.*)", key
        )
        if found:
            suffix = {"lora_A": "lora_down.weight", "lora_B": "lora_up.weight", "alpha": "alpha"}[found[2]]
            key = f"lora_unet_{found[1].replace('.', '_')}.{suffix}"
        renamed[key] = weight
    return renamed


def _family_by_shapes(weights: Mapping[str, Tensor]) -> Family:
    """Whose layers kohya's names mean, as far as it matters: both families have the same attention in double blocks."""
    for key, down in weights.items():
        found = re.fullmatch(r"lora_unet_\w+?_(linear[12]|mlp_[02])\.lora_down\.weight", key)
        up = weights.get(key.replace("lora_down", "lora_up"))
        if found and up is not None:
            edges = sorted((up.shape[0], down.shape[1]))
            return Family.klein if edges[1] == _KLEIN_EDGES[found[1]] * edges[0] else Family.flux
    return Family.flux


def _family_by_names(layers: Layers) -> Family:
    """Whose layers diffusers' names mean."""
    flux, klein = (
        {name for table in _BLOCKS[family].values() for names in table.values() for name in names}
        for family in (Family.flux, Family.klein)
    )
    inside = {re.sub(r"^\w+\.\d+\.", "", name) for name in layers}
    return Family.klein if inside & (klein - flux) else Family.flux


def _only_blocks(weights: Mapping[str, Tensor]) -> bool:
    names = {key.split(".")[0] for key in weights}
    return all(re.fullmatch(r"lora_unet_(double|single)_blocks_\d+_\w+", name) for name in names)


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
    weights = {key.replace(".default.weight", ".weight"): weight for key, weight in weights.items()}
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
        found = re.fullmatch(r"lora_unet_(double|single)_blocks_(\d+)_(\w+)", name)
        if found is None or found[3] not in _BLOCKS[family][found[1]]:
            raise LoraError(f"{path}: not a layer of Flux's blocks: {name}")
        if f"{name}.lora_up.weight" not in weights:
            raise LoraError(f"{path}: layer {name} has no lora_up.weight")
        rank = down.shape[0]
        scale = weights.get(f"{name}.alpha", torch.tensor(float(rank))).item() / rank
        parts = _split(*_baked(down, weights[f"{name}.lora_up.weight"], scale), _BLOCKS[family][found[1]][found[3]])
        layers |= {f"{_STACKS[found[1]]}.{found[2]}.{part}": pair for part, pair in parts.items()}
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
