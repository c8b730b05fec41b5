"""The recipe of a trial as any trainer needs it, in FLUX's pixels; and its LoRA's layers in the words of each."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.outcome import Outcome
from trainer.base import BaseError, Family, family_of, find_base, step_px
from trainer.settings import LoraSettings, Targets
from trainer.targets import TargetsError, layer_widths

FLUX_STEP = 16  # px of FLUX.1 per token edge
KOHYA_TIMESTEPS = ("sigmoid", "shift", "flux_shift", "uniform")  # of the same name there
OPTIMIZERS = {  # ours -> kohya's, ai-toolkit's, SimpleTuner's
    "adamw": ("AdamW", "adamw", "adamw_bf16"),
    "adamw8bit": ("AdamW8bit", "adamw8bit", "bnb-adamw8bit"),
    "prodigy": ("Prodigy", "prodigy", "prodigy"),
}
FOUND_BEST = "the recipe that stylesweep found best"
CARRIED = {  # what the files below can say of a setting; anything else is noted in them
    "mix.random_side": (False,),
    "train.ema": (0, 0.0),
    "train.loss": ("mse",),
    "train.lora.kind": ("lora",),
    "train.lora.rank_dropout": (0, 0.0),
    "train.timesteps": KOHYA_TIMESTEPS,
    "train.optimizer.name": tuple(OPTIMIZERS),
}


@dataclass(frozen=True)
class Recipe:
    """What any trainer needs, in FLUX's pixels."""

    name: str
    sides: list[tuple[int, int, int]]  # side, repeats, batch size
    steps: int  # optimiser steps until the chosen checkpoint
    step_px: int  # of the buckets
    config: Mapping[str, Any]
    standing: str  # what the study says of it

    @property
    def sandbox(self) -> bool:
        """Whether it was found on the sandbox's base."""
        return bool(self.config["base"].get("scale", 1) != 1)

    @property
    def train(self) -> Mapping[str, Any]:
        """LoRA, optimiser, timesteps, seed."""
        return dict(self.config["train"])

    @property
    def rank(self) -> int:
        """Of the LoRA."""
        return int(self.train["lora"]["rank"])

    @property
    def alpha(self) -> float:
        """Of the LoRA; equal to the rank unless set."""
        alpha = self.train["lora"].get("alpha")
        return float(self.rank if alpha is None else alpha)

    @property
    def targets(self) -> Targets:
        """Which layers the LoRA has."""
        return Targets(self.train["lora"].get("targets", Targets.all_linear))

    @property
    def layers(self) -> Sequence[str]:
        """Patterns that narrow them; none: all."""
        return list(self.train["lora"].get("layers", ()))

    @property
    def optimizer(self) -> tuple[str, str, str]:
        """Its name in kohya, ai-toolkit and SimpleTuner; AdamW for one that they do not all have."""
        return OPTIMIZERS.get(self.train["optimizer"].get("name", "adamw"), OPTIMIZERS["adamw"])

    @property
    def left_out(self) -> list[str]:
        """Settings that no other tool's files say."""
        found = []
        for key, carried in CARRIED.items():
            value: Any = self.config
            for part in key.split("."):
                value = value.get(part, carried[0])
            if value not in carried:
                found.append(f"{key}={value}")
        return found

    @property
    def accumulation(self) -> int:
        """Batches per optimiser step."""
        return int(self.config["mix"].get("gradient_accumulation", 1))


def family_here(config: Mapping[str, Any]) -> Family:
    """The family of the recipe's base; FLUX.1 where it is not on this machine to tell."""
    try:
        return family_of(find_base(config["base"]["path"]))
    except (BaseError, OSError, ValueError, KeyError):
        return Family.flux


def recipe_of(outcome: Outcome, name: str, standing: str = FOUND_BEST) -> Recipe:
    """The recipe of an outcome's chosen checkpoint."""
    config = outcome.config
    mix = config["mix"]
    sizes = {int(side): size for side, size in mix.get("batch_sizes", {}).items()}
    sides = [
        (int(side), int(repeats), int(sizes.get(int(side), mix["batch_size"])))
        for side, repeats in sorted(mix["repeats"].items(), key=lambda item: int(item[0]))
        if repeats
    ]
    return Recipe(name, sides, outcome.best.step, _bucket_step(config), config, standing)


