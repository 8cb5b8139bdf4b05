"""Radiographs that a suspicious patch is put onto: healthy ones, whose calls are known, none of them a patient's.

They are phantoms by seed, so that a proof image shows nobody, and the same seed gives the same donors everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.datasets import Part, input_images, phantoms
from model.detector.reader import Reader, operating_logits

SEED = 5501
POOL = 48
COUNT = 16
SIZE_PX = 256


@dataclass(frozen=True, eq=False)
class Donors:
    """images: N×S×S grey in 0..1. logits: N×14, of the images as they are. rows: of the series of that seed."""

    seed: int
    rows: tuple[int, ...]
    images: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.rows)


def choose_donors(reader: Reader, seed: int = SEED, pool: int = POOL, count: int = COUNT) -> Donors:
    """`count` of the first `pool` phantoms of a series, or of as many as it takes: those without a finding that the
    checkpoint calls the least, by how many findings are called, then by how near the nearest is to its operating point.
    """
    healthy: list[int] = []
    while len(healthy) < count:
        healthy = [row for row, labels in enumerate(phantoms(pool, seed, SIZE_PX).labels) if not labels.any()]
        pool *= 2
    images, logits = _read(reader, seed, healthy)
    margins = logits - torch.from_numpy(operating_logits(reader.checkpoint.card))
    called = (margins >= 0).sum(1)
    order = sorted(range(len(healthy)), key=lambda i: (int(called[i]), float(margins[i].max())))[:count]
    return Donors(seed, tuple(healthy[i] for i in order), images[order], logits[order])


def donors_again(reader: Reader, seed: int, rows: tuple[int, ...]) -> Donors:
    """Those that were chosen before."""
    return Donors(seed, rows, *_read(reader, seed, list(rows)))


def _read(reader: Reader, seed: int, rows: list[int]) -> tuple[Tensor, Tensor]:
    drawn = phantoms(max(rows) + 1, seed, SIZE_PX, Part.CALIBRATION).take(rows)
    images = torch.from_numpy(np.stack(list(input_images(drawn, reader.preprocessing)))).to(reader.device)
    return images, reader.logits(images)
