"""What settings need beside themselves: libraries that a plain install lacks, and other settings; all of it is known
before anything heavy is imported.
"""

import os
from importlib.util import find_spec
from shutil import which

from trainer.settings import BaseSettings, Kind, OptimizerName, OptimizerSettings, Quantize, TrainSettings

# setting's value -> the module it needs and the extra of this project that brings it
_OPTIMIZERS = {
    OptimizerName.adamw8bit: ("bitsandbytes", "memory"),
    OptimizerName.prodigy: ("prodigyopt", "prodigy"),
}
_COMPILERS = ("g++", "clang++", "c++")
_QUANTIZERS = {Quantize.nf4: ("bitsandbytes", "memory"), Quantize.int8: ("torchao", "memory")}


def missing_extras(base: BaseSettings, optimizer: OptimizerSettings) -> list[str]:
    """What must be installed for these settings, one line each."""
    asked = [
        ("base.quantize", base.quantize, _QUANTIZERS.get(base.quantize)),
        ("train.optimizer.name", optimizer.name, _OPTIMIZERS.get(optimizer.name)),
    ]
    missing = [
        f"`{key}={value}` needs {need[0]}, which is not installed: pip install {need[0]}, or -e '.[{need[1]}]' here"
        for key, value, need in asked
        if need is not None and find_spec(need[0]) is None
    ]
    own = os.environ.get("CXX")  # which torch would take
    if base.compile and not any(map(which, [own] if own else _COMPILERS)):
        missing.append("`base.compile=true` needs a C++ compiler: apt install g++, or name yours in CXX")
    return missing


def unusable_together(base: BaseSettings, train: TrainSettings) -> list[str]:
    """Which settings cannot be had at once, and the way out, one line each."""
    faults = []
    if base.group_offload and not (train.gradient_checkpointing and train.checkpointed_share == 1):
        faults.append(
            "`base.group_offload` saves nothing without `train.gradient_checkpointing=true` and"
            " `train.checkpointed_share=1`: the backward pass would keep every block's weights"
        )
    if base.quantize == Quantize.fp8 and train.lora.kind == Kind.dora:
        faults.append(
            "`train.lora.kind=dora` measures the base's weights, which `base.quantize=fp8` keeps in a format that"
            " cannot be added: choose base.quantize=nf4, int8 or none, or train.lora.kind=lora"
        )
    if base.quantize == Quantize.nf4 and train.lora.kind == Kind.lokr:
        faults.append(
            "`train.lora.kind=lokr` takes the shape of the base's weights, which `base.quantize=nf4` packs two to a"
            " byte: choose base.quantize=int8, fp8 or none, or train.lora.kind=lora"
        )
    if base.group_offload and base.compile:
        faults.append(
            "`base.compile` takes blocks that stay on the device, `base.group_offload` moves them: set one to false"
        )
    if base.group_offload and train.lora.kind == Kind.dora:
        faults.append(
            "`train.lora.kind=dora` measures the base's weights, which `base.group_offload` keeps off the device:"
            " choose train.lora.kind=lora, or base.group_offload=false"
        )
    return faults
