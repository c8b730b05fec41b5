"""DoRA and LoKr as peft makes them, plugged in and out like our own LoRA layers.

peft wraps layers inside the model; here its layers are taken out again at once and handed over by name, so that the
base stays as it was and the loop need not know which kind it trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from peft import LoKrConfig, LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from trainer.seeds import derive_seed
from trainer.settings import Kind, LoraSettings

_NAME = "stylesweep"


def peft_config(settings: LoraSettings, layers: Sequence[str]) -> PeftConfig:
    """peft's settings of a LoRA on these layers."""
    alpha = settings.rank if settings.alpha is None else settings.alpha
    if settings.kind == Kind.lokr:
        return LoKrConfig(r=settings.rank, alpha=alpha, target_modules=list(layers))
    return LoraConfig(
        r=settings.rank, lora_alpha=alpha, target_modules=list(layers), use_dora=settings.kind == Kind.dora
    )


def inject_layers(
    transformer: nn.Module,
    config: PeftConfig,
    linears: Mapping[str, nn.Module],
    seed: int,
    device: torch.device | None = None,
) -> tuple[dict[str, nn.Module], dict[str, nn.Parameter]]:
    """peft's layers by the name of the linear they wrap, and their weights by the names of a file. The transformer is
    left as it was.

    Args:
        seed: of the first weights, which change nothing yet.
    """
    with torch.random.fork_rng():  # peft draws from the global generator
        torch.manual_seed(derive_seed("peft", seed))
        inject_adapter_in_model(config, transformer, adapter_name=_NAME)
    layers = {name: transformer.get_submodule(name) for name in linears}
    transformer.__dict__.pop("peft_config", None)
    set_modules(transformer, linears)
    weights: dict[str, nn.Parameter] = {}
    for name, layer in layers.items():
        assert isinstance(layer, BaseTunerLayer)
        for key, weight in layer.named_parameters():
            if f".{_NAME}" in key:
                where = device or weight.device
                weight.data = weight.data.to(where, torch.float32)
                weight.requires_grad_(True)
                weights[f"{name}.{_file_key(key)}"] = weight
    return layers, weights


def load_layers(
    transformer: nn.Module, config: PeftConfig, weights: Mapping[str, Tensor], strength: float
) -> dict[str, nn.Module]:
    """peft's layers with the weights of a file, to be plugged in for sampling.

    Args:
        weights: by the file's names without the prefix `transformer.`.

    Raises:
        KeyError: the file lacks a weight that the layers have.
    """
    assert config.target_modules is not None
    linears = {name: transformer.get_submodule(name) for name in sorted(config.target_modules)}
    layers, parameters = inject_layers(transformer, config, linears, seed=0)
    for name, parameter in parameters.items():
        parameter.data.copy_(weights[name])
        parameter.requires_grad_(False)
    for layer in layers.values():
        layer.scaling[_NAME] *= strength  # type: ignore[index, operator]
    return layers


def set_modules(root: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Put modules into their places by name."""
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        setattr(root.get_submodule(parent), child, module)


def _file_key(key: str) -> str:
    """As peft names a weight in a file: without the adapter's name, and a DoRA's length without `.weight`."""
    key = key.replace(f".{_NAME}", "")
    return key.removesuffix(".weight") if key.startswith("lora_magnitude_vector") else key
