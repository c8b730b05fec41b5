"""The winning recipe for other trainers: sd-scripts (kohya, ComfyUI-FluxTrainer), ai-toolkit and SimpleTuner.

Pictures are copied together with the captions they were trained with, as these tools read NAME.txt beside the picture.
What a tool counts otherwise is converted: SimpleTuner's `repeats` are those beyond the first; it and ai-toolkit have
their own buckets and one batch size for all. What cannot be converted is said in the file.
"""

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sweep.door import settings
from sweep.examples import with_captions
from sweep.export_recipe import (
    FOUND_BEST,
    KOHYA_TIMESTEPS,
    Recipe,
    ai_toolkit_layers,
    family_here,
    kohya_layers,
    recipe_of,
    simpletuner_layers,
)
from sweep.outcome import Outcome
from sweep.schema import Config
from trainer.base import Family
from trainer.captions import caption
from trainer.examples import DatasetError, read_examples
from trainer.plan import PlanError, make_plan
from trainer.tokens import counter_of

FOLDER = "export"
PICTURES = "pictures"  # in the folder above, with the captions
FLUX = "black-forest-labs/FLUX.1-dev"
KOHYA = "kohya sd-scripts, ComfyUI-FluxTrainer"
KOHYA_PLACE = f"# In sd-scripts' folder, with FLUX's weights, kohya_dataset.toml and {PICTURES}/ beside its scripts."
AI_TOOLKIT_TIMESTEPS = {"sigmoid": "sigmoid", "flux_shift": "flux_shift", "uniform": "linear"}
KOHYA_STEP = 32  # sd-scripts wants bucket steps in multiples of it for FLUX
SANDBOX_NOTE = "found on the sandbox: captions, sides and repeats are meant to carry over; learning rate and steps not"


@dataclass(frozen=True)
class Export:
    """One file for one tool."""

    tool: str
    file: str  # below the export folder
    text: str
    how: str  # the command that uses it; empty where another file's does


def exports(outcome: Outcome, name: str, standing: str = FOUND_BEST) -> list[Export]:
    """The recipe in the words of every tool."""
    recipe = recipe_of(outcome, name, standing)
    return [
        Export(KOHYA, "kohya_dataset.toml", kohya_dataset(recipe), "sh kohya_train.sh"),
        Export(KOHYA, "kohya_train.sh", _kohya_script(recipe), ""),
        Export("ai-toolkit", "ai_toolkit.yaml", ai_toolkit(recipe), "python run.py ai_toolkit.yaml"),
        Export(
            "SimpleTuner",
            "simpletuner_config.json",
            simpletuner(recipe),
            "\n".join(
                [
                    *_unsaid(recipe, simpletuner_layers(recipe)[1]),
                    "mkdir -p config && cp simpletuner_config.json config/config.json",
                    "cp simpletuner_multidatabackend.json config/multidatabackend.json",
                    "simpletuner train",
                ]
            ),
        ),
        Export("SimpleTuner", "simpletuner_multidatabackend.json", simpletuner_data(recipe), ""),
    ]


def write_exports(outcome: Outcome, name: str, out: Path, standing: str = FOUND_BEST) -> tuple[list[Export], str]:
    """Writes the files, and the pictures with their captions; returns the exports and what could not be written.

    Args:
        standing: what the study says of the recipe, which the files repeat.
    """
    if family_here(outcome.config) != Family.flux:
        return [], "the files for other trainers are for FLUX.1, and this base is of another family"
    out.mkdir(parents=True, exist_ok=True)
    made = exports(outcome, name, standing)
    for export in made:
        (out / export.file).write_text(export.text, encoding="utf-8")
    try:
        _write_pictures(outcome.config, out / PICTURES)
    except (DatasetError, OSError, ValueError, OmegaConfBaseException) as fault:
        return made, f"the pictures and captions could not be written: {str(fault).splitlines()[0]}"
    return made, ""


def _settings_of(stored: Mapping[str, Any]) -> Config:
    known = {key: value for key, value in stored.items() if key not in ("search", "track")}
    return settings(DictConfig(OmegaConf.merge(OmegaConf.structured(Config), known)))


