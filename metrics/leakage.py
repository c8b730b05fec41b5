"""Subject leakage: a training subject shows up where nobody asked for it.

By text: zero-shot CLIP classification among the training nouns and neutral ones. Only what the base's picture of the
same prompt and seed does not show counts, and only nouns the prompt does not ask for. By picture: how much nearer a
sample is to the training pictures than to held-out references of the same style, beyond what its base image is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
SOFTNESS = 0.1  # of the nearest picture, in cosines: by how much others must be farther to count a third


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


def subject_directions(nouns: Tensor) -> Tensor:
    """Return (K, D) orthonormal directions in which nouns differ, with all but 2 % of their variance.

    A change of style moves a picture in other directions than these, so what it shows is compared in them alone.

    Args:
        nouns: (M, D) embeddings of nouns; with fewer than two different ones every direction is kept.
    """
    _, spreads, directions = torch.linalg.svd(nouns - nouns.mean(0), full_matrices=False)
    shares = spreads.square().cumsum(0) / spreads.square().sum().clamp_min(1e-12)
    if float(shares[-1]) < 0.5:  # no variance at all
        return torch.eye(nouns.shape[1])
    return directions[: int((shares < 0.98).sum()) + 1]


def picture_leak(samples: Tensor, base: Tensor, training: Tensor, references: Tensor) -> Floats:
    """Return per sample how much nearer to a training picture than to any reference it is, beyond its base image.

    Args:
        samples: (N, K) unit vectors in `subject_directions`.
        base: (N, K) of their base images.
        training: (M, K) of the training pictures.
        references: (R, K) of held-out pictures, which share the style and were never seen.

    Range: 0 ... 2, about 0 ... 0.5 in practice, lower is better; 0 = no change, or none towards what was trained on. A
    base image nearer to a reference excuses nothing: how near it was says little of the sample in another style.
    Fooled by: references that show the training subjects too (then it stays near 0), a prompt that asks for a training
    subject which only the sample draws.
    Source: facts/metrics.md 9(c), L_img, with a soft nearest cosine, in which the size of a set cancels; the nearest
    alone and the share of the way (DCL) told leaks less well (V8).
    """

    def near(pictures: Tensor, some: Tensor) -> Floats:
        cosines = (pictures @ some.T).double()
        soft = (cosines / SOFTNESS).logsumexp(dim=1) - math.log(len(some))
        return (SOFTNESS * soft).numpy()

    def lead(pictures: Tensor) -> Floats:
        return near(pictures, training) - near(pictures, references)

    return np.maximum(0.0, lead(samples) - np.maximum(0.0, lead(base)))
