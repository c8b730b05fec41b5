"""V1 to V14 of facts/metrics.md 8.1, each a function of a study's judge: rows of the table in metrics/README.md.

A bar is what issue 5 asks for. A row that misses it stays in the table as a failure. Negative controls are measures
that must miss the bar; one that meets it would mean that the test tests nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from proof_world import (
    ANATOMY,
    FRESH,
    MEDIA,
    SIDE,
    STYLES,
    Pictures,
    Row,
    Scenes,
    auc,
    moved,
    scenes,
    shown,
    ssim,
    study_pictures,
    with_subjects,
)
from scenes import Prompt
from scipy.stats import kstest, spearmanr
from torch import Tensor

from metrics import Judge, Scores, ScoreSettings
from metrics.adherence import log_retrieval
from metrics.composition import composition, distance_matrix, floor_distance, floor_distances, null_distance
from metrics.diversity import diversity_ratio
from metrics.encoder import Encoder
from metrics.features import FeatureReader, Features, embeddings, style_column
from metrics.images import resized
from metrics.leakage import asked_for, leaks
from metrics.perceptual import Lpips, lpips_distances
from metrics.quality import failed, failure_score, sanity_statistics
from metrics.readings import NounJudge, Spaces, fit_spaces
from metrics.statistics import bootstrap_interval, paired_difference
from metrics.structure import Layouts, canonical_size, distances, layout
from metrics.suite import load_lpips
from metrics.vision import load_style_encoders

BLENDS = np.linspace(0, 1, 9)
MOVES = (0, 2, 4, 8, 12, 16)  # px of 96
ZOOMS = (1.0, 0.9, 0.8, 0.65, 0.5)
SWAPPED = ("crown", "snail", "key", "tree")  # subjects put in another's place
REPORTED = "reported"


def at_least(test: str, value: float, bar: float, note: str = "") -> Row:
    return Row(test, value, f">= {bar:g}", value >= bar - 1e-9, note)  # a Spearman of .9 comes out as .8999


def at_most(test: str, value: float, bar: float, note: str = "") -> Row:
    return Row(test, value, f"<= {bar:g}", value <= bar, note)


def must_fail(test: str, value: float, bar: float) -> Row:
    return Row(f"negative control: {test}", value, f"< {bar:g}", value < bar)


class Proofs:
    """Everything that is proved on drawn pictures, with `count` fresh scenes a test."""

    def __init__(self, settings: ScoreSettings, count: int) -> None:
        self.settings, self.count = settings, count
        self.encoder = Encoder(settings.encoder, settings.device, settings.batch_size)
        self.styles = load_style_encoders(settings, self.encoder)
        self.reader = FeatureReader(self.encoder, self.styles, settings.side)
        self.lpips: Lpips = load_lpips(settings)
        self.scenes: Scenes = scenes(count, 0)
        self.sheets = {medium: shown(self.scenes, medium) for medium in MEDIA}

    @cached_property
    def studies(self) -> dict[str, Pictures]:
        return {style: study_pictures(style) for style in STYLES}

    @cached_property
    def judges(self) -> dict[str, Judge]:
        return {
            style: Judge(self.settings, p.references, p.others, p.training, ANATOMY)
            for style, p in self.studies.items()
        }

    @cached_property
    def spaces(self) -> dict[str, Spaces]:
        sets = {style: (self.read(study.references), self.read(study.others)) for style, study in self.studies.items()}
        return {style: fit_spaces(self.styles, *read) for style, read in sets.items()}

    def read(self, images: Sequence[Tensor]) -> list[Features]:
        return self.reader.read(images, keep=True)

    @cached_property
    def layouts(self) -> Layouts:
        return Layouts(self.sheets["flat"])

    @cached_property
    def floor(self) -> float:
        return floor_distance([floor_distances(image) for image in self.sheets["flat"]])

    def prompts(self) -> list[Prompt]:
        return [Prompt(f"scene {i}") for i in range(self.count)]

    def scored(self, style: str, samples: Sequence[Tensor], base: Sequence[Tensor] | None = None) -> Scores:
        return self.judges[style].score(samples, base or self.sheets["flat"], self.prompts())

    def similarity(self, style: str, first: list[Tensor], second: list[Tensor], only: int | None = None) -> np.ndarray:
        """Return (N, M) mean cosine over the encoders' spaces of a style, or of one encoder."""
        read = [self.read(images) for images in (first, second)]
        views = list(self.spaces[style].values())
        chosen = range(len(views)) if only is None else [only]
        each = [views[i].unit(style_column(read[0], i)) @ views[i].unit(style_column(read[1], i)).T for i in chosen]
        return torch.stack(each).mean(0).numpy()


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


