"""The losses that a training can minimise, on logits N×14 and labels N×14 of 0 and 1; each a mean, in nats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

LossName = Literal["binary", "categorical"]
Loss = Callable[[Tensor, Tensor], Tensor]


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Over all findings of all rows: the loss of a multi-label classifier."""
    return F.binary_cross_entropy_with_logits(logits, labels)


def categorical_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Keras' categorical cross-entropy on sigmoids, which the paper's released code minimises: the 14 probabilities are
    divided by their sum, and a row costs −Σ y·log of that. A row without a finding costs nothing whatever is said of
    it, and half the rows are such."""
    log_probabilities = F.logsigmoid(logits)
    shares = log_probabilities - log_probabilities.logsumexp(dim=1, keepdim=True)
    return -(labels * shares).sum(dim=1).mean()


LOSSES: dict[LossName, Loss] = {"binary": binary_cross_entropy, "categorical": categorical_cross_entropy}
