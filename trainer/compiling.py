"""Blocks compiled by torch: minutes when a study begins, against a little time in every step.

Blocks of one kind share what is compiled, so FLUX.1's 57 cost what a few do. It is made again for a second size, which
then serves for all others; for every rank, as weights have fixed shapes; and for drawing.
"""

from itertools import chain

import torch
from torch import nn

_MOST = 64  # versions of a block, the sizes, ranks and uses of a study; torch gives up after 8 and computes as before


def compile_blocks(transformer: nn.Module, backend: str = "inductor") -> None:
    """Have the blocks of a Flux compiled when they are first called, with the LoRA that is plugged in then.

    Args:
        backend: torch's name for who makes the code.
    """
    torch._dynamo.config.recompile_limit = _MOST
    for block in chain(transformer.transformer_blocks, transformer.single_transformer_blocks):  # type: ignore[arg-type]
        block.compile(backend=backend)
