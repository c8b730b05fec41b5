"""The LoRA of a training: which layers, how it starts, how it is plugged in and out, and its file.

peft chooses the layers, makes the weights and names them. They are plugged in only while steps are computed, so that
whoever is handed a checkpoint finds the base as it was; a training that is dropped half-way leaves nothing behind.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import sqrt
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save
from torch import Tensor, nn

from trainer.cache import write_atomic
from trainer.seeds import derive_seed
from trainer.settings import LoraSettings, Targets

_NAME = "stylesweep"
_ATTENTION = r"attn\.(to_q|to_k|to_v|to_out\.0)"
_BOTH_STREAMS = rf"{_ATTENTION}|attn\.(add_[qkv]_proj|to_add_out)|ff(_context)?\.net\.(0\.proj|2)"
_BLOCK = r"(single_)?transformer_blocks\.\d+\.({})"
TARGETS = {
    Targets.attention: _ATTENTION,
    Targets.diffusers: _BOTH_STREAMS,
    Targets.all_linear: rf"{_BOTH_STREAMS}|proj_mlp|proj_out",
}


def target_layers(transformer: nn.Module, targets: Targets) -> list[str]:
    """Full names of the linear layers a choice of targets means, sorted."""
    pattern = re.compile(_BLOCK.format(TARGETS[targets]))
    return sorted(
        name
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and pattern.fullmatch(name)
    )


class LoraLinear(nn.Module):
    """base(x) + scale * up(down(x)), computed in x's dtype from float32 weights.

    Does what peft's layer does with fewer passes over memory: the addition happens inside the second product, and x is
    not cast to float32. With up = 0 it returns the base's output exactly.
    """

    def __init__(self, base: nn.Module, down: Tensor, up: Tensor, scale: float) -> None:
        super().__init__()
        self.base = base
        self.down = down  # (rank, in)
        self.up = up  # (out, rank)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        rows = x.reshape(-1, x.shape[-1])
        inner = rows @ self.down.to(x.dtype).T
        result = self.base(rows).addmm_(inner, self.up.to(x.dtype).T, alpha=self.scale)
        return result.view(*x.shape[:-1], -1)


@contextmanager
def plugged_in(transformer: nn.Module, layers: Mapping[str, LoraLinear]) -> Iterator[None]:
    """Have LoRA layers stand in for the linear layers they are made of."""
    _set_modules(transformer, layers)
    try:
        yield
    finally:
        _set_modules(transformer, {name: layer.base for name, layer in layers.items()})


class Lora:
    """A trainable LoRA for a frozen transformer; weights in float32 whatever the base's dtype."""

    def __init__(self, transformer: nn.Module, settings: LoraSettings, seed: int) -> None:
        self._transformer = transformer
        self.config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.rank if settings.alpha is None else settings.alpha,
            target_modules=target_layers(transformer, settings.targets),
        )
        with torch.random.fork_rng():  # peft draws first weights from the global generator; they are replaced below
            inject_adapter_in_model(self.config, transformer, adapter_name=_NAME)
        injected = {n: m for n, m in transformer.named_modules() if isinstance(m, LoraLayer)}
        transformer.__dict__.pop("peft_config", None)
        self.parameters: dict[str, nn.Parameter] = {}
        self._layers = {}
        for name, layer in injected.items():
            down, up = layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
            self.parameters |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
            self._layers[name] = LoraLinear(layer.get_base_layer(), down, up, layer.scaling[_NAME])
        _set_modules(transformer, {name: layer.base for name, layer in self._layers.items()})
        self._start(seed)

    def _start(self, seed: int) -> None:
        """A from U(-1/sqrt(in), 1/sqrt(in)), as nn.Linear starts; B zero, so that the first step is the base's."""
        for name, weight in self.parameters.items():
            weight.data = torch.zeros_like(weight.data, dtype=torch.float32)
            weight.requires_grad_(True)
            if ".lora_A." in name:
                generator = torch.Generator().manual_seed(derive_seed("lora", seed, name))
                bound = 1 / sqrt(weight.shape[1])
                weight.data.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))

    @contextmanager
    def plugged_in(self) -> Iterator[None]:
        """Have the LoRA act in the transformer."""
        with plugged_in(self._transformer, self._layers):
            yield

    def state(self) -> dict[str, Tensor]:
        """The weights by name, on the CPU."""
        return {name: weight.detach().cpu().contiguous() for name, weight in self.parameters.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put weights back that `state` returned."""
        for name, weight in self.parameters.items():
            weight.data.copy_(state[name])

    def write(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the PEFT layout that `FluxPipeline.load_lora_weights` reads, with what restores alpha there."""
        config = {key: sorted(v) if isinstance(v, set) else v for key, v in self.config.to_dict().items()}
        config = {f"transformer.{key}": value for key, value in config.items()}
        write_peft(path, {f"transformer.{name}": t for name, t in self.state().items()}, config, metadata)


def write_peft(
    path: Path, weights: Mapping[str, Tensor], config: Mapping[str, object], metadata: Mapping[str, str]
) -> None:
    """Write a LoRA file in diffusers' layout, at once or not at all."""
    packed = {"format": "pt", "lora_adapter_metadata": json.dumps(config, sort_keys=True), **metadata}
    write_atomic(path, save(dict(weights), metadata=packed))


def _set_modules(root: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        setattr(root.get_submodule(parent), child, module)
