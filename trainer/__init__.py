"""Pictures, captions and settings in; LoRA files and samples out.

The public names are loaded on first use (PEP 562), so that `import trainer` costs nothing: torch, diffusers and peft
take ten seconds to import, and a wrong setting must be refused before that. `trainer.sample` is the module; the
function is `trainer.sample.sample`.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "BaseError": "trainer.base",
    "Bucket": "trainer.buckets",
    "Checkpoint": "trainer.checkpoints",
    "DatasetError": "trainer.examples",
    "Example": "trainer.examples",
    "FluxBase": "trainer.flux",
    "LoraError": "trainer.export",
    "Plan": "trainer.plan",
    "PlanError": "trainer.plan",
    "ResumeError": "trainer.checkpoints",
    "TrainingError": "trainer.loop",
    "base_images": "trainer.sample",
    "caption": "trainer.captions",
    "load_base": "trainer.base",
    "make_plan": "trainer.plan",
    "read_examples": "trainer.examples",
    "read_picture": "trainer.pixels",
    "subject_noun": "trainer.rewriting",
    "to_kohya": "trainer.export",
    "to_peft": "trainer.export",
    "train": "trainer.loop",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
