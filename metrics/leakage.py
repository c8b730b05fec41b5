"""Subject leakage: a training subject shows up where nobody asked for it.

By text: zero-shot CLIP classification among the training nouns and neutral ones. Only what the base's picture of the
same prompt and seed does not show counts, and only nouns the prompt does not ask for. By picture: how far a sample
moved from its base image towards a training picture, more than towards a held-out reference of the same style.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.memorisation import expected_nearest

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def mentions(text: str, noun: str) -> bool:
    """Return whether a text asks for a noun, in singular or plural, as a word of its own."""
    return re.search(rf"\b{re.escape(noun)}(s|es)?\b", text, re.IGNORECASE) is not None


def asked_for(texts: Sequence[str], nouns: Sequence[str]) -> Flags:
    """Return (N, K): which text asks for which noun."""
    return np.array([[mentions(text, noun) for noun in nouns] for text in texts], dtype=bool).reshape(
        len(texts), len(nouns)
    )


def asked_among(texts: Sequence[str], nouns: Sequence[str]) -> dict[str, list[str]]:
    """Return text -> training nouns it asks for, for those that ask for any: no leak of these can be seen there."""
    found = {text: [noun for noun in nouns if mentions(text, noun)] for text in texts}
    return {text: asked for text, asked in found.items() if asked}


def noun_probabilities(pictures: Tensor, training: Tensor, neutral: Tensor, logit_scale: float) -> Floats:
    """Return P(training noun | picture), (N, K), by a softmax over training and neutral nouns.

    Args:
        pictures: (N, D) unit embeddings.
        training: (K, D) unit embeddings of the training nouns.
        neutral: (M, D) unit embeddings of nouns that rival them.
        logit_scale: factor before the softmax that the encoder was trained with.
    """
    logits = logit_scale * pictures @ torch.cat([training, neutral]).T
    return logits.softmax(dim=1)[:, : len(training)].double().numpy()


def leaks(samples: Floats, base: Floats, asked: Flags) -> Flags:
    """Return which samples show an unasked training noun: P(k|g) > 1/2 and P(k|b) < 1/2 for some k.

    Args:
        samples: (N, K) P(noun | sample).
        base: (N, K) P(noun | base image).
        asked: (N, K) nouns the prompt asks for; they are left out.

    Range: a flag per sample; the rate lies in 0 ... 1, lower is better; a sample equal to its base never leaks.
    Fooled by: parts of subjects (an eye socket in a house), nouns that are the style ("engraving"), an encoder that
    does not know the nouns (read diagnostics["leak_sensitivity"]).
    Source: facts/metrics.md 9(c).
    """
    return np.asarray(((samples > 0.5) & (base < 0.5) & ~asked).any(axis=1))


def directional_leakage(samples: Tensor, base: Tensor, subjects: Tensor) -> Floats:
    """Return how far each sample went from its base image towards each picture of subjects, (N, M) in [0, 1].

    Args:
        samples: (N, D) unit embeddings of grey pictures, so that a tint is no way to go.
        base: (N, D) of their base images.
        subjects: (M, D) of training pictures or references.

    Source: directional content leakage, facts/metrics.md 4: the share of the way from base image to subject.
    """
    way = subjects[None] - base[:, None]
    went = ((samples - base)[:, None] * way).sum(-1) / way.square().sum(-1).clamp_min(1e-6)
    return went.clamp(0, 1).double().numpy()


def picture_leak(to_training: Floats, to_references: Floats) -> Floats:
    """Return per sample how much further it went towards a training picture than towards a reference.

    Args:
        to_training: (N, M) `directional_leakage` towards the training pictures.
        to_references: (N, R) towards the held-out references, which share the style and were never seen.

    Range: -1 ... 1, lower is better; 0 = no change, or no further than towards pictures that were never seen.
    Fooled by: references that show the training subjects too (then it stays near 0), a sample whose own subject is
    among the references (then it is negative). Both sets count as equally large (`expected_nearest`).
    Source: facts/metrics.md 9(c), L_img.
    """
    count = min(to_training.shape[1], to_references.shape[1])
    return expected_nearest(-to_references, count) - expected_nearest(-to_training, count)
