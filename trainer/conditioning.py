"""What the blocks are told of time, guidance and text, computed once for drawings that come again.

A sampler takes the same noise levels through the same prompts in every trial, and what the adaLN layers and the text
projections make of them is the base's own: no LoRA of a style acts there. Where one does, everything is computed anew.
A training has nothing of the kind, as its noise levels never come twice.
"""

import re
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from trainer.lora import plugged_in

_MOST_BYTES = 2**30  # 16 prompts in 28 steps of FLUX.1-dev


class Conditioning:
    """Outputs of the layers that see no picture.

    Args:
        layers: patterns of their names in the transformer, one for each thing that they may depend on.
    """

    def __init__(self, transformer: nn.Module, *layers: str, most_bytes: int = _MOST_BYTES) -> None:
        self._transformer = transformer
        named = dict(transformer.named_modules())
        self._kept = {
            name: _Kept(self, part, name, named[name])
            for part, pattern in enumerate(layers)
            for name in named
            if re.fullmatch(pattern, name)
        }
        inside = tuple(f"{name}." for name in self._kept)
        self._own = {name: module for name, module in named.items() if name in self._kept or name.startswith(inside)}
        self._left = most_bytes
        self._all: dict[Hashable, dict[str, Tensor]] = {}
        self._asked: tuple[Hashable, ...] = ()

    @contextmanager
    def once(self, *asked: Hashable) -> Iterator[None]:
        """Have the layers of each pattern computed if it is the first time that this is asked of them.

        Does nothing while a layer is not the base's own, as when a LoRA acts there.
        """
        if any(self._transformer.get_submodule(name) is not module for name, module in self._own.items()):
            yield
            return
        self._asked = asked
        with plugged_in(self._transformer, self._kept):
            yield

    def output(self, part: int, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """What a layer makes of what is asked now.

        Remembered as long as there is room, so that what is asked in turn does not push itself out.
        """
        outputs = self._all.setdefault(self._asked[part], {})
        if name in outputs:
            return outputs[name]
        computed = compute()
        if computed.nbytes <= self._left:
            self._left -= computed.nbytes
            outputs[name] = computed
        return computed


class _Kept(nn.Module):
    """Stands in for a layer."""

    def __init__(self, conditioning: Conditioning, part: int, name: str, layer: nn.Module) -> None:
        super().__init__()
        self._output = partial(conditioning.output, part, name)
        self.layer = layer

    def forward(self, *inputs: Tensor) -> Tensor:
        """The layer's output."""
        return self._output(lambda: self.layer(*inputs))
