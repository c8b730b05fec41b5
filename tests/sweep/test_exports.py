"""A recipe keeps its meaning in the words of other trainers."""

import json
import shlex
import tomllib
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from sweep.export_recipe import ai_toolkit_layers, kohya_layers, recipe_of, simpletuner_layers
from sweep.exports import ai_toolkit, exports, kohya_command, kohya_dataset, simpletuner_data, write_exports
from tests.sweep.made import outcome
from trainer.base import Family
from trainer.plan import make_plan
from trainer.settings import LoraSettings, MixSettings, Targets
from trainer.targets import layer_widths


@dataclass(frozen=True)
class Size:
    width: int
    height: int


SIZES = [Size(1024, 1024), Size(832, 1216), Size(1920, 1080), Size(640, 480), Size(500, 700), Size(777, 999)] * 5


@pytest.mark.parametrize("no_upscale", [True, False])
@pytest.mark.parametrize("bucket_step", [32, 64])
def test_a_kohya_toml_gives_the_buckets_and_steps_of_our_plan(no_upscale: bool, bucket_step: int) -> None:
    mix = MixSettings(
        repeats={256: 1, 512: 3, 768: 0},
        batch_size=4,
        batch_sizes={256: 2},
        no_upscale=no_upscale,
        bucket_step=bucket_step,
    )
    made = outcome(0, 0.7)
    made.config["mix"] |= {
        "repeats": {"256": 1, "512": 3, "768": 0},
        "batch_size": 4,
        "batch_sizes": {"256": 2},
        "no_upscale": no_upscale,
        "bucket_step": bucket_step,
    }
    read = tomllib.loads(kohya_dataset(recipe_of(made, "made")))
    ours = make_plan(SIZES, mix, scale=1.0, step=16, seed=0)  # a base of FLUX.1's tokens
    assert read["general"]["bucket_reso_steps"] == bucket_step
    steps = 0
    for dataset, side in zip(read["datasets"], ours.sides, strict=True):
        [subset] = dataset["subsets"]
        theirs = MixSettings(
            repeats={dataset["resolution"]: subset["num_repeats"]},
            batch_size=dataset["batch_size"],
            no_upscale=read["general"]["bucket_no_upscale"],
            min_side=dataset["min_bucket_reso"],
            max_side=dataset["max_bucket_reso"],
        )
        plan = make_plan(SIZES, theirs, scale=1.0, step=read["general"]["bucket_reso_steps"], seed=0)
        assert plan.sides[0].buckets == side.buckets
        steps += plan.steps_per_epoch
    assert steps == ours.steps_per_epoch


def test_a_step_that_kohya_refuses_is_replaced_and_said() -> None:
    text = kohya_dataset(replace(recipe_of(outcome(0, 0.7), "made"), step_px=16))
    assert tomllib.loads(text)["general"]["bucket_reso_steps"] == 32
    assert "ours of 16; mix.bucket_step=32 for the same. Now: crops differ" in text, (
        "as far as can be said without the pictures"
    )


def test_with_the_pictures_it_says_what_other_buckets_do_to_an_epoch(tmp_path: Path) -> None:
    for index, size in enumerate([(1024, 1024), (832, 1216), (900, 1100), (900, 1112)]):
        Image.new("RGB", size).save(tmp_path / f"{index}.png")
    made = outcome(0, 0.7, pictures=str(tmp_path))
    made.config["mix"] |= {"repeats": {"512": 2}, "batch_size": 2}
    text = kohya_dataset(replace(recipe_of(made, "made"), step_px=16))
    assert "Now: 4 steps per epoch there, 4 here;" in text
    assert "to cropping there" in text


def test_the_kohya_command_says_all_that_its_defaults_would_get_wrong() -> None:
    words = shlex.split(kohya_command(recipe_of(outcome(0, 0.7), "made")).replace("\\\n", " "))
    given = dict(pairwise(words))
    assert given["--guidance_scale"] == "1.0" and given["--model_prediction_type"] == "raw"
    assert given["--network_dim"] == given["--network_alpha"] == "16"
    assert given["--max_train_steps"] == "96" and given["--learning_rate"] == "0.0001"


def test_repeats_are_counted_as_each_tool_counts_them() -> None:
    recipe = recipe_of(outcome(0, 0.7), "made")
    [process] = OmegaConf.create(ai_toolkit(recipe)).config.process
    assert [(list(d.resolution), d.num_repeats) for d in process.datasets] == [([512], 3), ([768], 2)]
    *backends, texts = json.loads(simpletuner_data(recipe))
    assert [(b["resolution"], b["repeats"]) for b in backends] == [(512, 2), (768, 1)], "those beyond the first"
    assert texts["dataset_type"] == "text_embeds"