def _kept(p: Proofs, samples: list[Tensor]) -> np.ndarray:
    matrix = distance_matrix(p.layouts, Layouts(samples))
    null = null_distance(matrix, [str(i) for i in range(p.count)])
    return composition(matrix.diagonal(), null=null, floor=p.floor)


def v6_composition_monotone(p: Proofs) -> Iterator[Row]:
    for medium in ("flat", *STYLES):
        kept = [_kept(p, shown(moved(p.scenes, [px] * p.count), medium)) for px in MOVES]
        means = [float(found.mean()) for found in kept]
        note = ", ".join(f"{px} px {mean:.2f}" for px, mean in zip(MOVES, means, strict=True))
        rho = float(spearmanr(MOVES, means).statistic)
        yield at_least(f"V6 composition over moves (-Spearman), {medium}", -rho, 0.9, note)
        yield at_least(f"V6 AUC of a move of 8 px of 96, {medium}", auc(kept[0], kept[3]), 0.9)
        scaled = [_kept(p, shown([replace(s, zoom=s.zoom * z) for s in p.scenes], medium)).mean() for z in ZOOMS]
        rho = float(spearmanr(ZOOMS, scaled).statistic)
        yield at_least(f"V6 composition over scale (Spearman), {medium}", rho, 0.9)
        swapped = _kept(p, shown(with_subjects(p.scenes, SWAPPED), medium))
        yield Row(f"V6 AUC of a swapped subject, {medium}", auc(kept[0], swapped), REPORTED, None)


def v7_independence(p: Proofs) -> Iterator[Row]:
    """Style dose and displacement drawn independently: neither score may follow the other's cause."""
    rng = np.random.default_rng([FRESH, 7])
    dose, move = rng.uniform(0.5, 1, p.count), rng.uniform(0, 12, p.count)
    for style in STYLES:
        flat, styled = (shown(moved(p.scenes, move), medium) for medium in ("flat", style))
        found = p.scored(style, [f * (1 - a) + s * a for f, s, a in zip(flat, styled, dose.tolist(), strict=True)])
        alone = p.scored(style, flat).diagnostics["style_mean"]
        yield Row(
            f"V7 composition of pure restyling, {style}", p.scored(style, p.sheets[style]).composition, REPORTED, None
        )
        yield Row(f"V7 style of pure moves, {style}", alone, REPORTED, None)
        by_dose, by_move = (
            abs(float(np.corrcoef(cause, found.per_image[name])[0, 1]))
            for cause, name in ((dose, "composition"), (move, "style"))
        )
        yield at_most(f"V7 |corr| of composition with the dose of style, {style}", by_dose, 0.2)
        yield at_most(f"V7 |corr| of style with the length of the move, {style}", by_move, 0.2)


