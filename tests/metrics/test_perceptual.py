"""LPIPS as vectors equals lpips; weights come from files, checked, never from a download."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

import lpips
import pytest
import torch
from safetensors.torch import save_file
from scenes import pictures

from metrics.images import ScoreError
from metrics.perceptual import Lpips, load_lpips, lpips_distances
from metrics.settings import LpipsNet, ScoreSettings


def test_squared_distances_of_vectors_are_what_lpips_computes(lpips_file):
    model = Lpips(str(lpips_file), side=64)
    first, second = pictures("flat", range(4)), pictures("hatch", range(4))
    direct = model.model(torch.stack(first), torch.stack(second), normalize=True).flatten()
    assert lpips_distances(model.vectors(first), model.vectors(second)).diagonal() == pytest.approx(
        direct.detach().numpy(), rel=1e-3
    )


def test_equal_pictures_are_nothing_apart(lpips_file):
    vectors = Lpips(str(lpips_file)).vectors(pictures("chalk", range(3), 80))
    found = lpips_distances(vectors, vectors)
    assert found.diagonal().max() < 1e-5 < found[0, 1:].min()


def test_pictures_are_taken_one_by_one_so_that_crops_of_photographs_need_not_all_be_there(lpips_file):
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def crops() -> Iterator[torch.Tensor]:
        nonlocal most
        for picture in pictures("chalk", range(12), 80):
            crop = picture.flip(-1)
            alive.append(weakref.ref(crop))
            most = max(most, sum(one() is not None for one in alive))
            yield crop

    model = Lpips(str(lpips_file), batch_size=5)
    found = model.vectors(crops())
    assert most <= 2
    assert torch.equal(found, model.vectors([picture.flip(-1) for picture in pictures("chalk", range(12), 80)]))


def test_every_tensor_of_the_file_is_in_the_model(lpips_file):
    saved = torch.load(lpips_file, weights_only=True)
    state = load_lpips(lpips_file, LpipsNet.squeeze).state_dict()
    assert all(torch.equal(state[name], saved[name]) for name in state)


def test_a_safetensors_file_is_read_like_a_pickle(lpips_file, tmp_path: Path):
    saved = torch.load(lpips_file, weights_only=True)
    save_file({name: tensor.clone() for name, tensor in saved.items()}, tmp_path / "lpips.safetensors")
    state = load_lpips(tmp_path / "lpips.safetensors", LpipsNet.squeeze).state_dict()
    assert all(torch.equal(state[name], saved[name]) for name in state)


def test_a_torchvision_trunk_file_is_mapped_onto_the_slices(tmp_path: Path):
    from torchvision.models import squeezenet1_1

    trunk = squeezenet1_1(weights=None).state_dict()
    torch.save(trunk, tmp_path / "squeezenet.pth")
    state = load_lpips(tmp_path / "squeezenet.pth", LpipsNet.squeeze).state_dict()
    assert torch.equal(state["net.slice2.3.squeeze.weight"], trunk["features.3.squeeze.weight"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packaged = lpips.LPIPS(net="squeeze", pnet_rand=True, verbose=False).state_dict()
    assert torch.equal(state["lin3.model.1.weight"], packaged["lin3.model.1.weight"])


def test_no_file_is_an_error_that_names_the_setting():
    with pytest.raises(ScoreError, match="lpips_weights"):
        Lpips("")
    with pytest.raises(ValueError, match=r"`lpips_weights`.*constraints"):
        ScoreSettings(lpips_weights="")
    with pytest.raises(ScoreError, match=r"nowhere\.pt"):
        Lpips("nowhere.pt")


def test_a_file_of_another_trunk_is_refused(lpips_file):
    with pytest.raises(ScoreError, match="does not fit lpips_net=alex"):
        load_lpips(lpips_file, LpipsNet.alex)


def test_a_file_with_half_a_trunk_is_refused(lpips_file, tmp_path: Path):
    saved = torch.load(lpips_file, weights_only=True)
    del saved[next(name for name in saved if name.startswith("net.slice4"))]
    torch.save(saved, tmp_path / "half.pt")
    with pytest.raises(ScoreError, match=r"net\.slice4.* is missing"):
        load_lpips(tmp_path / "half.pt", LpipsNet.squeeze)


def test_a_file_that_is_no_weights_file_is_refused(tmp_path: Path):
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("not a model")
        with pytest.raises(ScoreError, match="not a file of weights"):
            load_lpips(tmp_path / name, LpipsNet.squeeze)


def test_loading_leaves_the_global_random_state_alone(lpips_file):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_lpips(lpips_file, LpipsNet.squeeze)
    assert torch.equal(torch.rand(2), expected)
