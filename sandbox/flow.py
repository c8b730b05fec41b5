"""Stage `base`: pretrain the small Flux transformer on the world, then teach it guidance.

Rectified flow as in Flux (sigma 1 is noise, the target is noise - data). What makes it learn in an hour on two cores:
few tokens first (side 256 is 16 tokens), subjects that fill the frame, a loss that looks harder at the subject, text
encoders that are ready, Muon for the matrices. In the last phase the guidance embedding learns what classifier-free
guidance would have done ("model guidance": the data target plus (g - 1) times the difference of the model's own
conditional and unconditional predictions; Tang et al. 2025, arXiv 2502.12154), so that sampling takes one forward.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from sandbox import checkpoint, pool, text, words

CONFIG = {
    "patch_size": 1, "in_channels": 64, "num_layers": 2, "num_single_layers": 3, "attention_head_dim": 32,
    "num_attention_heads": 6, "joint_attention_dim": text.WIDTH, "pooled_projection_dim": text.WIDTH,
    "guidance_embeds": True, "axes_dims_rope": (8, 12, 12),
}  # fmt: skip
POOLS = {(32, 32): 14000, (64, 64): 14000, (48, 72): 2000, (72, 48): 2000, (96, 96): 1500, (128, 128): 1500}
EMPTY_SHARE = 0.08
INDEX = {
    "_class_name": "FluxPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "image_encoder": [None, None],
    "feature_extractor": [None, None],
}


@dataclass(frozen=True)
class Phase:
    """A stretch of training: until `end` (share of all steps), sizes with their odds and batch, guidance or not."""

    end: float
    odds: dict[tuple[int, int], float]
    guided: bool = False
    batch: dict[tuple[int, int], int] = field(
        default_factory=lambda: {
            (32, 32): 64, (64, 64): 40, (48, 72): 40, (72, 48): 40, (96, 96): 20, (128, 128): 12,
        }
    )  # fmt: skip


_MIXED = {(64, 64): 0.78, (32, 32): 0.08, (48, 72): 0.05, (72, 48): 0.05, (96, 96): 0.04}
_EVERY_SIZE = {
    (32, 32): 0.12, (64, 64): 0.5, (48, 72): 0.1, (72, 48): 0.1, (96, 96): 0.12, (128, 128): 0.06,
}  # fmt: skip


@dataclass(frozen=True)
class Course:
    """A training from start to end: its name (of the checkpoint too), its phases, and what it starts from."""

    name: str
    phases: tuple[Phase, ...]
    from_weights: bool = False  # start from the exported transformer instead of from nothing


BASE = Course(
    "base",
    (
        Phase(0.36, {(32, 32): 1.0}),
        Phase(0.70, {(64, 64): 0.92, (32, 32): 0.08}),
        Phase(0.82, _MIXED),
        Phase(1.01, _MIXED, guided=True),
    ),
)
# Goes on from the weights that are committed, on a machine that has no checkpoint of theirs.
REFINE = Course("refine", (Phase(0.66, _EVERY_SIZE), Phase(1.01, _EVERY_SIZE, guided=True)), from_weights=True)

# A shape learnt at side 512 must be learnt again at 768 and 1024: guided from the start, so that guidance is not lost.
# Taken again with another seed, it draws pools of its own: at 1024 a base soon knows 1,000 pictures by heart.
_LARGE_SIDES = {
    (32, 32): 0.08, (64, 64): 0.22, (48, 72): 0.12, (72, 48): 0.10, (96, 96): 0.14, (128, 128): 0.34,
}  # fmt: skip
SIDES = Course("sides", (Phase(1.01, _LARGE_SIDES, guided=True),), from_weights=True)


class Conditioner:
    """The frozen text encoders: captions to (states, pooled), as the Flux pipeline computes them."""

    def __init__(self, base: Path) -> None:
        self.clip_tok = CLIPTokenizer.from_pretrained(base / "tokenizer")
        self.t5_tok = T5Tokenizer.from_pretrained(base / "tokenizer_2")
        self.clip = CLIPTextModel.from_pretrained(base / "text_encoder", dtype=torch.float32).eval()
        self.t5 = T5EncoderModel.from_pretrained(base / "text_encoder_2", dtype=torch.float32).eval()

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.t5(text.t5_tokens(self.t5_tok, captions)).last_hidden_state, self.pooled(captions)

    @torch.no_grad()
    def pooled(self, captions: list[str]) -> torch.Tensor:
        """(N, width) pooled vectors of CLIP's text encoder."""
        vectors: torch.Tensor = self.clip(text.clip_tokens(self.clip_tok, captions)).pooler_output
        return vectors


def pack(z: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w) latents to (N, h/2 * w/2, 4C) tokens, in Flux's order."""
    n, c, h, w = z.shape
    return z.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, c * 4)


