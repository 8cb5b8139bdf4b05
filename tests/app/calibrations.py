"""Calibrations of no data, made by hand so that they take no time: what they say is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.checkpoint import read_card
from model.detector import Calibration, Origin, Reference, calibration_folders, reading_digest, write_calibration
from model.detector.donors import DonorNames
from model.detector.nulls import Nulls
from model.findings import FINDINGS

DONORS = 3
ORIGIN = Origin(
    made_at="2026-11-01T10:00:00+00:00",
    made_by="Ada",
    code_version="0123456789abcdef",
    data="made by hand",
    radiographs_sha256="a" * 64,
    patients=120,
    minutes=1.5,
)


def by_hand(
    checkpoint: Path,
    *,
    n: int = 199,
    threshold: float = 0.0,
    tested: Sequence[float] = (),
    screened: Sequence[float] = (),
    hard: Sequence[float] = (),
    occlusion_threshold: float = -math.inf,
    occluded: Sequence[float] = (),
    alpha: float = 0.01,
) -> Calibration:
    """Of a checkpoint's folder. By default screen and occlusion hand everything on that falls at all, and no clean
    radiograph has ever scored: whatever is tested has p = 1/200, and random patches do nothing."""
    card = read_card(checkpoint)
    nothing = np.zeros((len(FINDINGS), 99), np.float32)
    leads = (0.0,) * len(tested)
    return Calibration(
        checkpoint_id=card.id,
        weights_sha256=card.weights_sha256,
        reading_sha256=reading_digest(card),
        reference=Reference(
            n,
            threshold,
            tuple(sorted(tested)),
            tuple(sorted(screened)),
            leads,
            leads,
            33,
            tuple(sorted(hard)),
            occlusion_threshold,
            tuple(sorted(occluded)),
        ),
        nulls=Nulls({8: nothing, 32: nothing}, {8: nothing[:, 0], 32: nothing[:, 0]}, np.ones(14, np.float32)),
        donors=DonorNames(5501, tuple(range(DONORS))),
        origin=ORIGIN,
        alpha=alpha,
        reliability={name: [(0.1, 0.0, 40), (0.4, 0.3, 40), (0.8, 0.9, 40)] for name in FINDINGS},
        history=({**vars(ORIGIN), "made_by": "Bo", "n": 120, "alpha": 0.01, "decides": True},),
    )


def put(data_dir: Path, checkpoint: Path, calibration: Calibration) -> Path:
    """Where a server with that data folder looks for it."""
    card = read_card(checkpoint)
    return write_calibration(calibration_folders(data_dir, checkpoint, card.weights_sha256)[0], calibration)
