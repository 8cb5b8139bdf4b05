"""Hard negatives are phantoms that show a finding, the same ones everywhere."""

from __future__ import annotations

import numpy as np

from model.datasets import Part
from model.detector.conformal import HARD_ALPHA, Reference
from model.detector.hard import COUNT, hard_negatives


def test_each_shows_a_finding_and_the_same_seed_draws_the_same() -> None:
    few, more = hard_negatives(3), hard_negatives(7)
    assert few.names == more.names[:3]
    assert more.labels.any(axis=1).all()
    assert np.array_equal(few.grey(0), more.grey(0))
    assert more.part(Part.CALIBRATION).names == more.names
    assert not np.array_equal(hard_negatives(3, seed=1).grey(0), few.grey(0))


def test_so_many_allow_what_may_be_called_causal() -> None:
    assert Reference(99, 0.0, (), (), (), (), COUNT).p_hard(1.0) <= HARD_ALPHA
    assert Reference(99, 0.0, (), (), (), (), COUNT - 1).p_hard(1.0) > HARD_ALPHA
