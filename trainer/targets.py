"""Which linear layers of a base get a LoRA: a preset by name, narrowed by patterns.

The names are diffusers'. No torch here: a pattern that matches nothing is refused before a base is loaded, and a plan
knows the size of the file.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from trainer.base import Family
from trainer.settings import LoraSettings, Targets

# Layers of a block -> their rows and columns in widths of the base; by the smallest preset that takes them.
_Block = Mapping[Targets, Mapping[str, int]]
_STREAM = {f"attn.{name}": 2 for name in ("to_q", "to_k", "to_v")}
_BOTH = {f"attn.{name}": 2 for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")}
_DOUBLE: dict[Family, _Block] = {
    Family.flux: {
        Targets.attention: {**_STREAM, "attn.to_out.0": 2},
        Targets.diffusers: {
            **_BOTH,
            **{f"{ff}.{name}": 5 for ff in ("ff", "ff_context") for name in ("net.0.proj", "net.2")},
        },
    },
    Family.klein: {  # its feed-forward is gated and 3 wide
        Targets.attention: {**_STREAM, "attn.to_out.0": 2},
        Targets.diffusers: {
            **_BOTH,
            **{f"{ff}.linear_in": 7 for ff in ("ff", "ff_context")},
            **{f"{ff}.linear_out": 4 for ff in ("ff", "ff_context")},
        },
    },
}
_SINGLE: dict[Family, _Block] = {
    Family.flux: {Targets.attention: _STREAM, Targets.all_linear: {"proj_mlp": 5, "proj_out": 6}},
    Family.klein: {Targets.attention: {"attn.to_qkv_mlp_proj": 10, "attn.to_out": 5}},
}


class TargetsError(ValueError):
    """The patterns of `train.lora.layers` match no layer."""


def layer_widths(family: Family, double: int, single: int, lora: LoraSettings) -> dict[str, int]:
    """The layers that get a LoRA, sorted by name, with their rows and columns in widths of the base.

    Args:
        double: blocks with a stream for text and one for the picture.
        single: blocks with one stream.

    Raises:
        TargetsError: a pattern that matches none of the preset's layers.
    """
    preset = {
        f"{stack}.{number}.{name}": widths
        for stack, blocks, layers in (
            ("transformer_blocks", double, _DOUBLE[family]),
            ("single_transformer_blocks", single, _SINGLE[family]),
        )
        for number in range(blocks)
        for level, named in layers.items()
        if list(Targets).index(level) <= list(Targets).index(lora.targets)
        for name, widths in named.items()
    }
    if not lora.layers:
        return dict(sorted(preset.items()))
    for pattern in lora.layers:
        if not any(fnmatchcase(name, pattern) for name in preset):
            kinds = dict.fromkeys(name.replace(".0.", ".*.", 1) for name in preset if ".0." in name)
            raise TargetsError(
                f"`train.lora.layers`: {pattern} matches none of the {len(preset)} layers of"
                f" train.lora.targets={lora.targets}, which are {', '.join(kinds)} (a * stands for anything)"
            )
    return {
        name: widths
        for name, widths in sorted(preset.items())
        if any(fnmatchcase(name, pattern) for pattern in lora.layers)
    }
