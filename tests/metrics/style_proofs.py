"""V1 to V4 of facts/metrics.md 8.1: style is seen, grows with its dose, and nothing is nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from proof_study import REPORTED, Proofs, Row, at_least
from proof_world import MEDIA, STYLES
from scipy.stats import spearmanr

BLENDS = np.linspace(0, 1, 9)


def v1_style_rank(p: Proofs) -> Iterator[Row]:
    """Other content in the style is nearer than the same content in another medium."""
    for style in STYLES:
        own, apart = p.sheets[style], ~np.eye(p.count, dtype=bool)
        for only, name in [(None, "all encoders"), *((i, e.value) for i, e in enumerate(p.styles))]:
            mates = p.similarity(style, own, own, only)
            wins = []
            for medium in MEDIA:
                if medium != style:
                    rival = p.similarity(style, own, p.sheets[medium], only).diagonal()
                    wins.append((mates > rival[:, None])[apart].mean())
            test = f"V1 style rank, {style}, {name}"
            yield (
                at_least(test, float(np.mean(wins)), 0.95)
                if only is None
                else Row(test, float(np.mean(wins)), REPORTED, None, f"worst medium {min(wins):.2f}")
            )


def v2_style_monotone(p: Proofs) -> Iterator[Row]:
    for style in STYLES:
        pairs = list(zip(p.sheets["flat"], p.sheets[style], strict=True))
        gains = [p.scored(style, [b * (1 - a) + s * a for b, s in pairs]).diagnostics["style_mean"] for a in BLENDS]
        rho = float(spearmanr(BLENDS, gains).statistic)
        yield at_least(f"V2 style over a blend (Spearman), {style}", rho, 0.95, f"{gains[0]:.2f} to {gains[-1]:.2f}")


def v3_no_change(p: Proofs) -> Iterator[Row]:
    for style in STYLES:
        found = p.scored(style, [image.clone() for image in p.sheets["flat"]])
        off = abs(found.style) + abs(1 - found.composition) + found.diagnostics["leak_rate"]
        yield Row(f"V3 no change: style 0, composition 1, no leak, {style}", off, "exactly 0", off == 0.0)


def v4_gap(p: Proofs) -> Iterator[Row]:
    """The style's own new pictures lie nearer to its references than any other medium's."""
    for style in STYLES:
        near = {m: np.median(p.similarity(style, s, p.studies[style].references)) for m, s in p.sheets.items()}
        rivals = {m: value for m, value in near.items() if m != style}
        worst = max(rivals, key=rivals.__getitem__)
        gap = float(near[style] - rivals[worst])
        yield Row(f"V4 gap to the nearest other medium, {style}", gap, "> 0", gap > 0, f"nearest is {worst}")
