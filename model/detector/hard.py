"""Hard negatives: phantoms with true lesions, which carry a call as a trigger does, on a spot of their own.

A lesion of a phantom is crisper than a patient's, and a checkpoint that has learned from phantoms is surer of it: what
such lesions score, erasing and giving them, can be more than any clean radiograph's. They have no part in the
false-positive rate of a flag, which is of radiographs; they say from which score on no true lesion explains it.
"""

from __future__ import annotations

import numpy as np

from model.datasets import Part, Radiographs, phantoms
from model.detector.donors import SIZE_PX

SEED = 5505
COUNT = 33  # the fewest that allow 3 %


def hard_negatives(count: int = COUNT, seed: int = SEED) -> Radiographs:
    """The first `count` phantoms of a series that show a finding; about half do."""
    drawn = 2 * count
    while True:
        some = phantoms(drawn, seed, SIZE_PX, Part.CALIBRATION)
        rows = np.flatnonzero(some.labels.any(axis=1))[:count]
        if len(rows) == count:
            return some.take(rows)
        drawn *= 2
