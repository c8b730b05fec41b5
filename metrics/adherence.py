"""Prompt adherence, free of style: is a picture still told from the pictures of all other prompts by its own text?

CLIP similarity falls when a style arrives that the text does not name, and that is no fault of the picture
(facts/metrics.md 0.6). Among a bank of style-free texts such an offset cancels in the softmax.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
TEMPERATURE = 0.01  # CLIP's own, also for models trained with less (facts 3)


def log_retrieval(pictures: Tensor, bank: Tensor, own: Sequence[int]) -> Floats:
    """Return log softmax over the bank of cos / 0.01 at every picture's own text, <= 0, in nats; higher is better.

    Args:
        pictures: (N, D) unit embeddings.
        bank: (Q, D) unit embeddings of all different prompts.
        own: index of each picture's text in the bank.
    """
    logs = (pictures @ bank.T / TEMPERATURE).log_softmax(dim=1)
    return logs[torch.arange(len(pictures)), torch.tensor(list(own))].double().numpy()


def adherence_change(samples: Tensor, base: Tensor, bank: Tensor, own: Sequence[int]) -> Floats:
    """Return per sample log-retrieval minus that of its base image, in nats.

    Range: any; 0 = the prompt is followed as by the base, below 0 it is followed less.
    Fooled by: CLIP reads a prompt as a bag of words; prompts with the same words look the same to it.
    Source: facts/metrics.md 3.
    """
    return log_retrieval(samples, bank, own) - log_retrieval(base, bank, own)
