"""`python -m sweep.plan`: the tree says what a training is, costs and needs, before any weights are here."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from sweep.door import Place
from sweep.errors import InputError
from sweep.plan import print_plan
from sweep.plan_tree import memory_choices, plan_tree, plan_warnings
from sweep.preflight import check_inputs, check_plan
from sweep.schema import Config
from tests.sweep.test_configurations import composed
from trainer.base import find_base, step_px
from trainer.estimate import read_shape
from trainer.examples import Example, read_examples
from trainer.plan import Plan, make_plan

PLACE = Place(Path(), None, ())
OWN = ("data=folder", "data.path=sandbox/data/anatomy_chalk", "data.references=sandbox/data/references_chalk")


def _made(*overrides: str) -> tuple[Config, list[Example], Plan]:
    config = composed(*overrides)
    examples = read_examples(config.data.path)
    step = step_px(find_base(config.base))
    return config, examples, make_plan(examples, config.mix, scale=config.base.scale, step=step, seed=0)


def _text(config: Config, examples: list[Example], plan: Plan) -> str:
    console = Console(width=400, highlight=False, markup=False)
    with console.capture() as captured:
        console.print(plan_tree(config, examples, plan, read_shape(find_base(config.base))))
    return captured.get()


def test_the_tree_goes_from_the_pictures_to_the_warnings() -> None:
    text = _text(*_made("experiment=anatomica_v9", "train.budget.epochs=2"))
    for part in (
        "a training on 30 pictures of sandbox/data/anatomy_engraving",
        "captions subject_only: ",
        "of 28 tokens",
        "an epoch is 150 pictures in 24 batches",
        "side 768: 2 times an epoch, batches of 8, 6 buckets",
        "budget: 2 epochs: 300 pictures seen in all in 48 steps, 2.0 epochs, 3 checkpoints",
        "lora of rank 16",
        "PFLOP to train",
        "PFLOP to draw 24 samples",
        "trials in a night of 8 hours: one CPU core ",
        "memory on a GPU, estimated",
        "fits a card of 12 GB",
        "2 warnings",
    ):
        assert part in text, part
    assert "300 pictures" in text and "random side" not in text
    assert "each picture at one random side an epoch" in _text(*_made("mix=256x1_512x3_768x1", "mix.random_side=true"))
    assert "60 s of training" in _text(*_made("train.budget.seconds=60"))


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        (["base.max_text_tokens=3"], "captions are longer than `base.max_text_tokens`=3 tokens"),
        (["train.lora.alpha=1"], "ComfyUI and Forge do not read alpha"),
        (["train.lora.kind=dora"], "not by ComfyUI"),
        (["mix=1024x5"], "smaller than 128x128 px: 30 of 30 pictures"),
    ],
)
def test_what_a_person_would_want_to_know_is_a_warning(overrides: list[str], warned: str) -> None:
    assert any(warned in warning for warning in plan_warnings(*_made(*overrides)))


@pytest.mark.parametrize("memory", ["12gb", "16gb", "24gb", "80gb"])
def test_a_known_base_is_planned_before_its_weights_are_here(
    memory: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    config = composed("base=flux1_dev", f"memory={memory}", *OWN)
    check_plan({"": config})
    print_plan(config, PLACE)
    text = capsys.readouterr().out
    fits = re.search(r"fits a card of (\d+) GB", text)
    assert fits is not None and int(fits[1]) <= int(memory.removesuffix("gb"))  # the pictures here are small
    assert "hf download black-forest-labs/FLUX.1-dev" in text
    unknown = composed("base=flux1_dev", "base.path=nobody/nothing", *OWN)
    with pytest.raises(InputError, match="hf download nobody/nothing"):
        check_plan({"": unknown})


@pytest.mark.parametrize(
    ("memory", "chosen"),
    [
        ("12gb", "nf4 weights, 100% of the blocks recomputed, one part on the device at a time"),
        ("24gb", "fp8 weights, 100% of the blocks recomputed, one part on the device at a time"),
        ("80gb", "bfloat16 weights, nothing recomputed, all parts on the device"),
    ],
)
def test_a_preset_says_what_it_chose(memory: str, chosen: str) -> None:
    assert memory_choices(composed("base=flux1_dev", f"memory={memory}", *OWN)) == chosen


def test_a_missing_library_and_a_useless_offload_are_refused_before_any_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trainer.extras.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"nf4` needs bitsandbytes(.|\n)*group_offload` saves nothing"):
        check_inputs({"": composed("base.quantize=nf4", "base.group_offload=true")})


def test_few_pictures_are_warned_of() -> None:
    config, examples, plan = _made()
    assert not [warning for warning in plan_warnings(config, examples, plan) if "few" in warning]
    assert plan_warnings(config, examples[:5], plan)[0].startswith("5 pictures are few for a style")
