"""Stages `encoder` and `lpips`: the judges' networks, trained on pictures of every medium with their captions.

They may know the styles that are held out from the base: they judge, they do not draw. The first is an open_clip
model folder, the second the SqueezeNet trunk that lpips needs and does not ship.
"""

import json
from pathlib import Path

import lpips
import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F  # noqa: N812

from sandbox import checkpoint, text, words
from sandbox.media import MEDIA
from sandbox.world import Scene, draw, random_scene

SIDE, CONTEXT = 64, 32
ATTRIBUTES = ("subject", "colour", "place", "size", "background", "medium")


def model_config(vocab_size: int) -> dict:
    """open_clip's description of the model; `hf_tokenizer_name` makes it read the tokenizer from the same folder.

    A ResNet (CLIP's own): a transformer of the same cost named a third of the subjects only, because convolutions know
    already what it must learn from these few pictures, that a shape is the same shape wherever it lies.
    """
    return {
        "embed_dim": 96,
        "vision_cfg": {"image_size": SIDE, "layers": [1, 2, 2, 1], "width": 20, "head_width": 32},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": vocab_size, "width": 96, "heads": 3, "layers": 2,
                     "hf_tokenizer_name": "clip"},
    }  # fmt: skip


def world(count: int, seed: int) -> tuple[torch.Tensor, list[Scene]]:
    """Pictures of every medium, drawn at 64 px or drawn larger and shrunk: (N, 3, 64, 64) uint8, and their scenes."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    media, pictures, scenes = tuple(MEDIA), [], []
    for i in range(count):
        scene = random_scene(rng, medium=media[i % len(media)])
        side = int(rng.choice((64, 64, 96)))
        picture = Image.fromarray(draw(scene, side, side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pictures.append(np.asarray(picture))
        scenes.append(scene)
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), scenes


class _Heads(nn.Module):
    """Linear readers of a scene's attributes; they pull the features apart during training and are thrown away."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, len(text.ATTRIBUTES[a])) for a in ATTRIBUTES)

    def loss(self, x: torch.Tensor, scenes: list[Scene]) -> tuple[torch.Tensor, float]:
        """Mean cross-entropy over attributes, and the share of subjects read correctly."""
        total, right = torch.zeros(()), 0.0
        for name, head in zip(ATTRIBUTES, self.heads, strict=True):
            truth = torch.tensor([text.ATTRIBUTES[name].index(getattr(s, name)) for s in scenes])
            logits = head(x)
            total = total + F.cross_entropy(logits, truth) / len(ATTRIBUTES)
            if name == "subject":
                right = float((logits.argmax(1) == truth).float().mean())
        return total, right


def _batch(pixels: torch.Tensor, rng: np.random.Generator, size: int) -> tuple[torch.Tensor, np.ndarray]:
    rows = rng.integers(len(pixels), size=size)
    x = pixels[torch.from_numpy(rows)].float() / 255
    if rng.random() < 0.3:  # what a base draws is never as sharp as the world
        x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = (x + torch.from_numpy(rng.normal(0, 0.03, x.shape)).float()).clamp(0, 1)
    shift = tuple(int(v) for v in rng.integers(-2, 3, 2))
    return x.roll(shift, (2, 3)), rows


def _said(scene: Scene, rng: np.random.Generator) -> str:
    """Half of the captions name the bare subject, which is how leakage is asked for; half say most of what is seen."""
    if rng.random() < 0.4:
        return words.caption(scene, frozenset(("medium",) if rng.random() < 0.3 else ()))
    return words.caption(scene, frozenset(p for p in words.PARTS if p != "emotion" and rng.random() < 0.8))


def train_encoder(out: Path, work: Path, *, steps: int, seed: int, batch: int = 64) -> None:
    """Train the open_clip model and write its folder.

    An interrupted training continues from its checkpoint.
    """
    torch.manual_seed(seed)
    tokenizer = text.clip_tokenizer()
    config = model_config(len(tokenizer))
    model = open_clip.model.CLIP(
        embed_dim=config["embed_dim"], vision_cfg=config["vision_cfg"], text_cfg=dict(config["text_cfg"])
    )
    heads = _Heads(config["embed_dim"])
    pixels, scenes = world(20000, seed)
    optimiser = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=1e-3, weight_decay=0.05)
    start = 0
    if state := checkpoint.load(work / "encoder.pt"):
        for part, name in ((model, "model"), (heads, "heads"), (optimiser, "optimiser")):
            part.load_state_dict(state[name])
        start = state["step"]
    for step in range(start, steps):
        rng = np.random.default_rng([seed, step])
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 100, (steps - step) / (0.5 * steps))
        x, rows = _batch(pixels, rng, batch)
        shown = [scenes[i] for i in rows]
        captions = [_said(s, rng) for s in shown]
        tokens = tokenizer(
            captions, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt"
        ).input_ids
        with torch.autocast("cpu", torch.bfloat16):
            seen, read = model.encode_image(x * 2 - 1), model.encode_text(tokens)
        seen, read = seen.float(), read.float()
        same = torch.tensor([[a == b for b in captions] for a in captions]).float()
        target = same / same.sum(1, keepdim=True)  # equal captions are equally right
        logits = model.logit_scale.exp().clamp(max=100) * F.normalize(seen, dim=-1) @ F.normalize(read, dim=-1).T
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        read_off, right = heads.loss(seen, shown)
        optimiser.zero_grad()
        (contrast + read_off).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 99:
            print(f"encoder step {step + 1}/{steps} contrast {contrast.item():.3f} subject {right:.2f}", flush=True)
            parts = {"model": model.state_dict(), "heads": heads.state_dict(), "optimiser": optimiser.state_dict()}
            checkpoint.save(work / "encoder.pt", {**parts, "step": step + 1})
    out.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (out / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=1) + "\n", encoding="utf-8"
    )
    tokenizer.save_pretrained(out)
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, out / "open_clip_model.safetensors")


def train_lpips(out: Path, *, steps: int, seed: int, batch: int = 32) -> None:
    """Train lpips' SqueezeNet trunk to read scenes and write trunk and the package's heads as one state dict."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    metric = lpips.LPIPS(net="squeeze", pnet_rand=True, pnet_tune=True, verbose=False)
    trunk, heads = metric.net, _Heads(512)
    pixels, scenes = world(3000, seed + 1)
    optimiser = torch.optim.AdamW([*trunk.parameters(), *heads.parameters()], lr=1e-3, weight_decay=0.01)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 100, (steps - step) / (0.5 * steps))
        x, rows = _batch(pixels, rng, batch)
        last = trunk(metric.scaling_layer(x * 2 - 1))[-1]
        loss, right = heads.loss(last.mean(dim=(2, 3)), [scenes[i] for i in rows])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trunk.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 99:
            print(f"lpips step {step + 1}/{steps} loss {loss.item():.3f} subject {right:.2f}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in metric.state_dict().items()}, out / "lpips.safetensors")
