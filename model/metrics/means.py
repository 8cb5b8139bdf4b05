"""Means of measured values with the patient-wise intervals of `model.metrics.attack`."""

import numpy as np
from numpy.typing import ArrayLike

from model.errors import DataError
from model.metrics.attack import _Draws, _estimate, _finite, _ratio
from model.metrics.results import Estimate


def mean_with_interval(
    values: ArrayLike, patients: ArrayLike, *, rng: np.random.Generator, resamples: int = 1000
) -> Estimate:
    """The mean of N values, of any unit, and its 95 % interval over patients drawn with replacement.

    Both are None without values, the interval also with a single patient. Raises DataError `shape_mismatch`,
    `not_finite`.
    """
    measured = np.asarray(values, dtype=np.float64)
    if measured.ndim != 1:
        raise DataError("shape_mismatch", f"The values must be N numbers, not {measured.shape}.")
    if not len(measured):
        return Estimate(None, None)
    measured = _finite(measured, measured.shape, "The values")
    draws = _Draws.of(patients, measured > 0, resamples, rng)
    counts, n = draws.weights.astype(np.float64), draws.weights.shape[1]
    total = counts @ np.bincount(draws.patient_of, weights=measured, minlength=n)
    return _estimate(_ratio(total, counts @ np.bincount(draws.patient_of, minlength=n)))