def v8_leakage(p: Proofs) -> Iterator[Row]:
    nouns = NounJudge(p.encoder, ANATOMY, p.settings.neutral_nouns)
    texts = ["a picture"] * p.count
    asked = asked_for(texts, nouns.nouns)
    base = nouns.probabilities(p.read(p.sheets["flat"]))
    for style in STYLES:
        clean = p.sheets[style]
        leaking = shown(with_subjects(p.scenes, ANATOMY), style)
        after, before = (nouns.probabilities(p.read(some)) for some in (leaking, clean))
        yield at_least(f"V8 AUC of a leaked subject, {style}", auc(after.max(1), before.max(1)), 0.95)
        yield at_most(f"V8 false alarms on the style alone, {style}", float(leaks(before, base, asked).mean()), 0.05)
        by_picture = [np.array(p.scored(style, some).per_image["leak_picture"]) for some in (leaking, clean)]
        yield at_least(f"V8 AUC of a leaked subject by picture, {style}", auc(*by_picture), 0.95)
        rates = np.linspace(0, 1, 5)
        found = [
            leaks(np.where(np.arange(p.count)[:, None] < r * p.count, after, before), base, asked).mean() for r in rates
        ]
        slope = float(np.polyfit(rates, found, 1)[0])
        yield Row(f"V8 share of true leaks that are counted, {style}", slope, REPORTED, None, "linear would be 1")
        training = embeddings(p.read(p.studies[style].training))
        plain = [(embeddings(p.read(some)) @ training.T).mean(1).numpy() for some in (leaking, clean)]
        rewarded = auc(plain[0], plain[1])
        yield must_fail(
            f"plain mean cosine to the training pictures as style, V8, {style} (clean above leaking)", 1 - rewarded, 0.5
        )
        gains = [np.array(p.scored(style, some).per_image["style"]) for some in (clean, leaking)]
        yield Row(f"V8 ours as style, clean above leaking, {style}", auc(*gains), REPORTED, None, ".5 is indifferent")


