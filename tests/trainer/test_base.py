"""Finding and loading a base: what is missing is named with the way out, before torch."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainer.base import BaseError, component_ids, find_base, load_base, step_px
from trainer.flux import FluxBase
from trainer.settings import BaseSettings


def test_missing_weights_of_flux_name_licence_size_and_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BaseError) as caught:
        load_base(BaseSettings(path="black-forest-labs/FLUX.1-dev"))
    for part in ("base.path", "licence", "34 GB", "hf download black-forest-labs/FLUX.1-dev", str(tmp_path)):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("base", "token", "told", "not_told"),
    [
        ("black-forest-labs/FLUX.1-dev", None, ("accept its licence", "hf auth login"), ()),
        ("black-forest-labs/FLUX.1-dev", "hf_x", ("accept its licence",), ("hf auth login", "hf_x")),
        ("black-forest-labs/FLUX.2-klein-base-4B", None, ("Apache-2.0",), ("accept its licence", "hf auth login")),
        ("someone/a-flux", None, ("accept its licence", "hf auth login"), ()),
    ],
)
def test_only_what_is_still_to_be_done_is_asked_for(
    base: str, token: str | None, told: tuple[str, ...], not_told: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: token)
    with pytest.raises(BaseError) as caught:
        find_base(base)
    said = str(caught.value)
    assert f"hf download {base}" in said
    assert all(part in said for part in told) and not any(part in said for part in not_told)


def test_missing_weights_are_found_before_torch_is_imported() -> None:
    code = (
        "import sys\nfrom trainer import load_base, BaseError\nfrom trainer.settings import BaseSettings\n"
        "try: load_base(BaseSettings(path='black-forest-labs/FLUX.1-dev'))\n"
        "except BaseError: sys.exit('torch' in sys.modules)\nsys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", ["./nowhere", "/no/such/folder", "~/none", "nowhere", "a/b/c"])
def test_a_path_that_does_not_exist_is_named(path: str) -> None:
    with pytest.raises(BaseError, match=f"base.path.*{path}"):
        find_base(path)


def test_each_missing_part_is_named(tiny_flux: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseError, match=r"no model_index\.json"):
        find_base(str(tmp_path))
    broken = shutil.copytree(tiny_flux, tmp_path / "broken")
    (broken / "vae/diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(broken / "tokenizer_2")
    with pytest.raises(BaseError, match=r"incomplete.*tokenizer_2, vae"):
        find_base(str(broken))


def test_another_kind_of_pipeline_is_refused(tiny_flux: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_flux, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    index["transformer"] = ["diffusers", "UNet2DConditionModel"]
    (other / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(BaseError, match="not a Flux base: its transformer is UNet2DConditionModel"):
        find_base(str(other))


def test_identity_follows_the_content_of_each_part(tiny_flux: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_flux, tmp_path / "copy")
    assert component_ids(copy) == component_ids(tiny_flux)
    weights = copy / "vae/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    changed = {name for name, digest in component_ids(copy).items() if digest != component_ids(tiny_flux)[name]}
    assert changed == {"vae"}


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_this_machine_lacks_is_named(tiny_settings: BaseSettings, device: str) -> None:
    with pytest.raises(BaseError, match=f"base.device.*{device}"):
        load_base(BaseSettings(path=tiny_settings.path, device=device))


def test_the_base_is_frozen_and_knows_its_sizes(base: FluxBase, tiny_flux: Path) -> None:
    assert (base.vae_factor, base.step_px, base.latent_channels) == (4, 8, 16)
    assert step_px(tiny_flux) == base.step_px
    assert not any(weight.requires_grad for weight in base.transformer.parameters())
    assert not base.transformer.training


def test_bfloat16_weights_keep_the_vae_in_float32(tiny_settings: BaseSettings) -> None:
    settings = BaseSettings(**{**vars(tiny_settings), "dtype": "bfloat16"})
    loaded = load_base(settings)
    assert {weight.dtype for weight in loaded.transformer.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in loaded.vae.parameters()} == {torch.float32}
    assert loaded.encode_text(["a red heart"]).tokens.dtype == torch.bfloat16


def test_offloaded_encoders_give_the_same(base: FluxBase, tiny_settings: BaseSettings) -> None:
    loaded = load_base(BaseSettings(**{**vars(tiny_settings), "offload": True}))
    ours, theirs = loaded.encode_text(["a red heart"]), base.encode_text(["a red heart"])
    assert torch.equal(ours.tokens, theirs.tokens) and torch.equal(ours.pooled, theirs.pooled)


@pytest.mark.parametrize("damaged", ["vae/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json"])
def test_a_damaged_file_is_a_message_with_its_folder(
    damaged: str, tiny_flux: Path, tiny_settings: BaseSettings, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_flux, tmp_path / "flux")
    file = folder / damaged
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BaseError, match=r"flux cannot be loaded, a file may be damaged or half fetched \("):
        load_base(replace(tiny_settings, path=str(folder)))
