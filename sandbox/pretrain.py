"""Make the sandbox's weights: `python -m sandbox.pretrain STAGE`; a stage that was interrupted continues.

Stages in order: `vae`, `text`, `base`, `encoder`, `lpips`; `refine` goes on from the base's committed weights, and
`sides` goes on from those with most of its steps at 768, 1024, 2:3 and 3:2; `unknown` comes after either.
`base` and `refine` train on several processes with `torchrun --nproc-per-node 2 -m sandbox.pretrain refine`: on two
cores two processes of one thread do 1.7 times the work of one process of two. Nothing here is part of a sweep.
"""

import argparse
import os
from pathlib import Path

import torch


def _vae(args: argparse.Namespace) -> None:
    from sandbox import vae

    model = vae.train(args.work, steps=args.steps or 4000, seed=args.seed)
    model.to(torch.bfloat16).save_pretrained(args.out / "base" / "vae")
    for medium, psnr in vae.psnr_by_medium(model.float()).items():
        print(f"vae gate {medium:12s} {psnr:.1f} dB", flush=True)


def _text(args: argparse.Namespace) -> None:
    from sandbox import text

    text.train(args.out / "base", steps=args.steps or 1500, seed=args.seed)


def _base(args: argparse.Namespace) -> None:
    from sandbox import flow

    flow.train(args.out / "base", args.work, steps=args.steps or 3500, seed=args.seed)


def _refine(args: argparse.Namespace) -> None:
    from sandbox import flow

    flow.train(args.out / "base", args.work, flow.REFINE, steps=args.steps or 6000, seed=args.seed, peak_lr=1.5e-3)


def _sides(args: argparse.Namespace) -> None:
    from sandbox import flow

    flow.train(args.out / "base", args.work, flow.SIDES, steps=args.steps or 3000, seed=args.seed, peak_lr=1e-3)


def _unknown(args: argparse.Namespace) -> None:
    from sandbox import unknown

    unknown.train(args.out / "base", steps=args.steps or 5000, seed=args.seed)


def _encoder(args: argparse.Namespace) -> None:
    from sandbox import encoder

    encoder.train_encoder(args.out / "encoder", args.work, steps=args.steps or 2500, seed=args.seed)


def _lpips(args: argparse.Namespace) -> None:
    from sandbox import encoder

    encoder.train_lpips(args.out / "lpips", steps=args.steps or 1200, seed=args.seed)


STAGES = {
    "vae": _vae, "text": _text, "base": _base, "refine": _refine, "sides": _sides, "unknown": _unknown,
    "encoder": _encoder, "lpips": _lpips,
}  # fmt: skip


def main() -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--steps", type=int, default=0, help="steps in all (0: the stage's own number)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("sandbox/checkpoints"), help="checkpoints, not committed")
    parser.add_argument("--out", type=Path, default=Path("sandbox/weights"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if "WORLD_SIZE" in os.environ:  # started by torchrun
        torch.distributed.init_process_group("gloo")
    STAGES[args.stage](args)


if __name__ == "__main__":
    main()