def _write_pictures(stored: Mapping[str, Any], out: Path) -> None:
    config = _settings_of(stored)
    config.captions.dropout = 0.0  # left to the tool
    data = config.data
    examples = with_captions(config, read_examples(data.path, limit=data.limit, subset_seed=data.subset_seed))
    count = counter_of(config.base)
    texts = [caption(each, config.captions, epoch=0, seed=config.train.seed, count=count) for each in examples]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for example, text in zip(examples, texts, strict=True):
        shutil.copy(example.path, out / example.path.name)
        (out / example.path.with_suffix(".txt").name).write_text(f"{text}\n", encoding="utf-8")


def kohya_dataset(recipe: Recipe) -> str:
    """The dataset TOML: the folder once per side, which gives the buckets and steps per epoch of our plan."""
    mix, captions = recipe.config["mix"], recipe.config["captions"]
    step = recipe.step_px if recipe.step_px % KOHYA_STEP == 0 else KOHYA_STEP
    other = f"its buckets are multiples of {step} px, ours of {recipe.step_px}; mix.bucket_step={step} for the same"
    lines = [
        *_notes(recipe, []),
        *([f"# {other}. Now: {_steps_of_both(recipe, step)}"] if step != recipe.step_px else []),
        "[general]",
        'caption_extension = ".txt"',
        f"caption_dropout_rate = {float(captions.get('dropout', 0.0))}",
        f"shuffle_caption = {_toml(bool(captions.get('shuffle_tags', False)))}",
        f"keep_tokens = {int(captions.get('keep_tokens', 0))}",
        "enable_bucket = true",
        f"bucket_reso_steps = {step}",
        f"bucket_no_upscale = {_toml(bool(mix.get('no_upscale', True)))}",
    ]
    for side, repeats, batch_size in recipe.sides:
        lines += [
            "",
            "[[datasets]]",
            f"resolution = {side}",
            f"batch_size = {batch_size}",
            # Its defaults 256 and 1024 leave one square bucket at 256 and cut long pictures at 1024.
            f"min_bucket_reso = {mix.get('min_side') or side // 2}",
            f"max_bucket_reso = {mix.get('max_side') or side * 2}",
            "",
            "  [[datasets.subsets]]",
            f"  image_dir = {_toml(PICTURES)}",
            f"  num_repeats = {repeats}",
        ]
    return "\n".join(lines) + "\n"


def _steps_of_both(recipe: Recipe, step: int) -> str:
    """What other buckets do to an epoch, as far as the pictures are still there to tell."""
    try:
        config = _settings_of(recipe.config)
        examples = read_examples(config.data.path, limit=config.data.limit, subset_seed=config.data.subset_seed)
        theirs, ours = (make_plan(examples, config.mix, scale=1.0, step=s, seed=0) for s in (step, recipe.step_px))
    except (DatasetError, PlanError, OSError, ValueError, OmegaConfBaseException):
        return "crops differ by a few pixels"
    lost = [100 * max(side.crop_loss for side in plan.sides) for plan in (theirs, ours)]
    return (
        f"{theirs.steps_per_epoch} steps per epoch there, {ours.steps_per_epoch} here;"
        f" the worst side loses {lost[0]:.0f} % of a picture to cropping there, {lost[1]:.0f} % here"
    )


def _kohya_script(recipe: Recipe) -> str:
    return "\n".join([KOHYA_PLACE, *_notes(recipe, kohya_layers(recipe)[1]), kohya_command(recipe)]) + "\n"


