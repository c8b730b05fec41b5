"""V8 to V12 of facts/metrics.md 8.1: what a LoRA must not do is seen when it is done, and only then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from proof_study import REPORTED, Proofs, Row, at_least, at_most, must_fail
from proof_world import ANATOMY, SIDE, STYLES, auc, scenes, shown, with_subjects
from torch import Tensor

from metrics.adherence import log_retrieval
from metrics.diversity import diversity_ratio
from metrics.features import embeddings
from metrics.images import resized
from metrics.leakage import asked_for, leaks
from metrics.perceptual import lpips_distances
from metrics.quality import Sanity, failure_score, sanity
from metrics.readings import NounJudge
from metrics.statistics import bootstrap_interval


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
        held_out = shown(scenes(p.count, 9, p.seed, ANATOMY), style)  # the training's subjects, never trained on

        def flags(samples: list[Tensor], style: str = style) -> np.ndarray:
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
        copied = copies_of(training, "whole")[: p.count // 2]
        half = copied + new[len(copied) :]
        found, truth = flags(half), len(copied) / p.count
        low, high = bootstrap_interval(found, [str(i) for i in range(len(found))])
        yield Row(
            f"V9 rate of a half-copied set, {style}", float(found.mean()), f"CI holds {truth:.2f}", low <= truth <= high
        )
        vectors = embeddings(p.read(training))
        plain = [
            (embeddings(p.read(some)) @ vectors.T).mean(1).numpy() for some in (copies_of(training, "whole"), held_out)
        ]
        yield must_fail(f"plain mean cosine to the training pictures as copy detector, V9, {style}", auc(*plain), 0.95)


BANK = 48  # prompts among which V11 retrieves


def corrupted(image: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Return a picture with a fault of known kind."""
    side, quarter = image.shape[-1], image.shape[-1] // 4
    out = image.clone()
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
    first, second = image[:, :quarter, :quarter].clone(), image[:, 2 * quarter : 3 * quarter, quarter : 2 * quarter]
    out[:, :quarter, :quarter], out[:, 2 * quarter : 3 * quarter, quarter : 2 * quarter] = second, first
    return out


def crossing(flat: Tensor) -> list[int]:
    """Return the rows of the middle half at which a tear goes through at least 6 px of what is drawn."""
    drawn = ((flat - flat.median(2, keepdim=True).values).abs().amax(0) > 0.05).sum(1)
    side = flat.shape[1]
    return [row for row in range(side // 4, 3 * side // 4) if min(drawn[row - 1], drawn[row]) >= 6]


def torn_through(image: Tensor, flat: Tensor, generator: torch.Generator) -> Tensor:
    rows = crossing(flat)
    at = rows[int(torch.randint(len(rows), (1,), generator=generator))]
    return torch.cat([image[:, :at], image[:, at:].roll(image.shape[1] // 3, dims=2)], 1)


def drawn_apart(broken: Tensor, flat: Tensor) -> bool:
    """Return whether a fault changed at least 16 px of the flat picture; background for background is no fault."""
    return int(((broken - flat).abs().amax(0) > 0.05).sum()) >= 16


def torn_anywhere(image: Tensor, generator: torch.Generator) -> tuple[Tensor, int]:
    """Return a picture torn at a row of the middle third, and the row."""
    side = image.shape[1]
    at = int(torch.randint(side // 3, side - side // 3, (1,), generator=generator))
    return torch.cat([image[:, :at], image[:, at:].roll(side // 3, dims=2)], 1), at


def v10_failures(p: Proofs) -> Iterator[Row]:
    flat, side = p.sheets["flat"], p.settings.side
    base = sanity(flat, side)
    for style in STYLES:
        normal = [*base, *sanity(p.studies[style].references, side)]
        clean = sanity(p.sheets[style], side)
        undisturbed = failure_score(clean, base, normal)

        def found(
            broken: list[Tensor], of: Sequence[int] = range(p.count), normal: list[Sanity] = normal
        ) -> NDArray[np.float64]:
            return failure_score(sanity(broken, side), [base[i] for i in of], normal)

        yield at_most(f"V10 false alarms on the style, {style}", float((undisturbed > 0).mean()), 0.05)
        for kind in ("blank", "saturated", "noise", "noise patch", "parts swapped"):
            generator = torch.Generator().manual_seed(10)
            scores = found([corrupted(image, kind, generator) for image in p.sheets[style]])
            note = f"{len(scores)} pictures, {(scores > 0).mean():.2f} flagged"
            if kind == "parts swapped":
                seen = np.array([drawn_apart(corrupted(drawn, kind, generator), drawn) for drawn in flat])
                within = auc(scores[seen], undisturbed)
                note += f"; {int((~seen).sum())} change hardly anything drawn: without them {within:.3f}"
            yield at_least(f"V10 AUC, {kind}, {style}", auc(scores, undisturbed), 0.95, note)
        crossed = [i for i, drawn in enumerate(flat) if crossing(drawn)]
        generator = torch.Generator().manual_seed(11)
        scores = found([torn_through(p.sheets[style][i], flat[i], generator) for i in crossed], crossed)
        note = f"{len(scores)} pictures, {(scores > 0).mean():.2f} flagged"
        yield at_least(f"V10 AUC, torn through what is drawn, {style}", auc(scores, undisturbed), 0.95, note)
        generator = torch.Generator().manual_seed(10)
        anywhere, rows = zip(*(torn_anywhere(image, generator) for image in p.sheets[style]), strict=True)
        scores = found(list(anywhere))
        seen = np.array([row in crossing(drawn) for row, drawn in zip(rows, flat, strict=True)])
        note = f"{seen.sum()} pictures, {(scores[seen] > 0).mean():.2f} flagged"
        yield at_least(
            f"V10 AUC, torn at any row with something drawn, {style}", auc(scores[seen], undisturbed), 0.95, note
        )
        # A tear through background alone is the whole picture with its subject elsewhere: no detector ranks it.
        chance = (1 + seen.mean()) / 2
        note = f"{int((~seen).sum())} of {len(seen)} cross background alone; {chance:.3f} if those were chance"
        yield at_least(f"V10 AUC, torn at any row, {style}", auc(scores, undisturbed), 0.95, note)
        kept = [np.array(p.scored(style, some).per_image["composition"]) for some in (p.sheets[style], anywhere)]
        yield Row(f"V10 AUC, torn at any row, by composition, {style}", auc(*kept), REPORTED, None)


def v11_adherence(p: Proofs) -> Iterator[Row]:
    every = [f"a {s.colour} {s.subject} on a {s.background} background" for s in p.scenes]
    # Nats depend on how many texts there are to choose from, so banks of the same size whatever `count` is.
    banks = [range(start, min(start + BANK, p.count)) for start in range(0, max(1, p.count - BANK + 1), BANK)]

    def retrieved(medium: str, turned: int = 0) -> np.ndarray:
        """Log-retrieval of every picture's own text, or of that of the picture `turned` places on."""
        found = []
        for places in banks:
            texts = [every[i] for i in places]
            bank = list(dict.fromkeys(texts))
            own = [bank.index(text) for text in texts[turned:] + texts[:turned]]
            pictures = embeddings(p.read([p.sheets[medium][i] for i in places]))
            found.append(log_retrieval(pictures, p.encoder.texts(bank), own))
        return np.concatenate(found)

    flat = retrieved("flat")
    yield at_least("V11 AUC of the own against another prompt, flat", auc(flat, retrieved("flat", 1)), 0.95)
    for style in STYLES:
        lost = float(flat.mean() - retrieved(style).mean())
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
