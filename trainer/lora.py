"""The LoRA of a training: which layers, how it starts, how it is plugged in and out, and its file.

Names and file are peft's. A plain LoRA is computed by a layer of ours, which is faster; DoRA and LoKr by peft's own
(`trainer.peft_layers`). Both are plugged in only while steps are computed, so that whoever is handed a checkpoint finds
the base as it was; a training that is dropped half-way leaves nothing behind.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import sqrt
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig
from torch import Generator, Tensor, nn

from trainer.base import COMPONENTS
from trainer.cache import file_bytes, write_atomic
from trainer.peft_layers import inject_layers, peft_config, set_modules
from trainer.seeds import derive_seed
from trainer.settings import FileDtype, Kind, LoraSettings
from trainer.targets import layer_widths


def target_layers(transformer: nn.Module, lora: LoraSettings) -> list[str]:
    """Full names of the linear layers that get a LoRA, sorted.

    Raises:
        TargetsError: a pattern of `lora.layers` matches none.
    """
    family = next(family for family, parts in COMPONENTS.items() if parts["transformer"] == type(transformer).__name__)
    blocks = len(transformer.transformer_blocks), len(transformer.single_transformer_blocks)  # type: ignore[arg-type]
    return list(layer_widths(family, *blocks, lora))


class LoraLinear(nn.Module):
    """base(x) + scale * up(down(x)), computed in x's dtype from float32 weights.

    Does what peft's layer does with fewer passes over memory: the addition happens inside the second product, and x is
    not cast to float32. With up = 0 it returns the base's output exactly.
    """

    def __init__(self, base: nn.Module, down: Tensor, up: Tensor, scale: float) -> None:
        super().__init__()
        self.base = base
        # A pair, which torch does not count among the module's weights: who moves, streams or packs the frozen blocks
        # leaves it alone.
        self.pair = (down, up)  # (rank, in), (out, rank)
        self.scale = scale
        self.kept: Tensor | None = None  # (N, rank): what rank dropout leaves of each picture's inner channels

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        down, up = self.pair
        rows = x.reshape(-1, x.shape[-1])
        inner = rows @ down.to(x.dtype).T
        if self.kept is not None:
            inner = (inner.view(len(x), -1, inner.shape[-1]) * self.kept[:, None].to(x.dtype)).view(inner.shape)
        result = self.base(rows).addmm_(inner, up.to(x.dtype).T, alpha=self.scale)
        return result.view(*x.shape[:-1], -1)


@contextmanager
def plugged_in(transformer: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Have LoRA layers stand in for the linear layers they are made of."""
    bases = {name: transformer.get_submodule(name) for name in layers}
    set_modules(transformer, layers)
    try:
        yield
    finally:
        set_modules(transformer, bases)


class Lora:
    """A trainable LoRA for a frozen transformer; weights in float32 whatever the base's dtype."""

    def __init__(
        self, transformer: nn.Module, settings: LoraSettings, seed: int, device: torch.device | None = None
    ) -> None:
        self._transformer = transformer
        self._settings = settings
        linears = {name: transformer.get_submodule(name) for name in target_layers(transformer, settings)}
        self.config: PeftConfig = peft_config(settings, list(linears))
        self.parameters: dict[str, nn.Parameter] = {}
        self._layers: Mapping[str, nn.Module]
        if settings.kind == Kind.lora:
            self._layers = self._plain_layers(linears, device)
            self._start(seed)
        else:
            self._layers, self.parameters = inject_layers(transformer, self.config, linears, seed, device)

    def _plain_layers(self, linears: Mapping[str, nn.Module], device: torch.device | None) -> dict[str, nn.Module]:
        assert isinstance(self.config, LoraConfig)
        rank = self.config.r
        layers: dict[str, nn.Module] = {}
        for name, linear in linears.items():
            assert isinstance(linear, nn.Linear)
            where = device or next(linear.parameters()).device
            down = nn.Parameter(torch.zeros(rank, linear.in_features, device=where))
            up = nn.Parameter(torch.zeros(linear.out_features, rank, device=where))
            self.parameters |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
            layers[name] = LoraLinear(linear, down, up, self.config.lora_alpha / rank)
        return layers

    def _start(self, seed: int) -> None:
        """A from U(-1/sqrt(in), 1/sqrt(in)), as nn.Linear starts; B zero, so that the first step is the base's."""
        for name, weight in self.parameters.items():
            if ".lora_A." in name:
                generator = torch.Generator().manual_seed(derive_seed("lora", seed, name))
                bound = 1 / sqrt(weight.shape[1])
                weight.data.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))

    def drop_ranks(self, pictures: int, generator: Generator) -> None:
        """Draw which inner channels each of the next batch's pictures goes without; the others grow to make up."""
        rate = self._settings.rank_dropout
        if rate:
            for layer in self._layers.values():
                assert isinstance(layer, LoraLinear)
                down = layer.pair[0]
                kept = torch.rand(pictures, down.shape[0], generator=generator) >= rate
                layer.kept = (kept / (1 - rate)).to(down.device)

    def keep_ranks(self) -> None:
        """Have all inner channels act again."""
        for layer in self._layers.values():
            layer.kept = None  # type: ignore[assignment]

    @contextmanager
    def plugged_in(self) -> Iterator[None]:
        """Have the LoRA act in the transformer."""
        with plugged_in(self._transformer, self._layers):
            try:
                yield
            finally:
                self.keep_ranks()

    def state(self) -> dict[str, Tensor]:
        """The weights by name, on the CPU."""
        return {name: weight.detach().cpu().contiguous() for name, weight in self.parameters.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put weights back that `state` returned."""
        for name, weight in self.parameters.items():
            weight.data.copy_(state[name])

    @contextmanager
    def standing_in(self, weights: Mapping[str, Tensor] | None) -> Iterator[None]:
        """Have other weights, such as their average, in place of the trained ones; None: the trained ones."""
        if weights is None:
            yield
            return
        trained = {
            name: weight.detach().clone() for name, weight in self.parameters.items()
        }  # `state` is no copy on a CPU
        self.load(weights)
        try:
            yield
        finally:
            self.load(trained)

    def write(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the PEFT layout that `FluxPipeline.load_lora_weights` reads, with what restores alpha there."""
        config = {key: sorted(v) if isinstance(v, set) else v for key, v in self.config.to_dict().items()}
        config = {f"transformer.{key}": value for key, value in config.items()}
        dtype = file_dtype(self._settings.file_dtype)
        write_peft(path, {f"transformer.{name}": t.to(dtype) for name, t in self.state().items()}, config, metadata)


def file_dtype(dtype: FileDtype) -> torch.dtype:
    """torch's name for it."""
    return {FileDtype.float32: torch.float32, FileDtype.bfloat16: torch.bfloat16, FileDtype.float16: torch.float16}[
        dtype
    ]


def write_peft(
    path: Path, weights: Mapping[str, Tensor], config: Mapping[str, object], metadata: Mapping[str, str]
) -> None:
    """Write a LoRA file in diffusers' layout, at once or not at all."""
    packed = {"format": "pt", "lora_adapter_metadata": json.dumps(config, sort_keys=True), **metadata}
    write_atomic(path, file_bytes(weights, packed))