def kohya_command(recipe: Recipe) -> str:
    """The sd-scripts command that goes with the TOML; its defaults for FLUX are not FLUX's, so all is written out."""
    train, optimizer = recipe.train, recipe.train["optimizer"]
    options: dict[str, Any] = {
        "pretrained_model_name_or_path": "flux1-dev.safetensors",
        "clip_l": "clip_l.safetensors",
        "t5xxl": "t5xxl_fp16.safetensors",
        "ae": "ae.safetensors",
        "dataset_config": "kohya_dataset.toml",
        "output_dir": "output",
        "output_name": recipe.name,
        "save_model_as": "safetensors",
        "network_module": "networks.lora_flux",
        "network_dim": recipe.rank,
        "network_alpha": f"{recipe.alpha:g}",
        "network_train_unet_only": True,
        "network_args": kohya_layers(recipe)[0],
        "optimizer_type": recipe.optimizer[0],
        "learning_rate": f"{optimizer['learning_rate']:g}",
        "lr_scheduler": "constant_with_warmup",
        "lr_warmup_steps": optimizer.get("warmup_steps", 0),
        "max_grad_norm": f"{optimizer.get('max_grad_norm', 1.0):g}",
        "max_train_steps": recipe.steps,
        "gradient_accumulation_steps": recipe.accumulation,
        "timestep_sampling": train["timesteps"] if train["timesteps"] in KOHYA_TIMESTEPS else "sigmoid",
        "discrete_flow_shift": f"{train.get('shift', 3.1582):g}",
        "model_prediction_type": "raw",
        "guidance_scale": "1.0",
        "loss_type": "l2",
        "seed": train["seed"],
        "mixed_precision": "bf16",
        "save_precision": "bf16",
        "sdpa": True,
        "gradient_checkpointing": True,
        "cache_latents": True,
    }
    words = ["accelerate launch --mixed_precision bf16 flux_train_network.py"]
    for key, value in options.items():
        given = "" if value is True else shlex.join(map(str, value if isinstance(value, list) else [value]))
        words.append(f"--{key} {given}".rstrip())
    betas = ",".join(f"{beta:g}" for beta in optimizer.get("betas", (0.9, 0.999)))
    words.append(f"--optimizer_args weight_decay={optimizer.get('weight_decay', 0.01):g} betas={betas}")
    return " \\\n  ".join(words)