def test_pictures_go_along_with_the_captions_they_were_trained_with(tmp_path: Path) -> None:
    pictures = tmp_path / "mine"
    pictures.mkdir()
    Image.new("RGB", (64, 64)).save(pictures / "heart.png")
    (pictures / "heart.txt").write_text("An anatomical engraving style drawing of a human heart", encoding="utf-8")
    made, fault = write_exports(outcome(0, 0.7, pictures=str(pictures)), "made", tmp_path / "export")
    assert fault == "" and len(made) == 5
    assert "accelerate launch" in (tmp_path / "export" / "kohya_train.sh").read_text(encoding="utf-8")
    assert (tmp_path / "export" / "pictures" / "heart.txt").read_text(encoding="utf-8") == "a human heart\n"
    assert (tmp_path / "export" / "pictures" / "heart.png").is_file()


def test_pictures_that_are_gone_leave_the_files_and_a_word(tmp_path: Path) -> None:
    made, fault = write_exports(outcome(0, 0.7, pictures=str(tmp_path / "gone")), "made", tmp_path / "export")
    assert "no such folder" in fault
    assert all((tmp_path / "export" / export.file).is_file() for export in made)


def test_what_a_tool_cannot_be_told_is_said() -> None:
    made = outcome(0, 0.7)
    assert "not carried over" not in kohya_dataset(recipe_of(made, "made"))
    made.config["train"]["ema"] = 0.99
    made.config["train"]["optimizer"]["name"] = "prodigy"
    recipe = recipe_of(made, "made")
    assert "# not carried over: train.ema=0.99\n" in kohya_dataset(recipe)
    assert "--optimizer_type Prodigy" in kohya_command(recipe)


SINGLE = "single_transformer_blocks.*"


@pytest.mark.parametrize("targets", list(Targets))
@pytest.mark.parametrize("layers", [[], [SINGLE], ["transformer_blocks.3.*", "*.attn.to_q"]])
def test_each_tool_is_told_the_layers_of_the_lora(targets: Targets, layers: list[str]) -> None:
    made = outcome(0, 0.7)
    made.config["train"]["lora"] |= {"targets": targets.value, "layers": layers}
    recipe = recipe_of(made, "made")
    every = layer_widths(Family.flux, 19, 38, LoraSettings())
    wanted = set(layer_widths(Family.flux, 19, 38, LoraSettings(targets=targets, layers=layers)))

    words, unsaid = ai_toolkit_layers(recipe)  # parts of names, of which one to be left out wins
    named = {f"transformer.{name}" for name in every if not any(part in name for part in words["ignore_if_contains"])}
    only = words.get("only_if_contains", [""])
    assert {name for name in named if any(part in name for part in only)} == {f"transformer.{n}" for n in wanted}
    assert unsaid == []

    options, unsaid = simpletuner_layers(recipe)
    if "--peft_lora_target_modules" in options:  # as PEFT reads it: the name or its end
        ends = tuple(options["--peft_lora_target_modules"])
        assert {n for n in every if n in ends or n.endswith(tuple(f".{end}" for end in ends))} == wanted
    else:
        assert options == {"--flux_lora_target": {"all_linear": "all+ffs", "attention": "mmdit"}[targets]}
    assert unsaid == []


def test_kohya_is_told_blocks_and_kinds_of_layers_and_what_it_cannot_be_told_is_said() -> None:
    made = outcome(0, 0.7)
    made.config["train"]["lora"]["layers"] = [SINGLE]
    words, unsaid = kohya_layers(recipe_of(made, "made"))
    assert words == ["img_mod_dim=0", "txt_mod_dim=0", "single_mod_dim=0", "train_double_block_indices=none"]
    assert unsaid == []
    made.config["train"]["lora"]["layers"] = ["transformer_blocks.3.*", "transformer_blocks.5.*"]
    assert kohya_layers(recipe_of(made, "made"))[0][-2:] == [
        "train_double_block_indices=3,5",
        "train_single_block_indices=none",
    ]
    made.config["train"]["lora"]["layers"] = ["*.attn.to_q"]
    [script] = [export.text for export in exports(made, "made") if export.file == "kohya_train.sh"]
    assert "# not carried over: train.lora.layers=*.attn.to_q\n" in script
    assert "--network_args img_mod_dim=0 txt_mod_dim=0 single_mod_dim=0 \\\n" in script