def image_ids(height: int, width: int) -> torch.Tensor:
    """(tokens, 3) positions of a picture of `height` × `width` px."""
    y, x = torch.meshgrid(torch.arange(height // 8), torch.arange(width // 8), indexing="ij")
    return torch.stack([torch.zeros_like(y), y, x], -1).reshape(-1, 3).float()


@dataclass
class Latents:
    """A pool behind the VAE: tokens (N, T, 64) bf16, per-token weights (N, T, 64), scenes."""

    tokens: torch.Tensor
    weights: torch.Tensor
    scenes: list
    ids: torch.Tensor


@torch.no_grad()
def encode_pool(work: Path, vae: AutoencoderKL, size: tuple[int, int], seed: int) -> Latents:
    """Encode a pool once; the file is keyed by the VAE's scaling factor so that another VAE's latents are not read."""
    width, height = size
    drawn = pool.load(work, width, height, POOLS[size], seed)
    factor, shift = vae.config.scaling_factor, vae.config.shift_factor
    path = work / f"latents_{width}x{height}_{len(drawn.scenes)}_{seed}_{factor:.6f}.pt"
    if not path.exists():
        tokens = []
        for start in range(0, len(drawn.pictures), 100):
            x = torch.from_numpy(drawn.pictures[start : start + 100]).float().div(127.5).sub(1).permute(0, 3, 1, 2)
            with torch.autocast("cpu", torch.bfloat16):
                z = vae.encode(x).latent_dist.mode()
            tokens.append(pack((z.float() - shift) * factor).bfloat16())
        checkpoint.save(path, {"tokens": torch.cat(tokens)})
    mask = torch.from_numpy(drawn.masks).float().div(255)[:, None].expand(-1, 16, -1, -1)
    weights = pack(1 + 4 * mask)
    weights = weights / weights.mean(dim=(1, 2), keepdim=True)
    state = checkpoint.load(path)
    assert state is not None
    return Latents(state["tokens"], weights.bfloat16(), drawn.scenes, image_ids(height, width))


def optimisers(model: FluxTransformer2DModel, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices (not the modulation: one row a sample), AdamW for everything else."""
    matrices: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, p in model.named_parameters():
        inside = "transformer_blocks" in name and p.ndim == 2 and "norm" not in name
        (matrices if inside else rest).append(p)
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def rank() -> int:
    """Number of this process among those that train together (torchrun); 0 where it trains alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def average_gradients(model: torch.nn.Module) -> None:
    """Replace every gradient by the mean over the processes that train together."""
    if not dist.is_initialized():
        return
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.ravel() for g in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def captions_for(scenes: list, rng: np.random.Generator) -> list[str]:
    return ["" if rng.random() < EMPTY_SHARE else words.random_caption(s, rng) for s in scenes]


class Pretraining:
    """The state of a base in the making: model, moving average, optimisers, step."""

    def __init__(self, base: Path, work: Path, course: Course, *, steps: int, seed: int, peak_lr: float) -> None:
        torch.manual_seed(seed)
        self.phases, self.file = course.phases, work / f"{course.name}.pt"
        self.work, self.steps, self.seed, self.peak_lr, self.step = work, steps, seed, peak_lr, 0
        self.condition = Conditioner(base)
        self.vae = AutoencoderKL.from_pretrained(base / "vae", dtype=torch.float32).eval()
        self.model = FluxTransformer2DModel(**CONFIG)
        for block in (*self.model.transformer_blocks, *self.model.single_transformer_blocks):
            for norm in (block.norm,) if hasattr(block, "norm") else (block.norm1, block.norm1_context):
                torch.nn.init.zeros_(norm.linear.weight)  # adaLN-zero: every block starts as the identity
                torch.nn.init.zeros_(norm.linear.bias)
        torch.nn.init.zeros_(self.model.proj_out.weight)
        if course.from_weights:
            made = FluxTransformer2DModel.from_pretrained(base / "transformer", dtype=torch.float32)
            self.model.load_state_dict(made.state_dict())
        self.average = FluxTransformer2DModel(**CONFIG)
        self.average.load_state_dict(self.model.state_dict())
        self.optimisers = optimisers(self.model, peak_lr)
        self.pools: dict[tuple[int, int], Latents] = {}
        if state := checkpoint.load(self.file):
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            for o, s in zip(self.optimisers, state["optimisers"], strict=True):
                o.load_state_dict(s)
            self.step = state["step"]

    def save(self) -> None:
        checkpoint.save(
            self.file,
            {"model": self.model.state_dict(), "average": self.average.state_dict(), "step": self.step,
             "optimisers": [o.state_dict() for o in self.optimisers]},
        )  # fmt: skip

    def pool(self, size: tuple[int, int]) -> Latents:
        if size not in self.pools:
            self.pools[size] = encode_pool(self.work, self.vae, size, self.seed)
        return self.pools[size]

    def lr(self) -> float:
        return self.peak_lr * min(1, (self.step + 1) / 150, (self.steps - self.step) / (0.35 * self.steps))

    def _predict(
        self,
        model: FluxTransformer2DModel,
        x: torch.Tensor,
        sigma: torch.Tensor,
        said: tuple[torch.Tensor, torch.Tensor],
        guidance: torch.Tensor,
        ids: torch.Tensor,
    ) -> torch.Tensor:
        states, pooled = said
        # the flash kernel's backward on CPUs costs more than plain products at these few tokens
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            velocity: torch.Tensor = model(
                hidden_states=x, timestep=sigma, guidance=guidance, pooled_projections=pooled,
                encoder_hidden_states=states, txt_ids=torch.zeros(states.shape[1], 3), img_ids=ids, return_dict=False,
            )[0]  # fmt: skip
        return velocity.float()

    def loss(self) -> torch.Tensor:
        """The loss of this step's batch; everything random about it follows from (seed, step, rank).

        The size follows from (seed, step) alone, so that processes that train together have steps of equal cost.
        """
        phase = next(p for p in self.phases if self.step / self.steps < p.end)
        sizes = list(phase.odds)
        chosen = np.random.default_rng([self.seed, self.step]).choice(len(sizes), p=list(phase.odds.values()))
        size = sizes[int(chosen)]
        rng = np.random.default_rng([self.seed, self.step, 1 + rank()])
        g = torch.Generator().manual_seed((self.seed * 1_000_003 + self.step) * 64 + rank())
        data, batch = self.pool(size), phase.batch[size]
        rows = torch.from_numpy(rng.integers(len(data.scenes), size=batch))
        x0 = data.tokens[rows].float()
        said = self.condition(captions_for([data.scenes[i] for i in rows.tolist()], rng))
        # the same noise hides less of a larger picture (Esser et al. 2024, arXiv 2403.03206, eq. 23)
        shift = max(0.0, 0.5 * math.log(x0.shape[1] / 64))
        sigma = torch.sigmoid(torch.randn(batch, generator=g) * 1.1 + 0.4 + shift)
        noise = torch.randn(x0.shape, generator=g)
        x = torch.lerp(x0, noise, sigma[:, None, None])
        target, guidance = noise - x0, torch.ones(batch)
        if phase.guided:
            guidance, target = self._guide(x, sigma, said, target, data.ids, g)
        v = self._predict(self.model, x, sigma, said, guidance, data.ids)
        return ((v - target).square() * data.weights[rows].float()).mean()

    @torch.no_grad()
    def _guide(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        said: tuple[torch.Tensor, torch.Tensor],
        target: torch.Tensor,
        ids: torch.Tensor,
        g: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Targets for guidance 1..5 from the moving average's own two predictions, for the first 60 % of the batch.

        The rest stays at guidance 1: it costs no second forward, and the model must keep its own distribution.
        """
        n = round(0.6 * len(x))
        guidance = torch.cat([1 + 4 * torch.rand(n, generator=g), torch.ones(len(x) - n)])
        x, sigma, states, pooled = x[:n], sigma[:n], said[0][:n], said[1][:n]
        empty_states, empty_pooled = self.condition([""])
        both = self._predict(
            self.average, torch.cat([x, x]), torch.cat([sigma, sigma]),
            (torch.cat([states, empty_states.expand(n, -1, -1)]), torch.cat([pooled, empty_pooled.expand(n, -1)])),
            torch.ones(2 * n), ids,
        )  # fmt: skip
        asked, unasked = both.chunk(2)
        guided = target[:n] + (guidance[:n] - 1)[:, None, None] * (asked - unasked)
        return guidance, torch.cat([guided, target[n:]])

    def advance(self) -> float:
        """One optimiser step."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.lr()
        loss = self.loss()
        loss.backward()
        average_gradients(self.model)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        decay = min(0.9985, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        self.step += 1
        return loss.item()


def train(
    base: Path,
    work: Path,
    course: Course = BASE,
    *,
    steps: int,
    seed: int,
    peak_lr: float = 2e-3,
    stop_at: int = 0,
) -> None:
    """Pretrain for `steps` steps in all (or until `stop_at`), saving and exporting the average every 250."""
    run = Pretraining(base, work, course, steps=steps, seed=seed, peak_lr=peak_lr)
    seen: list[float] = []
    while run.step < (stop_at or steps):
        seen.append(run.advance())
        if run.step % 50 == 0 and rank() == 0:
            print(f"{course.name} step {run.step}/{steps} loss {np.mean(seen):.4f} lr {run.lr():.1e}", flush=True)
            seen.clear()
        if run.step % 250 == 0 and rank() == 0:
            run.save()
            export(run.average, base)
    if rank() == 0:
        run.save()
        export(run.average, base)


def export(model: FluxTransformer2DModel, base: Path) -> None:
    """Write the transformer in bf16 beside the other parts, with FLUX.1-dev's scheduler settings and the index."""
    FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15,
        base_image_seq_len=256, max_image_seq_len=4096,
    ).save_pretrained(base / "scheduler")  # fmt: skip
    (base / "model_index.json").write_text(json.dumps(INDEX, indent=1) + "\n", encoding="utf-8")
    half = FluxTransformer2DModel(**CONFIG)
    half.load_state_dict(model.state_dict())
    half.to(torch.bfloat16).save_pretrained(base / "transformer")