def _bucket_step(config: Mapping[str, Any]) -> int:
    """The mix's step or the base's, in FLUX's pixels."""
    if config["mix"].get("bucket_step"):
        return int(config["mix"]["bucket_step"])
    try:
        return round(step_px(find_base(config["base"]["path"])) / config["base"].get("scale", 1))
    except (BaseError, OSError, ValueError, KeyError):
        return FLUX_STEP


MODULATION = ("img_mod_dim=0", "txt_mod_dim=0", "single_mod_dim=0")  # which our presets leave out
KOHYA_LAYERS: dict[Targets, tuple[str, ...]] = {
    Targets.all_linear: MODULATION,
    Targets.diffusers: MODULATION,
    Targets.attention: ("txt_attn_dim=0", "img_mlp_dim=0", "txt_mlp_dim=0", *MODULATION),
}
AI_TOOLKIT_IGNORES: dict[Targets, tuple[str, ...]] = {  # parts of names; it trains all linear layers of the blocks
    Targets.all_linear: (".norm",),
    Targets.diffusers: (".norm", "proj_mlp", "proj_out"),
    Targets.attention: (".norm", "proj_mlp", "proj_out", ".ff", "add_"),
}
SIMPLETUNER_LAYERS = {Targets.all_linear: "all+ffs", Targets.attention: "mmdit"}
STACKS = {"transformer_blocks": "double", "single_transformer_blocks": "single"}  # diffusers' names -> kohya's
DOUBLE_BLOCKS, SINGLE_BLOCKS = 19, 38  # of FLUX.1


def kohya_layers(recipe: Recipe) -> tuple[list[str], list[str]]:
    """The network_args that choose the layers, and what they cannot say.

    Source: docs/flux_train_network.md of sd-scripts, 6.3 and 6.4.
    """
    words, unsaid = list(KOHYA_LAYERS[recipe.targets]), []
    if recipe.targets != Targets.all_linear:
        unsaid.append(f"train.lora.targets={recipe.targets}: single blocks train their feed-forward along")
    blocks: dict[str, list[str]] = {"double": [], "single": []}
    for pattern in recipe.layers:
        found = re.fullmatch(r"(\w+)\.(\*|\d+\.\*)", pattern)
        if found is None or found[1] not in STACKS:
            return words, [*unsaid, f"train.lora.layers={','.join(recipe.layers)}"]
        blocks[STACKS[found[1]]].append("all" if found[2] == "*" else found[2].partition(".")[0])
    for stack, numbers in blocks.items():
        if recipe.layers and "all" not in numbers:
            words.append(f"train_{stack}_block_indices={','.join(numbers) or 'none'}")
    return words, unsaid


def ai_toolkit_layers(recipe: Recipe) -> tuple[dict[str, list[str]], list[str]]:
    """The network_kwargs that choose the layers, by parts of their names, and what they cannot say."""
    words = {"ignore_if_contains": list(AI_TOOLKIT_IGNORES[recipe.targets])}
    parts = [f"transformer.{pattern}" if pattern[0] != "*" else pattern for pattern in recipe.layers]
    parts = [part.removeprefix("*").removesuffix("*") for part in parts]
    if any(set(part) & set("*?[") for part in parts):
        return words, [f"train.lora.layers={','.join(recipe.layers)}"]
    return words | ({"only_if_contains": parts} if parts else {}), []


def simpletuner_layers(recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    """The options that choose the layers: a preset of its own, or the names one by one; and what they cannot say."""
    if not recipe.layers and recipe.targets in SIMPLETUNER_LAYERS:
        return {"--flux_lora_target": SIMPLETUNER_LAYERS[recipe.targets]}, []
    # As a suffix, or the whole name, is what PEFT takes.
    lora = LoraSettings(targets=recipe.targets, layers=list(recipe.layers))
    try:
        names = layer_widths(Family.flux, DOUBLE_BLOCKS, SINGLE_BLOCKS, lora)
    except TargetsError:  # of blocks that FLUX.1 does not have
        return {"--flux_lora_target": "all+ffs"}, [f"train.lora.layers={','.join(recipe.layers)}"]
    ends = dict.fromkeys(names if recipe.layers else (name.split(".", 2)[2] for name in names))
    return {"--peft_lora_target_modules": list(ends)}, []
