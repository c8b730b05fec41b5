"""The loop: it learns, repeats itself, survives a kill, and leaves the base alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from trainer.base import load_base
from trainer.budget import checkpoint_steps
from trainer.cache import TensorCache
from trainer.checkpoints import Checkpoint, ResumeError, TrainingFolder
from trainer.examples import DatasetError, Example, read_examples
from trainer.flux import FluxBase
from trainer.loop import TrainingError, _Job, _Trainee, train
from trainer.plan import Batch, make_plan
from trainer.seeds import derive_seed
from trainer.settings import (
    BaseSettings,
    BudgetSettings,
    CaptionSettings,
    Dtype,
    LoraSettings,
    MixSettings,
    OptimizerSettings,
    Strategy,
    TrainSettings,
)

SETTINGS = TrainSettings(
    lora=LoraSettings(rank=2),
    optimizer=OptimizerSettings(learning_rate=1e-2, warmup_steps=2),
    budget=BudgetSettings(24),
    checkpoints=3,
)
MIX = MixSettings({256: 1, 512: 2}, batch_size=2)


@pytest.fixture(scope="module")
def examples(picture_folder: Path) -> list[Example]:
    return read_examples(picture_folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(base: FluxBase, examples: list[Example], cache: Path, tmp_path: Path) -> Callable[..., Any]:
    """`train` with defaults for everything."""

    def start(name: str = "run", settings: TrainSettings = SETTINGS, **changes: Any) -> Any:
        asked = {"examples": examples, "captions": CaptionSettings(), "mix": MIX, **changes}
        return train(base=base, settings=settings, folder=tmp_path / name, cache=cache, **asked)

    return start


def _weights(checkpoints: Sequence[Checkpoint]) -> list[dict[str, torch.Tensor]]:
    return [load_file(checkpoint.lora) for checkpoint in checkpoints]


def _equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_checkpoints_come_evenly_and_the_last_at_the_budget(run: Callable[..., Any]) -> None:
    checkpoints = list(run())
    seen = [checkpoint.images_seen for checkpoint in checkpoints]
    assert all(share <= images < share + MIX.batch_size for share, images in zip([8, 16, 24], seen, strict=True))
    steps = [checkpoint.step for checkpoint in checkpoints]
    assert [len(checkpoint.losses) for checkpoint in checkpoints] == [
        b - a for a, b in zip([0, *steps], steps, strict=False)
    ]
    for checkpoint in checkpoints:
        assert checkpoint.loss == pytest.approx(sum(checkpoint.losses) / len(checkpoint.losses))
        assert checkpoint.lora.exists() and checkpoint.seconds > 0


def test_the_loss_falls_on_one_picture(run: Callable[..., Any], examples: list[Example]) -> None:
    settings = replace(SETTINGS, budget=BudgetSettings(160), checkpoints=1)
    (checkpoint,) = run(settings=settings, examples=examples[:1], mix=MixSettings({512: 1}, batch_size=1))
    first, last = checkpoint.losses[:20], checkpoint.losses[-20:]
    assert sum(last) < 0.9 * sum(first)


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(run: Callable[..., Any]) -> None:
    first, again = _weights(list(run("a"))), _weights(list(run("b")))
    other = _weights(list(run("c", settings=replace(SETTINGS, seed=1))))
    assert all(_equal(x, y) for x, y in zip(first, again, strict=True))
    assert not _equal(first[-1], other[-1])
    assert not _equal(first[0], first[-1])


def test_two_threads_give_the_same_weights_twice(tmp_path: Path, cache: Path, examples: list[Example]) -> None:
    """On the sandbox's base: the tiny one is too small for its work to be shared."""
    try:
        base = load_base(BaseSettings(scale=0.125, device="cpu", max_text_tokens=28, threads=2))
        assert torch.get_num_threads() == 2
        made = [
            train(
                base=base,
                examples=examples,
                captions=CaptionSettings(),
                mix=MixSettings({512: 1}, batch_size=4),
                settings=replace(SETTINGS, checkpoints=1),
                folder=tmp_path / name,
                cache=cache,
            )
            for name in ("a", "b")
        ]
        first, again = (_weights(list(training)) for training in made)
    finally:
        torch.set_num_threads(1)
    assert _equal(first[0], again[0])


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_a_stopped_training_goes_on_to_the_same_end(run: Callable[..., Any], taken: int) -> None:
    whole = _weights(list(run("whole")))
    stopped = run("stopped")
    for _ in range(taken):
        next(stopped)
    stopped.close()
    checkpoints = list(run("stopped"))
    assert len(checkpoints) == 3
    assert all(_equal(x, y) for x, y in zip(whole, _weights(checkpoints), strict=True))


