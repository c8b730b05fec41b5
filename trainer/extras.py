"""Libraries that some settings need and a plain install lacks; all are asked for before anything heavy is imported."""

from importlib.util import find_spec

from trainer.settings import BaseSettings, OptimizerName, OptimizerSettings, Quantize

# setting's value -> the module it needs and the extra of this project that brings it
_OPTIMIZERS = {
    OptimizerName.adamw8bit: ("bitsandbytes", "memory"),
    OptimizerName.prodigy: ("prodigyopt", "prodigy"),
}
_QUANTIZERS = {Quantize.nf4: ("bitsandbytes", "memory"), Quantize.int8: ("torchao", "memory")}


def missing_extras(base: BaseSettings, optimizer: OptimizerSettings) -> list[str]:
    """What must be installed for these settings, one line each."""
    asked = [
        ("base.quantize", base.quantize, _QUANTIZERS.get(base.quantize)),
        ("train.optimizer.name", optimizer.name, _OPTIMIZERS.get(optimizer.name)),
    ]
    return [
        f"`{key}={value}` needs {need[0]}, which is not installed: pip install {need[0]}, or -e '.[{need[1]}]' here"
        for key, value, need in asked
        if need is not None and find_spec(need[0]) is None
    ]
