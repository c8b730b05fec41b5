"""What a LoRA's layers are called in each layout, and how FLUX fuses what diffusers keeps apart. No files here.

Names come in five ways, with or without a prefix: diffusers' (`transformer_blocks.0.attn.to_q`), the same with
underscores (OneTrainer), FLUX's own (`double_blocks.0.img_attn.qkv`), the same with underscores (kohya), and those that
diffusers alone can convert. The two halves of a pair are called lora_A and lora_B, lora_down and lora_up, or lora.down
and lora.up.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.base import Family

Layers = dict[str, tuple[Tensor, Tensor]]  # diffusers' layer name -> down (r, in) and up (out, r), scale baked in

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
BLOCKS = {
    Family.flux: {"double": _DOUBLE, "single": _SINGLE},
    Family.klein: {"double": _KLEIN_DOUBLE, "single": _KLEIN_SINGLE},
}
STACKS = {"double": "transformer_blocks", "single": "single_transformer_blocks"}
# Layers of klein that FLUX.1 has in another shape: the longer edge in widths of the base (7, 5, 4 and 4 in FLUX.1).
_KLEIN_EDGES = {"linear1": 9, "linear2": 4, "mlp_0": 6, "mlp_2": 3}
_OUTSIDE = ("x_embedder", "context_embedder", "norm_out.linear", "proj_out")  # of the blocks, diffusers' names
_EMBEDDERS = ("timestep_embedder", "guidance_embedder", "text_embedder")
_DOTTED = {
    name.replace(".", "_"): name
    for name in (
        *(
            part
            for tables in BLOCKS.values()
            for table in tables.values()
            for parts in table.values()
            for part in parts
        ),
        *_OUTSIDE,
        *(f"time_text_embed.{embedder}.linear_{number}" for embedder in _EMBEDDERS for number in (1, 2)),
    )
}
_PART = re.compile(
    r"(.+?)\.(?:(?:(lora_A|lora_down|lora\.down)|lora_B|lora_up|lora\.up)(?:\.default)?\.weight|(alpha))"
)
_FLUXS_OWN = re.compile(
    r"(?:base_model\.model\.|diffusion_model\.|model\.|transformer\.)*"
    r"((?:double|single)_blocks\.\d+\..+|img_in|txt_in|(?:time|vector|guidance)_in\.\w+|final_layer\..+)"
)
_UNDERSCORED = re.compile(r"(?:lora|lycoris)_(?:transformer_|unet_)?(?:((?:single_)?transformer_blocks)_(\d+)_)?(\w+)")
_MLP_RATIO = 4  # of FLUX's single blocks: linear1 has 3 + 4 times the width as rows


def known_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under kohya's names (`lora_unet_….lora_down.weight`) or diffusers' (`….lora_A.weight`), whichever their
    layers belong to; what is neither is left as it is.
    """
    return {_known_name(key): weight for key, weight in weights.items()}


def _known_name(key: str) -> str:
    found = _PART.fullmatch(key)
    if found is None:
        return key
    layer, is_down, is_alpha = found[1], found[2] is not None, found[3] is not None
    own, underscored = _FLUXS_OWN.fullmatch(layer), _UNDERSCORED.fullmatch(layer)
    if own:
        half = "alpha" if is_alpha else f"lora_{'down' if is_down else 'up'}.weight"
        return f"lora_unet_{own[1].replace('.', '_')}.{half}"
    if underscored and underscored[3] in _DOTTED:
        layer = ".".join(filter(None, (underscored[1], underscored[2], _DOTTED[underscored[3]])))
    elif layer.startswith("lora_"):
        return key  # kohya's
    return f"{layer}.alpha" if is_alpha else f"{layer}.lora_{'A' if is_down else 'B'}.weight"


def family_by_shapes(weights: Mapping[str, Tensor]) -> Family:
    """Whose layers kohya's names mean, as far as it matters: both families have the same attention in double blocks."""
    for key, down in weights.items():
        found = re.fullmatch(r"lora_unet_\w+?_(linear[12]|mlp_[02])\.lora_down\.weight", key)
        up = weights.get(key.replace("lora_down", "lora_up"))
        if found and up is not None:
            edges = sorted((up.shape[0], down.shape[1]))
            return Family.klein if edges[1] == _KLEIN_EDGES[found[1]] * edges[0] else Family.flux
    return Family.flux


def family_by_names(layers: Layers) -> Family:
    """Whose layers diffusers' names mean."""
    flux, klein = (
        {name for table in BLOCKS[family].values() for names in table.values() for name in names}
        for family in (Family.flux, Family.klein)
    )
    inside = {re.sub(r"^\w+\.\d+\.", "", name) for name in layers}
    return Family.klein if inside & (klein - flux) else Family.flux


def fuse(parts: list[tuple[Tensor, Tensor] | None], fused: str) -> tuple[Tensor, Tensor]:
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


def split(down: Tensor, up: Tensor, names: list[str]) -> Layers:
    """Undo `fuse`; a fused LoRA that is not block-diagonal gives every part the whole down."""
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