def test_a_longer_budget_continues_a_shorter_one(run: Callable[..., Any], tmp_path: Path) -> None:
    whole = list(run("whole"))
    list(run("grown", settings=replace(SETTINGS, budget=BudgetSettings(16), checkpoints=2)))
    early = (tmp_path / "grown" / f"step_{whole[0].step:06d}" / "lora.safetensors").stat().st_mtime_ns
    grown = list(run("grown"))
    assert _equal(*(_weights([checkpoints[-1]])[0] for checkpoints in (whole, grown)))
    assert grown[0].lora.stat().st_mtime_ns == early


def test_another_number_of_checkpoints_does_not_change_the_end(run: Callable[..., Any]) -> None:
    (alone,) = run("alone", settings=replace(SETTINGS, checkpoints=1))
    assert _equal(*_weights([alone, list(run("three"))[-1]]))


def test_further_checkpoints_in_between_change_neither_the_others_nor_the_losses(run: Callable[..., Any]) -> None:
    whole, more = list(run("whole")), list(run("more", also_at=[1, 3, 10_000]))
    assert [c.step for c in more] == sorted({1, 3, *(c.step for c in whole)})
    shared = [c for c in more if c.step in {w.step for w in whole}]
    assert all(_equal(x, y) for x, y in zip(_weights(whole), _weights(shared), strict=True))
    assert [loss for c in more for loss in c.losses] == [loss for c in whole for loss in c.losses]


