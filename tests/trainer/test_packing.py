"""Weights packed layer by layer, as diffusers packs those of a folder."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from trainer.base import BaseError, load_base
from trainer.flux import FluxBase
from trainer.lora import LoraLinear
from trainer.packing import pack_linears
from trainer.sample import sample
from trainer.settings import BaseSettings, Dtype, Prompt, Quantize, SampleSettings


@pytest.mark.filterwarnings("ignore")  # of the libraries' own
def test_a_single_file_is_packed_as_a_folder_is(base: FluxBase, tiny_settings: BaseSettings, tmp_path: Path) -> None:
    """diffusers takes a single file for packed already and leaves its weights as they are without a word."""
    file = tmp_path / "flux.safetensors"
    save_file({name: weight.contiguous() for name, weight in base.transformer.state_dict().items()}, file)
    folder = replace(tiny_settings, dtype=Dtype.bfloat16, quantize=Quantize.int8)
    alone = replace(folder, path=str(file), parts=tiny_settings.path)
    if find_spec("torchao") is None:
        with pytest.raises(BaseError, match="torchao"):
            load_base(alone)
        return
    asked = [Prompt("a red heart", seed=1)], SampleSettings(steps=2)
    found = sample(load_base(alone), *asked)[0]
    assert torch.equal(found, sample(load_base(folder), *asked)[0])
    assert not torch.equal(found, sample(load_base(replace(alone, quantize=Quantize.none)), *asked)[0])


@pytest.mark.filterwarnings("ignore")  # of the library's own
def test_every_linear_layer_of_a_transformer_is_packed_in_nf4(tiny_settings: BaseSettings) -> None:
    pytest.importorskip("bitsandbytes")
    whole, packed = (load_base(tiny_settings) for _ in range(2))
    pack_linears(packed.transformer, Quantize.nf4, torch.float32, torch.device("cpu"))
    for name, layer in whole.transformer.named_modules():
        if isinstance(layer, torch.nn.Linear):
            found = packed.transformer.get_submodule(name)
            assert type(found).__name__ == "Linear4bit" and (found.bias is None) == (layer.bias is None)
    asked = [Prompt("a red heart", seed=1)], SampleSettings(steps=2)
    assert 0 < (sample(packed, *asked)[0] - sample(whole, *asked)[0]).abs().mean() < 0.1


@pytest.mark.filterwarnings("ignore")  # of the library's own
def test_a_lora_trains_beside_a_layer_in_nf4() -> None:
    """What a CPU can show of it: diffusers packs a whole transformer on a GPU only."""
    library = pytest.importorskip("bitsandbytes")
    generator = torch.Generator().manual_seed(0)
    whole = torch.nn.Linear(64, 32)
    packed = library.nn.Linear4bit(64, 32, compute_dtype=torch.float32, quant_type="nf4")
    packed.load_state_dict(whole.state_dict())
    packed = packed.to("cpu").requires_grad_(False)
    down, up = (torch.nn.Parameter(torch.randn(*size, generator=generator)) for size in ((4, 64), (32, 4)))
    x = torch.randn(2, 5, 64, generator=generator, requires_grad=True)
    found = LoraLinear(packed, down, up, 0.5)(x)
    expected = whole(x) + 0.5 * x @ down.T @ up.T
    assert (found - expected).abs().mean() < 0.1 * expected.abs().mean()
    found.square().sum().backward()
    assert x.grad is not None and all(weight.grad is not None and weight.grad.any() for weight in (down, up))
