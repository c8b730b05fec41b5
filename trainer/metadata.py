"""What a LoRA file says about itself: the `modelspec.*` and `ss_*` keys that ComfyUI, Forge and model sites read.

Sources: ModelSpec 1.0.1 and the names kohya's scripts write.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

from trainer.plan import Plan
from trainer.settings import CaptionSettings, MixSettings, TrainSettings


def lora_metadata(
    *,
    captions: CaptionSettings,
    mix: MixSettings,
    settings: TrainSettings,
    plan: Plan,
    identity: Mapping[str, Any],
    architecture: str = "flux-1-dev",
) -> dict[str, str]:
    """Metadata of a training, apart from what changes with each step. All values are text."""
    digest = blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()
    comment = {"captions": asdict(captions), "mix": asdict(mix), "train": asdict(settings), "training": digest}
    largest = max(side.side for side in plan.sides)
    alpha = settings.lora.rank if settings.lora.alpha is None else settings.lora.alpha
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": f"stylesweep {captions.strategy} {_mix_text(mix)}",
        "modelspec.resolution": f"{largest}x{largest}",
        "modelspec.trigger_phrase": captions.trigger,
        "modelspec.prediction_type": "flow",
        "ss_v2": "False",
        "ss_base_model_version": architecture.replace("flux-1-dev", "flux1"),
        "ss_network_module": "networks.lora_flux",
        "ss_network_dim": str(settings.lora.rank),
        "ss_network_alpha": str(alpha),
        "ss_network_args": json.dumps(
            {"targets": settings.lora.targets, "layers": settings.lora.layers, "kind": settings.lora.kind}
        ),
        "ss_num_train_images": str(plan.images_per_epoch),
        "ss_resolution": _mix_text(mix),
        "ss_bucket_info": json.dumps(
            {side.side: {f"{b.width}x{b.height}": len(i) for b, i in side.buckets.items()} for side in plan.sides}
        ),
        "ss_learning_rate": str(settings.optimizer.learning_rate),
        "ss_optimizer": settings.optimizer.name,
        "ss_seed": str(settings.seed),
        "ss_caption_dropout_rate": str(captions.dropout),
        "ss_guidance_scale": "1.0",
        "ss_timestep_sampling": settings.timesteps,
        "ss_discrete_flow_shift": str(settings.shift),
        "ss_model_prediction_type": "raw",
        "ss_training_comment": json.dumps(comment),
    }


def _mix_text(mix: MixSettings) -> str:
    return "+".join(f"{side}x{repeats}" for side, repeats in sorted(mix.repeats.items()) if repeats)