def ai_toolkit(recipe: Recipe) -> str:
    """The job file: one dataset per side, as its list of resolutions has one repeat count for all."""
    captions, train = recipe.config["captions"], recipe.train
    layers, unsaid = ai_toolkit_layers(recipe)
    if train["timesteps"] not in AI_TOOLKIT_TIMESTEPS:
        unsaid = [*unsaid, f"train.timesteps={train['timesteps']}, it is sigmoid here"]
    trigger = captions.get("trigger", "")
    folder = {"folder_path": PICTURES, "caption_ext": "txt", "cache_latents_to_disk": True}
    folder |= {"caption_dropout_rate": float(captions.get("dropout", 0.0))}
    folder |= {"shuffle_tokens": bool(captions.get("shuffle_tags", False))}
    process = {
        "type": "sd_trainer",
        "training_folder": "output",
        "device": "cuda:0",
        "network": {"type": "lora", "linear": recipe.rank, "linear_alpha": recipe.alpha, "network_kwargs": layers},
        "save": {"dtype": "bf16", "save_every": max(1, recipe.steps // 4), "max_step_saves_to_keep": 4},
        "datasets": [{**folder, "resolution": [side], "num_repeats": repeats} for side, repeats, _ in recipe.sides],
        "train": {
            "batch_size": min(size for _, _, size in recipe.sides),
            "gradient_accumulation_steps": recipe.accumulation,
            "steps": recipe.steps,
            "train_unet": True,
            "train_text_encoder": False,
            "gradient_checkpointing": True,
            "noise_scheduler": "flowmatch",
            "timestep_type": AI_TOOLKIT_TIMESTEPS.get(train["timesteps"], "sigmoid"),
            "optimizer": recipe.optimizer[1],
            "optimizer_params": {"weight_decay": train["optimizer"].get("weight_decay", 0.01)},
            "lr": train["optimizer"]["learning_rate"],
            "max_grad_norm": train["optimizer"].get("max_grad_norm", 1.0),
            "dtype": "bf16",
            "seed": train["seed"],
        },
        "model": {"name_or_path": _base_of(recipe), "is_flux": True, "quantize": True},
        "sample": {
            "sample_every": max(1, recipe.steps // 4),
            "width": 1024,
            "height": 1024,
            "prompts": [prompt["text"] for prompt in recipe.config["eval"]["prompts"]],
            "seed": 1,
            "guidance_scale": recipe.config["sample"]["guidance"],
            "sample_steps": recipe.config["sample"]["steps"],
        },
    }
    # The captions hold the trigger already; a `trigger_word` would put it there twice.
    note = [f"# the trigger word {trigger} is in the captions"] if trigger else []
    job = {"job": "extension", "config": {"name": recipe.name, "process": [process]}}
    return "\n".join([*_notes(recipe, unsaid), *note]) + "\n" + OmegaConf.to_yaml(OmegaConf.create(job))


def simpletuner(recipe: Recipe) -> str:
    """config.json."""
    optimizer = recipe.train["optimizer"]
    config = {
        "--model_type": "lora",
        "--model_family": "flux",
        "--lora_type": "standard",
        "--pretrained_model_name_or_path": _base_of(recipe),
        "--lora_rank": recipe.rank,
        "--lora_alpha": recipe.alpha,
        **simpletuner_layers(recipe)[0],
        "--data_backend_config": "config/multidatabackend.json",
        "--output_dir": f"output/{recipe.name}",
        "--train_batch_size": min(size for _, _, size in recipe.sides),
        "--gradient_accumulation_steps": recipe.accumulation,
        "--max_train_steps": recipe.steps,
        "--num_train_epochs": 0,
        "--learning_rate": optimizer["learning_rate"],
        "--lr_scheduler": "constant_with_warmup",
        "--lr_warmup_steps": optimizer.get("warmup_steps", 0),
        "--optimizer": recipe.optimizer[2],
        "--max_grad_norm": optimizer.get("max_grad_norm", 1.0),
        "--mixed_precision": "bf16",
        "--gradient_checkpointing": True,
        "--caption_dropout_probability": float(recipe.config["captions"].get("dropout", 0.0)),
        "--flux_guidance_mode": "constant",
        "--flux_guidance_value": 1.0,
        "--seed": recipe.train["seed"],
        "--resolution_type": "pixel_area",
        "--checkpoint_step_interval": max(1, recipe.steps // 4),
        "--disable_bucket_pruning": True,
    }
    if recipe.train["timesteps"] == "shift":
        config["--flow_schedule_shift"] = recipe.train.get("shift", 3.1582)
    return json.dumps(config, indent=2) + "\n"


def simpletuner_data(recipe: Recipe) -> str:
    """multidatabackend.json: a backend per side; its repeats are those beyond the first."""
    backends: list[dict[str, Any]] = [
        {
            "id": f"side-{side}",
            "type": "local",
            "instance_data_dir": PICTURES,
            "caption_strategy": "textfile",
            "resolution": side,
            "resolution_type": "pixel_area",
            "crop": True,
            "crop_style": "center",
            "crop_aspect": "preserve",
            "repeats": repeats - 1,
            "metadata_backend": "discovery",
            "cache_dir_vae": f"cache/vae/{side}",
        }
        for side, repeats, _ in recipe.sides
    ]
    texts = {"id": "text-embeds", "type": "local", "dataset_type": "text_embeds", "default": True}
    backends.append(texts | {"cache_dir": "cache/text"})
    return json.dumps(backends, indent=2) + "\n"


def _unsaid(recipe: Recipe, layers: Sequence[str]) -> list[str]:
    return [f"# not carried over: {setting}" for setting in [*recipe.left_out, *layers]]


def _notes(recipe: Recipe, layers: Sequence[str]) -> list[str]:
    notes = [f"# {recipe.name}: {recipe.standing}; {PICTURES}/ holds pictures and captions"]
    notes += [f"# {SANDBOX_NOTE}"] * recipe.sandbox
    return notes + _unsaid(recipe, layers)


def _base_of(recipe: Recipe) -> str:
    path = str(recipe.config["base"]["path"])
    return FLUX if recipe.sandbox or path.startswith(("/", "~")) else path


def _toml(value: str | bool) -> str:
    return json.dumps(value, ensure_ascii=False)