def test_a_training_that_differs_in_its_budget_alone_is_taken_over_and_gone_on_with(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(run("whole"))
    shorter = list(run("shorter", settings=replace(SETTINGS, budget=BudgetSettings(12), checkpoints=3)))
    list(run("other", settings=replace(SETTINGS, seed=1)))
    trained: list[int] = []
    step = _Trainee._train_step
    monkeypatch.setattr(_Trainee, "_train_step", lambda self, *given: trained.append(1) or step(self, *given))  # type: ignore[func-returns-value]
    relatives = [tmp_path / name for name in ("other", "nowhere", "shorter", "longer")]
    longer = list(run("longer", settings=replace(SETTINGS, checkpoints=2), relatives=relatives))
    assert len(trained) == whole[-1].step - shorter[-1].step
    assert [loss for each in longer for loss in each.losses] == [loss for each in whole for loss in each.losses]
    assert _equal(*_weights([whole[-1], longer[-1]]))
    trained.clear()
    again = list(
        run("again", settings=replace(SETTINGS, budget=BudgetSettings(12), checkpoints=1), relatives=relatives)
    )
    assert not trained and _equal(*_weights([again[-1], shorter[-1]]))


def test_a_step_in_between_that_another_training_has_passed_is_not_gone_back_for(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    once = replace(SETTINGS, checkpoints=1)
    shorter = list(run("shorter", settings=replace(once, budget=BudgetSettings(12)), also_at=[2]))
    longer = list(run("longer", settings=once, also_at=[1, 3], relatives=[tmp_path / "shorter"]))
    assert [each.step for each in longer[:-1]] == [each.step for each in shorter] and shorter[0].step == 2
    assert _equal(*_weights([list(run("whole"))[-1], longer[-1]]))


def test_where_the_last_checkpoint_alone_is_needed_those_before_it_are_not_gone_back_for_either(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    whole = list(run("whole"))
    shorter = list(run("shorter", settings=replace(SETTINGS, budget=BudgetSettings(16), checkpoints=1)))
    asked = {"settings": replace(SETTINGS, checkpoints=4), "relatives": [tmp_path / "shorter"]}
    steps = [each.step for each in run("all", **asked)]
    assert steps[0] < shorter[0].step < steps[-1], "each is needed: begun anew"
    longer = list(run("longer", **asked, last_alone=True))
    later = [step for step in steps if step > shorter[0].step]
    assert [each.step for each in longer] == [shorter[0].step, *later]
    assert _equal(*_weights([whole[-1], longer[-1]]))


def test_only_the_newest_checkpoint_keeps_its_state(run: Callable[..., Any], tmp_path: Path) -> None:
    last = list(run())[-1]
    states = list((tmp_path / "run").rglob("state.safetensors"))
    assert [state.parent for state in states] == [last.lora.parent]


def test_accumulated_batches_act_as_one_large_batch(
    base: FluxBase, examples: list[Example], cache: Path, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, optimizer=OptimizerSettings(warmup_steps=0, max_grad_norm=0.0, betas=(0.9, 0.999)))
    plan = make_plan(examples, MixSettings({512: 1}), scale=base.scale, step=base.step_px, seed=0)
    folder = TrainingFolder(tmp_path, {})
    trainee = _Trainee(_Job(base, examples, CaptionSettings(), settings, plan, folder, TensorCache(cache), {}))
    bucket, (first, second, third) = next(item for item in plan.sides[0].buckets.items() if len(item[1]) == 3)
    batches = [Batch(bucket, 512, (first, second)), Batch(bucket, 512, (third,))]  # a picture counts, not a batch
    generator = torch.Generator().manual_seed(derive_seed("noise", settings.seed, 0))
    with trainee.lora.plugged_in():
        losses = torch.cat([trainee._loss(batch, 0, generator) for batch in batches])  # the same noise, one graph
        gradients = torch.autograd.grad(losses.mean(), trainee.weights)
        assert trainee._train_step(0, batches) == pytest.approx(losses.mean().item(), rel=1e-5)
    state = trainee.state()
    for name, gradient in zip(trainee.lora.parameters, gradients, strict=True):
        assert torch.allclose(state[f"{name}.exp_avg"], 0.1 * gradient, rtol=1e-3, atol=1e-7), name
    assert any(gradient.abs().max() > 1e-5 for gradient in gradients)


def test_an_accumulated_step_sees_all_its_pictures(run: Callable[..., Any], examples: list[Example]) -> None:
    same = [example for example in examples if example.width == example.height][:2]
    settings = replace(SETTINGS, budget=BudgetSettings(2), checkpoints=1)
    (checkpoint,) = run(settings=settings, mix=MixSettings({512: 1}, 1, gradient_accumulation=2), examples=same)
    assert (checkpoint.step, checkpoint.images_seen) == (1, 2)


def test_the_base_is_untouched_between_checkpoints_and_when_dropped_early(
    run: Callable[..., Any], weights_of: Callable[[], dict[str, object]]
) -> None:
    before = weights_of()
    training = run()
    next(training)
    assert weights_of() == before
    training.close()
    assert weights_of() == before
    next(run("other"))  # dropped without being closed
    assert weights_of() == before


def test_bfloat16_weights_train_and_repeat(
    tiny_settings: BaseSettings, examples: list[Example], cache: Path, tmp_path: Path
) -> None:
    base = load_base(replace(tiny_settings, dtype=Dtype.bfloat16))
    settings = replace(SETTINGS, budget=BudgetSettings(8), checkpoints=1)
    ends = [
        next(
            train(
                base=base,
                examples=examples,
                captions=CaptionSettings(),
                mix=MIX,
                settings=settings,
                folder=tmp_path / name,
                cache=cache,
            )
        )
        for name in ("first", "again")
    ]
    first, again = _weights(ends)
    assert _equal(first, again)
    assert {weight.dtype for weight in first.values()} == {torch.float32}
    assert all(weight.any() for weight in first.values())


def test_recomputed_activations_give_the_same_weights(run: Callable[..., Any], base: FluxBase) -> None:
    plain = _weights(list(run("plain")))[-1]
    saving = _weights(list(run("saving", settings=replace(SETTINGS, gradient_checkpointing=True))))[-1]
    assert all(torch.allclose(plain[name], saving[name], atol=1e-6) for name in plain)
    assert not base.transformer.gradient_checkpointing


def test_another_training_in_the_folder_is_refused(run: Callable[..., Any]) -> None:
    next(run())
    with pytest.raises(ResumeError, match=r"holds another training(.|\n)*captions"):
        run(captions=CaptionSettings(Strategy.original))
    with pytest.raises(ResumeError, match="seed: 0 there, 5 now"):
        run(settings=replace(SETTINGS, seed=5))


def test_missing_captions_are_refused_at_once(run: Callable[..., Any], examples: list[Example]) -> None:
    bare = [replace(example, captions=()) for example in examples]
    with pytest.raises(DatasetError, match="4 captions missing"):
        run(examples=bare)


@pytest.mark.filterwarnings("ignore:.*overflow.*", "ignore:.*invalid value.*")
def test_a_loss_that_is_no_number_ends_with_advice(run: Callable[..., Any], base: FluxBase) -> None:
    wild = replace(SETTINGS, optimizer=OptimizerSettings(learning_rate=1e30, warmup_steps=0, max_grad_norm=0.0))
    before = {name: id(module) for name, module in base.transformer.named_modules()}
    with pytest.raises(TrainingError, match=r"step \d+: lower `train.optimizer.learning_rate`"):
        list(run(settings=wild))
    assert {name: id(module) for name, module in base.transformer.named_modules()} == before


def test_the_file_loads_in_diffusers_with_its_alpha(run: Callable[..., Any], tiny_flux: Path) -> None:
    checkpoint = next(run(settings=replace(SETTINGS, lora=LoraSettings(rank=2, alpha=1.0))))
    pipeline = FluxPipeline.from_pretrained(tiny_flux)
    pipeline.load_lora_weights(str(checkpoint.lora.parent), weight_name=checkpoint.lora.name)
    config = pipeline.transformer.peft_config["default_0"]
    assert (config.r, config.lora_alpha) == (2, 1.0)


def test_the_file_says_what_made_it(run: Callable[..., Any]) -> None:
    last = list(run())[-1]
    with safe_open(last.lora, framework="pt") as file:
        metadata = file.metadata()
        assert all(key.startswith("transformer.") for key in file.keys())  # noqa: SIM118 safe_open is no mapping
    assert metadata["modelspec.architecture"] == "flux-1-dev/lora"
    assert (metadata["ss_network_dim"], metadata["ss_steps"], metadata["ss_images_seen"]) == ("2", str(last.step), "24")
    assert '"strategy": "subject_only"' in metadata["ss_training_comment"]
    assert metadata["ss_network_args"] and metadata["lora_adapter_metadata"]
    assert metadata["ss_resolution"] == "256x1+512x2"


def test_checkpoint_steps_are_the_first_past_each_share(examples: list[Example]) -> None:
    plan = make_plan(examples, MixSettings({512: 1}, batch_size=4), scale=0.125, step=8, seed=0)
    for images in (1, 3, 10, 50):
        for count in (1, 2, 5):
            ends = checkpoint_steps(plan, BudgetSettings(images), count)
            assert ends == sorted(set(ends)) and 1 <= len(ends) <= count
            assert ends[-1] == len(list(plan.steps(images)))


@pytest.mark.slow
def test_a_folder_killed_at_any_moment_goes_on_to_the_same_end(
    run: Callable[..., Any], picture_folder: Path, tiny_flux: Path, tmp_path: Path
) -> None:
    whole = list(run("whole"))
    script = Path(__file__).parent / "killed_training.py"
    command = [sys.executable, str(script), str(tiny_flux), str(picture_folder), str(tmp_path / "killed")]
    process = subprocess.Popen(command, cwd=Path.cwd(), env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    deadline = time.monotonic() + 240
    while not list((tmp_path / "killed").glob("step_*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    goes_on = list(run("killed"))
    assert [asdict(c)["step"] for c in goes_on] == [c.step for c in whole]
    assert all(_equal(x, y) for x, y in zip(_weights(whole), _weights(goes_on), strict=True))
