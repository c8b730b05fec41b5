"""V5 to V7 of facts/metrics.md 8.1: composition is seen, whatever the style, and the two do not follow each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from proof_study import REPORTED, Proofs, Row, at_least, at_most, must_fail
from proof_world import MEDIA, STYLES, auc, moved, shown, ssim, with_subjects
from scipy.stats import spearmanr
from torch import Tensor

from metrics.perceptual import lpips_distances
from metrics.structure import canonical_size, distances, layout

MOVES = (0, 2, 4, 8, 12, 16)  # px of 96
ZOOMS = (1.0, 0.9, 0.8, 0.65, 0.5)
SWAPPED = ("crown", "snail", "key", "tree")  # subjects put in another's place
PAIRS = 576  # of V7 at least: the correlation of two independent causes has an SD of .04, of .08 with 144


def _rank(apart: dict[tuple[str, str], np.ndarray], medium: str) -> float:
    """Return P[same layout in another medium is nearer than another layout in the same medium]."""
    far = apart[medium, medium][~np.eye(len(apart[medium, medium]), dtype=bool)].reshape(len(apart[medium, medium]), -1)
    same = [apart[medium, other].diagonal() for other in MEDIA if other != medium]
    return float(np.mean([(s[:, None] < far).mean() for s in same]))


def v5_composition_rank(p: Proofs) -> Iterator[Row]:
    drawn = {medium: layout(sheet, canonical_size(sheet[0])) for medium, sheet in p.sheets.items()}
    apart = {(a, b): distances(drawn[a], drawn[b]).numpy() for a in MEDIA for b in MEDIA}
    for medium in MEDIA:
        yield at_least(f"V5 composition rank, {medium}", _rank(apart, medium), 0.95)


def v5_negative_controls(p: Proofs) -> Iterator[Row]:
    some = {medium: sheet[: min(12, p.count)] for medium, sheet in p.sheets.items()}
    vectors = {medium: p.lpips.vectors(sheet) for medium, sheet in some.items()}
    pixels = {medium: torch.stack(sheet).flatten(1) for medium, sheet in some.items()}
    controls = {
        "LPIPS": lambda a, b: lpips_distances(vectors[a], vectors[b]).numpy(),
        "SSIM": lambda a, b: np.array([[-ssim(x, y) for y in some[b]] for x in some[a]]),
        "MSE": lambda a, b: torch.cdist(pixels[a], pixels[b]).numpy(),
    }
    media = (*STYLES, "flat", "stipple")  # SSIM of every pair of all media takes minutes
    for name, measure in controls.items():
        apart = {(a, b): measure(a, b) for a in media for b in MEDIA}
        yield must_fail(f"{name} on V5", float(np.mean([_rank(apart, medium) for medium in media])), 0.95)


def _kept(p: Proofs, samples: list[Tensor], style: str) -> np.ndarray:
    return np.array(p.scored(style, samples).per_image["composition"])


def v6_composition_monotone(p: Proofs) -> Iterator[Row]:
    for medium in ("flat", *STYLES):
        style = medium if medium in STYLES else STYLES[0]
        kept = [_kept(p, shown(moved(p.scenes, [px] * p.count), medium), style) for px in MOVES]
        means = [float(found.mean()) for found in kept]
        note = ", ".join(f"{px} px {mean:.2f}" for px, mean in zip(MOVES, means, strict=True))
        rho = float(spearmanr(MOVES, means).statistic)
        yield at_least(f"V6 composition over moves (-Spearman), {medium}", -rho, 0.9, note)
        yield at_least(f"V6 AUC of a move of 8 px of 96, {medium}", auc(kept[0], kept[3]), 0.9)
        zoomed = [shown([replace(s, zoom=s.zoom * z) for s in p.scenes], medium) for z in ZOOMS]
        scaled = [_kept(p, some, style).mean() for some in zoomed]
        rho = float(spearmanr(ZOOMS, scaled).statistic)
        yield at_least(f"V6 composition over scale (Spearman), {medium}", rho, 0.9)
        swapped = _kept(p, shown(with_subjects(p.scenes, SWAPPED), medium), style)
        yield Row(f"V6 AUC of a swapped subject, {medium}", auc(kept[0], swapped), REPORTED, None)


def v7_independence(p: Proofs) -> Iterator[Row]:
    """Style dose and displacement drawn independently: neither score may follow the other's cause."""
    times = -(-PAIRS // p.count)
    some = [scene for scene in p.scenes for _ in range(times)]
    rng = np.random.default_rng([p.seed, 7])
    dose, move = rng.uniform(0.5, 1, len(some)), rng.uniform(0, 12, len(some))
    flat = shown(moved(some, move), "flat")
    note = f"{len(some)} pairs, chance alone gives up to {1.96 / np.sqrt(len(some) - 3):.2f}"
    for style in STYLES:
        kept = p.scored(style, p.sheets[style]).composition
        yield Row(f"V7 composition of pure restyling, {style}", kept, REPORTED, None)
        alone = p.scored(style, flat, times).diagnostics["style_mean"]
        yield Row(f"V7 style of pure moves, {style}", alone, REPORTED, None)
        styled = shown(moved(some, move), style)
        mixed = [f * (1 - a) + s * a for f, s, a in zip(flat, styled, dose.tolist(), strict=True)]
        found = p.scored(style, mixed, times).per_image
        by_dose, by_move = (
            abs(float(np.corrcoef(cause, found[name])[0, 1]))
            for cause, name in ((dose, "composition"), (move, "style"))
        )
        yield at_most(f"V7 |corr| of composition with the dose of style, {style}", by_dose, 0.2, note)
        yield at_most(f"V7 |corr| of style with the length of the move, {style}", by_move, 0.2, note)
