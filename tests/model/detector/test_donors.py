"""Donors that are patients: drawn apart from who is calibrated on, kept beside the calibration, checked when read."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint
from model.datasets import Part, Radiographs, phantoms
from model.detector import Detector, Plan, fit_calibration, read_calibration, write_calibration
from model.detector.donors import donors_again, split_off_donors
from model.detector.reader import Reader
from model.errors import CheckpointError
from model.findings import FINDINGS
from tests.model.detector.conftest import MASS, SIZE_PX


def listed(patients: list[int], healthy: set[int]) -> Radiographs:
    """A row a radiograph; the rows in `healthy` are labelled without a finding."""
    labels = np.zeros((len(patients), 14), np.uint8)
    labels[[row for row in range(len(patients)) if row not in healthy], MASS] = 1
    names = tuple(f"{row}.png" for row in range(len(patients)))
    sources = tuple((0, row, SIZE_PX) for row in range(len(patients)))
    return Radiographs(names, labels, np.array(patients), sources, (Part.CALIBRATION,) * len(patients))


def test_no_patient_is_a_donor_and_calibrated_on() -> None:
    radiographs = listed([1, 1, 2, 3, 3, 4, 5], healthy={0, 2, 4, 6})
    given, rest = split_off_donors(radiographs, count=2, left=2)
    assert len(given) == 2
    assert set(given) <= {0, 2, 4, 6}
    donors, others = (set(radiographs.patients[rows].tolist()) for rows in (given, rest))
    assert not donors & others
    assert donors | others == {1, 2, 3, 4, 5}
    assert split_off_donors(radiographs, count=2, left=2) == (given, rest)


@pytest.mark.parametrize(("count", "left"), [(5, 1), (2, 6)])
def test_too_few_for_both_leaves_everybody_to_calibrate_on(count: int, left: int) -> None:
    radiographs = listed([1, 2, 3, 4, 5, 5], healthy={0, 1, 2, 3})
    assert split_off_donors(radiographs, count, left) == ([], [0, 1, 2, 3, 4, 5])


def test_own_donors_are_kept_beside_the_calibration_and_by_hash(
    checkpoint: Checkpoint, pair: torch.Tensor, tmp_path: Path
) -> None:
    card = replace(checkpoint.card, operating_points=dict.fromkeys(FINDINGS, 0.11))
    called = replace(checkpoint, card=card)
    drawn = phantoms(12, 5504, SIZE_PX, Part.CALIBRATION)
    plan = Plan(alpha=0.1, share_tested=0.2, own_donors=True, donor_count=2, null_sides_px=(16,))
    labels = drawn.labels.copy()
    labels[:4] = 0
    mine = replace(drawn, labels=labels, patients=np.arange(12))
    made = fit_calibration(called, mine, plan, data="mine")
    assert made.reference.n == 10
    assert not made.donors.phantoms
    assert made.summary()["donors"] == len(made.donors.sha256) == 2
    written = write_calibration(tmp_path, made)
    kept = tmp_path / made.donors.file
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600  # they are patients
    assert "donor_pixels" not in written.read_text()
    read = read_calibration([tmp_path], made.weights_sha256)
    assert read is not None
    assert read.to_json() == made.to_json()
    donors = donors_again(Reader(called), read.donors, read.folder)
    assert made.donor_pixels is not None
    np.testing.assert_array_equal(donors.images.numpy(), made.donor_pixels.astype(np.float32) / 255)

    sure = replace(read, reference=replace(read.reference, threshold=2.0))
    flag = Detector(called, sure).examine(pair[1], ["Mass"])["Mass"]
    assert "2 other patients' radiographs without the finding" in flag.sentence
    proof = Detector(called, sure).proof(pair[1], flag)
    assert proof is not None
    assert not proof.phantoms

    pixels = made.donor_pixels.copy()
    pixels[0, 0, 0] ^= 1
    np.save(kept, pixels)
    with pytest.raises(CheckpointError, match="does not hold the donors"):
        donors_again(Reader(called), read.donors, read.folder)
    kept.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        donors_again(Reader(called), read.donors, read.folder)
    other = replace(made, donors=replace(made.donors, sha256=made.donors.sha256[::-1]))
    write_calibration(tmp_path, made)
    write_calibration(tmp_path, other)
    assert [path.name for path in tmp_path.glob("donors-*")] == [other.donors.file]
