"""V13 and V14 of facts/metrics.md 8.1: intervals hold what they promise, equal pictures give equal numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from proof_study import REPORTED, Proofs, Row, at_most
from proof_world import STYLES
from scipy.stats import kstest

from metrics.encoder import Encoder
from metrics.statistics import bootstrap_interval, paired_difference


def v13_coverage(repeats: int, seed: int) -> Iterator[Row]:
    rng = np.random.default_rng([seed, 13])
    texts = [str(i // 2) for i in range(48)]
    for trainings, spread in ((1, 0.0), (2, 0.1), (3, 0.1), (2, 0.05), (3, 0.05)):
        held = spread != 0.05  # where trainings differ as little as the prompts' mean is known, intervals are too wide
        hits, p_values = [], []
        for _ in range(repeats):
            prompts = np.repeat(rng.normal(0, 0.2, 24), 2)
            first, second = (
                0.4 + prompts + rng.normal(0, spread, (trainings, 1)) + rng.normal(0, 0.1, (trainings, 48))
                for _ in range(2)
            )
            low, high = bootstrap_interval(first, texts, samples=600)
            hits.append(low <= 0.4 <= high)
            p_values.append(paired_difference(first, second, texts, samples=600).p)
        cover, named = float(np.mean(hits)), f"24 prompts x 2 seeds x {trainings} trainings"
        named += "" if held else f" of SD {spread}"
        passed = 0.92 <= cover <= 0.98 if held else None
        yield Row(f"V13 coverage of the 95 % interval, {named}", cover, ".92 to .98" if held else REPORTED, passed)
        alarms = float(np.mean(np.array(p_values) < 0.05))
        note = f"p-values are {kstest(p_values, 'uniform').statistic:.3f} from uniform (Kolmogorov-Smirnov)"
        yield at_most(f"V13 false differences at 5 %, {named}", alarms, 0.07, note)


def v14_determinism(p: Proofs) -> Iterator[Row]:
    style = STYLES[0]
    first, second = p.scored(style, p.sheets[style]), p.scored(style, p.sheets[style])
    yield Row("V14 the same pictures twice", float(first != second), "equal", first == second)
    one = Encoder(p.settings.encoder, p.settings.device, 1).pictures(p.sheets[style])
    off = float((one - Encoder(p.settings.encoder, p.settings.device, 16).pictures(p.sheets[style])).abs().max())
    yield at_most("V14 batches of 1 against 16, largest difference of an embedding", off, 1e-3)
    if torch.cuda.is_available():
        gpu = Encoder(p.settings.encoder, "cuda", 16).pictures(p.sheets[style])
        yield at_most("V14 CPU against GPU, largest difference of an embedding", float((one - gpu).abs().max()), 1e-3)
    else:
        yield Row("V14 CPU against GPU", float("nan"), "<= 0.001", None, "no GPU here")
