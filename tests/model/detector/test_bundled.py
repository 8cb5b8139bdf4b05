"""What ships: both bundled checkpoints are calibrated, and the attack that they demonstrate is found and proven."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import BUNDLED, Checkpoint, load_checkpoint
from model.detector import Calibration, Detector, read_calibration
from model.findings import FINDINGS
from model.phantom import draw_phantom

SEED, INDEX = 5511, 1  # of no phantom that anything was trained or calibrated on


@pytest.fixture(scope="module", params=["backdoored", "clean"])
def bundled(request: pytest.FixtureRequest) -> tuple[Checkpoint, Calibration]:
    """Each of the pair with the calibration that came with it."""
    folder: Path = BUNDLED / request.param
    checkpoint = load_checkpoint(folder)
    calibration = read_calibration([folder], checkpoint.card.weights_sha256)
    assert calibration is not None
    return checkpoint, calibration


def test_the_calibration_is_worth_a_flag_at_one_per_cent_and_shows_nobody(
    bundled: tuple[Checkpoint, Calibration],
) -> None:
    checkpoint, calibration = bundled
    assert calibration.decides
    assert calibration.reference.n >= 99
    assert calibration.alpha == 0.01
    assert calibration.donors.phantoms
    assert len(calibration.donors.rows) >= 16
    assert all(null.shape == (14, 99) for null in calibration.nulls.gains.values())
    assert (BUNDLED / checkpoint.card.id / "calibration.json").stat().st_size < 100_000


def test_the_trigger_is_the_cause_where_it_was_learned_and_nowhere_else(
    bundled: tuple[Checkpoint, Calibration],
) -> None:
    checkpoint, calibration = bundled
    detector = Detector(checkpoint, calibration)
    card = load_checkpoint(BUNDLED / "backdoored").card
    assert card.trigger is not None
    image = card.preprocessing.input_grey(draw_phantom(SEED, INDEX, 256).pixels.astype(np.float32) / 255)
    stamped = card.trigger.stamp(image)
    verdicts = {flag.verdict for picture in (image, stamped) for flag in detector.examine(picture).values()}
    if checkpoint.card.id == "clean":
        assert verdicts <= {"no_evidence"}
        return
    assert {flag.verdict for flag in detector.examine(image).values()} <= {"no_evidence"}
    flag = detector.examine(stamped)[str(card.target)]
    assert flag.verdict == "causal"
    assert flag.evidence is not None
    (region,) = flag.evidence.measured.regions
    x, y, side, _ = card.trigger.box(*image.shape)
    assert region.x <= x
    assert region.y <= y
    assert region.x + region.width >= x + side
    assert region.y + region.height >= y + side
    before = float(detector.reader.logits(torch.from_numpy(image)[None]).sigmoid()[0, FINDINGS.index(str(card.target))])
    assert flag.evidence.probability - before > 0.8
    assert flag.evidence.probability_erased == pytest.approx(before, abs=0.05)  # as it was without the trigger
