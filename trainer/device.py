"""Which device is computed on, and what a base needs of it. Torch is loaded only where it has to be asked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from trainer.base import BaseError
from trainer.settings import BaseSettings, Dtype, Quantize

if TYPE_CHECKING:
    import torch

_NAME = re.compile(r"auto|cpu|(cuda|mps|xpu)(:\d+)?")


def find_device(settings: BaseSettings) -> torch.device:
    """The device of a base.

    Raises:
        BaseError: no device has that name (found before torch is imported), this machine lacks it, or it lacks what the
            settings need.
    """
    device = named_device("base.device", settings.device)
    if settings.group_offload and device.type != "cuda":
        raise BaseError(
            f"`base.group_offload` streams blocks to a CUDA device, this base is on {device}: set it to false"
        )
    if settings.group_offload and settings.quantize == Quantize.int8:
        raise BaseError("`base.group_offload` cannot stream weights of torchao (base.quantize=int8): choose fp8 or nf4")
    if settings.quantize == Quantize.nf4 and device.type != "cuda":
        raise BaseError(
            f"`base.quantize=nf4` packs weights on a CUDA device, this base is on {device}: choose fp8 or none"
        )
    if settings.quantize == Quantize.fp8 and settings.dtype == Dtype.float32 and device.type == "cuda":
        raise BaseError("`base.quantize=fp8` computes in `base.dtype`: set base.dtype=bfloat16")
    return device


def named_device(key: str, name: str) -> torch.device:
    """The device that a setting names.

    Raises:
        BaseError: as `find_device`.
    """
    if not _NAME.fullmatch(name):
        raise BaseError(f"`{key}` must be auto, cpu, cuda or cuda:N, got {name}")
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BaseError(f"`{key}`={name}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device
