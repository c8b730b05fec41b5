"""Measure the metrics on drawn scenes with known truth and print the table of metrics/README.md.

    python tests/metrics/proof.py            about a minute on one core

V numbers are those of facts/metrics.md 8.1. The tests hold the bars; this prints the figures.
"""

from __future__ import annotations

import numpy as np
import torch
from scenes import Medium, draw, other_styles, pictures, scene
from scipy.stats import spearmanr
from torch import Tensor

from metrics.composition import composition, distance_matrix, floor_distance, floor_distances, null_distance
from metrics.descriptor import describe
from metrics.quality import failed, line_quality, line_statistics, sanity_statistics
from metrics.structure import canonical_size, distances, layout
from metrics.style import StyleSpace

STYLES = (Medium.hatch, Medium.chalk, Medium.halftone)
SEEDS = range(24)


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    """Return (N, N - 1) without the diagonal."""
    return matrix[~np.eye(len(matrix), dtype=bool)].reshape(len(matrix), -1)


def style_rows(style: Medium) -> dict[str, float]:
    """V1, V2, V4, V7 of the descriptor for one style."""
    view = StyleSpace.fit(
        describe(pictures(style, range(500, 524)), 64), describe(other_styles(style), 64), whiten=True
    )
    unit = {medium: view.unit(describe(pictures(medium, SEEDS), 64)) for medium in Medium}
    mates = torch.from_numpy(off_diagonal((unit[style] @ unit[style].T).numpy()))
    wins = [(mates > (unit[style] * unit[o]).sum(1)[:, None]).float().mean() for o in Medium if o != style]
    base, styled = pictures("flat", SEEDS), pictures(style, SEEDS)
    before = view.sigma(describe(base, 64))

    def gain(samples: list[Tensor]) -> float:
        return float((view.sigma(describe(samples, 64)) - before).mean() / (view.ceiling - before.mean()))

    steps = np.linspace(0, 1, 9)
    blends = [gain([b * (1 - a) + s * a for b, s in zip(base, styled, strict=True)]) for a in steps]
    foreign = max(gain(pictures(o, SEEDS)) for o in Medium if o not in (style, Medium.flat))
    return {
        f"V1 style rank, {style}": float(torch.stack(wins).mean()),
        f"V2 style monotone (Spearman over a blend), {style}": float(spearmanr(steps, blends).statistic),
        f"gain of the style itself, {style}": gain(styled),
        f"gain of the most similar other style, {style}": foreign,
        f"V7 gain when things move only, {style}": gain(pictures("flat", range(1000, 1024))),
    }


def composition_rows() -> dict[str, float]:
    """V5, V6 and V7 of composition."""
    sheets = {medium: pictures(medium, SEEDS) for medium in Medium}
    drawn = {medium: layout(sheet, canonical_size(sheet[0])) for medium, sheet in sheets.items()}
    rows = {}
    for medium in Medium:
        far = off_diagonal(distances(drawn[medium], drawn[medium]).numpy())
        same = [distances(drawn[medium], drawn[o]).numpy().diagonal() for o in Medium if o != medium]
        rows[f"V5 composition rank, {medium}"] = float(np.mean([(s[:, None] < far).mean() for s in same]))
    base = sheets[Medium.flat]
    floor = floor_distance([floor_distances(image) for image in base])
    texts = [str(seed) for seed in SEEDS]

    def kept(samples: list[Tensor]) -> np.ndarray:
        matrix = distance_matrix(base, samples)
        return composition(matrix.diagonal(), null=null_distance(matrix, texts), floor=floor)

    shifts = (0, 2, 4, 8, 12, 16, 24)
    for medium in (Medium.flat, Medium.hatch, Medium.chalk):
        moved = [kept([draw(scene(s, 1 + s % 3).shifted(px / 96), medium, 64, s) for s in SEEDS]) for px in shifts]
        rows[f"V6 composition over a shift of 0-24 px of 96 (Spearman), {medium}"] = float(
            spearmanr(shifts, [m.mean() for m in moved]).statistic
        )
        rows[f"V6 AUC of a shift of 8 px, {medium}"] = float((moved[0][:, None] > moved[3][None]).mean())
        rows[f"V7 composition when restyled only, {medium}"] = float(kept(sheets[medium]).mean())
        rows[f"composition of another layout, {medium}"] = float(kept(pictures(medium, range(1000, 1024))).mean())
    return rows


def quality_rows(style: Medium) -> dict[str, float]:
    """V10 and the line ladders for one style."""
    base, references, samples = pictures("flat", SEEDS), pictures(style, range(500, 524)), pictures(style, SEEDS)
    normal = sanity_statistics([*base, *references], 64)
    generator = torch.Generator().manual_seed(0)
    noisy = [(p + 0.25 * torch.randn(p.shape, generator=generator)).clamp(0, 1) for p in samples]
    blank = [torch.full_like(p, float(p.mean())) for p in samples]
    lines = [line_statistics(some, 64) for some in (base, references)]
    return {
        f"V10 failures found, noise of 0.25, {style}": float(failed(sanity_statistics(noisy, 64), normal).mean()),
        f"V10 failures found, blank, {style}": float(failed(sanity_statistics(blank, 64), normal).mean()),
        f"V10 false alarms, {style}": float(failed(sanity_statistics(samples, 64), normal).mean()),
        f"line quality, clean, {style}": float(line_quality(line_statistics(samples, 64), *lines).mean()),
        f"line quality, noise of 0.25, {style}": float(line_quality(line_statistics(noisy, 64), *lines).mean()),
    }


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    rows: dict[str, float] = {}
    for style in STYLES:
        rows |= style_rows(style)
    rows |= composition_rows()
    for style in STYLES:
        rows |= quality_rows(style)
    print("| measured | value |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value:.3f} |")


if __name__ == "__main__":
    main()
