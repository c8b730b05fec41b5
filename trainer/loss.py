"""How far a prediction is from its target: one function per choice, and the weight that masks give."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from trainer.flow import pack
from trainer.settings import Loss


def _mse(error: Tensor, delta: float) -> Tensor:
    return error.square()


def _huber(error: Tensor, delta: float) -> Tensor:
    """e^2 up to delta, 2 delta |e| - delta^2 beyond: twice Huber's, so that small errors weigh as with MSE."""
    return 2 * huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)


LOSSES: dict[Loss, Callable[[Tensor, float], Tensor]] = {Loss.mse: _mse, Loss.huber: _huber}


def picture_losses(loss: Loss, error: Tensor, *, delta: float, weight: Tensor | None) -> Tensor:
    """Mean loss of each picture, (N,).

    Args:
        error: prediction - target, (N, tokens, channels).
        weight: in [0, 1], of error's shape; what it hides counts as no error, as in kohya's scripts. None: 1.
    """
    each = LOSSES[loss](error, delta)
    return (each if weight is None else each * weight).mean(dim=(1, 2))


def packed_masks(
    masks: Mapping[tuple[int, int], Tensor], side: int, indices: Sequence[int], x: Tensor
) -> Tensor | None:
    """Weights (N, tokens, 4 C) of a batch from masks (1, h, w) by (side, index); None where none has a mask.

    Args:
        x: the batch's latents (N, C, h, w).
    """
    if not any((side, index) in masks for index in indices):
        return None
    whole = torch.ones_like(x[0, :1])
    stacked = torch.stack([masks.get((side, index), whole) for index in indices])
    return pack(stacked.expand_as(x))
