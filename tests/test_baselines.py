"""The published defences, on a network whose answers are known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bench.baselines import (
    Case,
    concentration,
    corruptions,
    dct_classifier,
    probability,
    sentinet,
    spectrum,
    strip,
    teco,
)
from bench.detector import Judged, matched, table
from model.checkpoint import Card, Checkpoint
from model.detector.reader import Reader
from model.findings import FINDINGS
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.preprocess import Preprocessing
from model.saliency import SaliencyMaps

SIZE_PX = 32


class Corner(nn.Module):
    """Sure of Nodule (5) as far as the first four rows and columns are bright; of nothing else."""

    def forward(self, inputs: Tensor) -> Tensor:
        logits = torch.full((len(inputs), 14), -5.0)
        logits[:, 5] += 10 * inputs[:, 0, :4, :4].mean((1, 2))
        return logits


def reader() -> Reader:
    pre = Preprocessing(SIZE_PX, mean=(0.0,), std=(1.0,))
    card = Card("corner", "Corner", pre, dict.fromkeys(FINDINGS, 0.5))
    return Reader(Checkpoint(card, Corner(), torch.device("cpu")))  # type: ignore[arg-type]


def case(image: Tensor) -> Case:
    grid = torch.zeros(1, 14, 4, 4)
    grid[0, :, 0, 0] = 1
    logits = Corner()(image[None, None])
    return Case(image, SaliencyMaps(logits, {MIDDLE_LAYER: grid, LAST_LAYER: grid}, tuple(range(14))), (5,))


def images() -> tuple[Tensor, Tensor]:
    """Dark radiographs, and one of them with a bright corner."""
    clean = torch.rand(6, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1)) * 0.3
    stamped = clean[0].clone()
    stamped[:4, :4] = 1
    return clean, stamped


def test_each_tells_the_stamped_one() -> None:
    clean, stamped = images()
    plain, attacked = case(clean[0]), case(stamped)
    assert probability(attacked) > 0.99 > 0.1 > probability(plain)
    assert concentration(attacked) == 15 / 16
    assert sentinet(reader(), attacked, clean) > sentinet(reader(), plain, clean)
    faint = stamped.clone()
    faint[:4, :4] = 0.52  # a call that every corruption takes away soon
    assert teco(reader(), attacked) != teco(reader(), case(faint))


def test_strip_by_hand() -> None:
    clean = torch.zeros(2, SIZE_PX, SIZE_PX)
    p = torch.full((14,), -5.0, dtype=torch.float64).sigmoid()
    expected = -(p * p.log2() + (1 - p) * (1 - p).log2()).sum()
    assert np.isclose(-strip(reader(), case(torch.zeros(SIZE_PX, SIZE_PX)), clean), float(expected), rtol=1e-4)


def test_corruptions_keep_the_range_and_grow() -> None:
    image = images()[0][0].numpy()
    made = corruptions(image)
    assert made.shape == (6, 5, SIZE_PX, SIZE_PX)
    assert made.min() >= 0
    assert made.max() <= 1
    error = np.abs(made - image).mean(axis=(2, 3))
    assert (error[:, 0] < error[:, -1]).all()


def test_the_dct_classifier_learns_checkers() -> None:
    rng = np.random.default_rng(0)
    clean = [np.cumsum(rng.random((SIZE_PX, SIZE_PX)), 1) / SIZE_PX for _ in range(16)]
    stamped = [image.copy() for image in clean]
    for image in stamped:
        image[8:12, 8:12] = np.indices((4, 4)).sum(0) % 2
    fitted = dct_classifier(clean[:10], stamped[:10])
    scores = fitted.decision_function([spectrum(image) for image in [*clean[10:], *stamped[10:]]])
    assert scores[6:].mean() > scores[:6].mean()


def test_matching_compares_the_equally_sure_alone() -> None:
    sure = (np.array([0.1, 0.9]), np.array([0.95]))
    assert matched(sure, (np.array([9.0, 1.0]), np.array([2.0]))) == 1
    assert matched(sure, (np.array([0.0, 2.0]), np.array([2.0]))) == 0.5
    assert matched((sure[0][:1], sure[1]), (np.array([9.0]), np.array([2.0]))) is None


def test_the_table_counts_verdicts_and_ranks_methods() -> None:
    scores = {"probability": (np.array([0.5, 0.9]), np.array([0.9, 0.9])), "detector": (np.zeros(2), np.ones(2))}
    page = table("x", Judged(scores, (np.arange(2), np.arange(2)), (["no_evidence"] * 2, ["causal"] * 2)))
    assert "causal: 0/2 negatives, 2/2 attacks" in page
    assert "| detector | 1.000 | 1.000 | 1.000 |" in page
    assert "| probability | 0.750 | 0.500 | 0.000 |" in page