def copies_of(training: list[Tensor], kind: str) -> list[Tensor]:
    """Return copies as a model draws them: at the samples' size, a little noisy, and changed."""
    generator = torch.Generator().manual_seed(9)
    changed = {
        "whole": lambda t: t,
        "mirrored": lambda t: t.flip(-1),
        "middle 7/8": lambda t: t[:, t.shape[1] // 16 : -(t.shape[1] // 16), t.shape[2] // 16 : -(t.shape[2] // 16)],
        "corner 7/8": lambda t: t[:, : -(t.shape[1] // 8), : -(t.shape[2] // 8)],
        "lighter": lambda t: 0.8 * t + 0.15,
    }[kind]
    small = [resized([changed(t)], SIDE, SIDE)[0] for t in training]
    return [(t + 0.02 * torch.randn(t.shape, generator=generator)).clamp(0, 1) for t in small]


def v9_memorisation(p: Proofs) -> Iterator[Row]:
    for style in STYLES:
        training = p.studies[style].training
        held_out = shown(scenes(p.count, 9, ANATOMY), style)  # the training's subjects, never trained on
        base = p.sheets["flat"]

        def flags(samples: list[Tensor], style: str = style, base: list[Tensor] = base) -> np.ndarray:
            return np.array(p.scored(style, samples).per_image["copy"])

        new = p.sheets[style]
        yield at_most(f"V9 false alarms on new pictures of the style, {style}", float(flags(new).mean()), 0.05)
        again = float(flags(held_out).mean())
        yield Row(f"V9 flagged among new pictures of the training subjects, {style}", again, REPORTED, None)
        for kind in ("whole", "mirrored", "middle 7/8", "lighter", "corner 7/8"):
            copied = (copies_of(training, kind) * (p.count // len(training) + 1))[: p.count]
            share = float(flags(copied).mean())
            test = f"V9 copies found, {kind}, {style}"
            yield at_least(test, share, 0.95)
        half = copies_of(training, "whole")[: p.count // 2] + new[p.count // 2 :]
        found, truth = flags(half), min(len(training), p.count // 2) / p.count
        low, high = bootstrap_interval(found, [str(i) for i in range(len(found))])
        yield Row(
            f"V9 rate of a half-copied set, {style}", float(found.mean()), f"CI holds {truth:.2f}", low <= truth <= high
        )
        vectors = embeddings(p.read(training))
        plain = [
            (embeddings(p.read(some)) @ vectors.T).mean(1).numpy() for some in (copies_of(training, "whole"), held_out)
        ]
        yield must_fail(f"plain mean cosine to the training pictures as copy detector, V9, {style}", auc(*plain), 0.95)


def corrupted(image: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Return a picture with a fault of known kind."""
    side, quarter = image.shape[-1], image.shape[-1] // 4
    out = image.clone()
    at = int(torch.randint(side // 3, side - side // 3, (1,), generator=generator))
    if kind == "blank":
        return torch.full_like(image, float(image.mean()))
    if kind == "saturated":
        return (8 * (image - image.mean()) + 0.5).clamp(0, 1)
    if kind == "noise":
        return (image + 0.3 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
    if kind == "noise patch":
        top, left = (int(v) for v in torch.randint(0, side - 2 * quarter, (2,), generator=generator))
        patch = out[:, top : top + 2 * quarter, left : left + 2 * quarter]
        patch += 0.4 * torch.randn(patch.shape, generator=generator)
        return out.clamp(0, 1)
    if kind == "torn":
        out[:, at:] = image[:, at:].roll(side // 3, dims=2)
        return out
    first, second = image[:, :quarter, :quarter].clone(), image[:, 2 * quarter : 3 * quarter, quarter : 2 * quarter]
    out[:, :quarter, :quarter], out[:, 2 * quarter : 3 * quarter, quarter : 2 * quarter] = second, first
    return out


def v10_failures(p: Proofs) -> Iterator[Row]:
    for style in STYLES:
        normal = sanity_statistics([*p.sheets["flat"], *p.studies[style].references], p.settings.side)
        clean = sanity_statistics(p.sheets[style], p.settings.side)
        yield at_most(f"V10 false alarms on the style, {style}", float(failed(clean, normal).mean()), 0.05)
        for kind in ("blank", "saturated", "noise", "noise patch", "torn", "parts swapped"):
            generator = torch.Generator().manual_seed(10)
            broken = [corrupted(image, kind, generator) for image in p.sheets[style]]
            found = sanity_statistics(broken, p.settings.side)
            value = auc(failure_score(found, normal), failure_score(clean, normal))
            yield at_least(f"V10 AUC, {kind}, {style}", value, 0.95, f"{failed(found, normal).mean():.2f} flagged")


def v11_adherence(p: Proofs) -> Iterator[Row]:
    texts = [f"a {s.colour} {s.subject} on a {s.background} background" for s in p.scenes]
    bank = list(dict.fromkeys(texts))
    own = [bank.index(text) for text in texts]
    embedded = p.encoder.texts(bank)
    flat = log_retrieval(embeddings(p.read(p.sheets["flat"])), embedded, own)
    other = log_retrieval(embeddings(p.read(p.sheets["flat"])), embedded, own[1:] + own[:1])
    yield at_least("V11 AUC of the own against another prompt, flat", auc(flat, other), 0.95)
    for style in STYLES:
        after = log_retrieval(embeddings(p.read(p.sheets[style])), embedded, own)
        lost = float(flat.mean() - after.mean())
        yield at_most(f"V11 nats lost by the style alone, {style}", lost, p.settings.adherence_loss)


def v12_diversity(p: Proofs) -> Iterator[Row]:
    base = p.sheets["flat"]
    before = lpips_distances(p.lpips.vectors(base), p.lpips.vectors(base)).numpy()
    for style in STYLES:
        ratios = []
        for share in (0, 0.25, 0.5, 0.75, 1):
            count = int(share * p.count)
            vectors = p.lpips.vectors([p.sheets[style][0]] * count + p.sheets[style][count:])
            ratios.append(diversity_ratio(lpips_distances(vectors, vectors).numpy(), before))
        falls = all(a > b for a, b in pairwise(ratios)) and abs(ratios[-1]) < 1e-3
        note = " ".join(f"{ratio:.2f}" for ratio in ratios)
        yield Row(f"V12 diversity falls to 0 as one picture spreads, {style}", float(falls), "monotone", falls, note)


def v13_coverage(repeats: int) -> Iterator[Row]:
    rng = np.random.default_rng([FRESH, 13])
    texts = [str(i // 2) for i in range(48)]
    for trainings, spread in ((1, 0.0), (2, 0.1), (3, 0.1)):
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
        yield Row(f"V13 coverage of the 95 % interval, {named}", cover, ".92 to .98", 0.92 <= cover <= 0.98)
        alarms = float(np.mean(np.array(p_values) < 0.05))
        note = f"Kolmogorov-Smirnov p {kstest(p_values, 'uniform').pvalue:.2f}"
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


ALL = (
    v1_style_rank,
    v2_style_monotone,
    v3_no_change,
    v4_gap,
    v5_composition_rank,
    v5_negative_controls,
    v6_composition_monotone,
    v7_independence,
    v8_leakage,
    v9_memorisation,
    v10_failures,
    v11_adherence,
    v12_diversity,
    v14_determinism,
)
