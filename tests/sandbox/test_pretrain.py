"""Pretraining continues from its checkpoint to the same end."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sandbox import checkpoint, flow

SMALL = flow.Course(
    "small",
    (
        flow.Phase(0.5, {(32, 32): 1.0}, batch={(32, 32): 3}),
        flow.Phase(1.01, {(48, 72): 0.5, (72, 48): 0.5}, guided=True, batch={(48, 72): 2, (72, 48): 2}),
    ),
)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sandbox's text encoders and VAE without a transformer, and pools of six pictures."""
    torch.set_num_threads(1)
    monkeypatch.setattr(flow, "POOLS", dict.fromkeys(flow.POOLS, 6))
    folder = tmp_path / "base"
    shutil.copytree("sandbox/weights/base", folder, ignore=shutil.ignore_patterns("transformer"))
    return folder


def _weights(work: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.load(work / "small.pt")
    assert state is not None
    return dict(state["model"])


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # torch says that RMS norm in autocast is not fused
def test_an_interrupted_pretraining_ends_bit_equal_to_an_uninterrupted_one(base: Path, tmp_path: Path) -> None:
    flow.train(base, tmp_path / "whole", SMALL, steps=4, seed=0)
    flow.train(base, tmp_path / "parts", SMALL, steps=4, seed=0, stop_at=3)
    flow.Pretraining(
        base, tmp_path / "parts", SMALL, steps=4, seed=0, peak_lr=2e-3
    ).save()  # what a restart reads it writes
    flow.train(base, tmp_path / "parts", SMALL, steps=4, seed=0)
    whole, parts = _weights(tmp_path / "whole"), _weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.pt", {"step": 1})
    (tmp_path / "a.tmp").write_bytes(b"a write that was cut off")
    assert checkpoint.load(tmp_path / "a.pt") == {"step": 1}
    assert checkpoint.load(tmp_path / "b.pt") is None


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_a_refinement_starts_from_the_weights_that_are_there(base: Path, tmp_path: Path) -> None:
    flow.train(base, tmp_path / "first", SMALL, steps=2, seed=0)
    refine = flow.Course("refine", SMALL.phases, from_weights=True)
    run = flow.Pretraining(base, tmp_path / "second", refine, steps=2, seed=0, peak_lr=1e-3)
    exported = load_file(base / "transformer" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(run.model.state_dict()[name].bfloat16(), exported[name]) for name in exported)
