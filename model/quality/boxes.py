"""A saliency map against the boxes of a finding. Maps: H×W ≥ 0 at the boxes' resolution; boxes: x, y, width, height.

A map that is zero everywhere says nothing: it hits nothing, covers nothing, and its relevance mass is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.errors import DataError
from model.preprocess import Box, InputMap
from model.saliency import registered

Mask = NDArray[np.bool_]
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))  # shares of a map's maximum that may be tuned


def enlarged(grid: np.ndarray, size_px: int) -> np.ndarray:
    """A map at its layer's grid, h×w, at the input's resolution: size_px×size_px float32, bilinear between the cells'
    centres. Raises ConfigError `bad_map`."""
    return registered(grid, InputMap(size_px, 1.0, 1.0, 0.0, 0.0), size_px, size_px)


def box_mask(boxes: Sequence[Box], height: int, width: int) -> Mask:
    """The pixels whose centres lie in any of the boxes: height×width. Raises DataError `box_outside` when none does."""
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    mask = np.zeros((height, width), np.bool_)
    for x, y, w, h in boxes:
        mask |= ((rows >= y) & (rows < y + h))[:, None] & ((columns >= x) & (columns < x + w))
    if not mask.any():
        raise DataError("box_outside", f"No pixel of {width}×{height} lies in the boxes {list(boxes)}.")
    return mask


def pointing_hit(saliency_map: ArrayLike, mask: Mask) -> bool:
    """Pointing game (Zhang et al., IJCV 2018) without tolerance: whether the map's maximum lies in the mask.

    Of several equal maxima the first in reading order counts. Raises DataError `shape_mismatch`, `bad_map`.
    """
    values = _map(saliency_map, mask)
    return bool(values.max() > 0 and mask.ravel()[values.argmax()])


def relevance_mass(saliency_map: ArrayLike, mask: Mask) -> float:
    """Share of the map's sum that lies in the mask, 0..1 (Arras et al., Information Fusion 2022). A flat map reaches
    the mask's share of the area. Raises DataError `shape_mismatch`, `bad_map`."""
    values = _map(saliency_map, mask)
    total = values.sum()
    return float(values[mask].sum() / total) if total > 0 else 0.0


def otsu_threshold(values: ArrayLike) -> float:
    """The threshold that best parts 256 grey levels into two classes (Otsu 1979): what is above it is the upper class.

    values: any shape. A constant one has no classes: its own value, over which nothing lies. Raises DataError
    `bad_map`.
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    if not flat.size or not np.isfinite(flat).all():
        raise DataError("bad_map", "Otsu's threshold needs finite numbers.")
    low, high = float(flat.min()), float(flat.max())
    if low == high:
        return low
    levels = np.minimum((flat - low) / (high - low) * 256, 255).astype(np.intp)
    counts = np.bincount(levels, minlength=256).astype(np.float64)
    below = counts.cumsum()[:-1]
    above = flat.size - below
    sums = (counts * np.arange(256)).cumsum()
    mean_below = sums[:-1] / np.maximum(below, 1)
    mean_above = (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below * above * (mean_below - mean_above) ** 2
    return low + (int(between.argmax()) + 1) / 256 * (high - low)


def iou(one: Mask, other: Mask) -> float:
    """Intersection over union of two masks, 0..1; 0 when both are empty. Raises DataError `shape_mismatch`."""
    if one.shape != other.shape:
        raise DataError("shape_mismatch", f"Masks of {one.shape} and {other.shape} cannot be compared.")
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def box_iou(saliency_map: ArrayLike, mask: Mask, share: float | None = None) -> float:
    """IoU of the mask with the map over `share` of its maximum (0..1), by default over Otsu's threshold.

    Raises DataError `shape_mismatch`, `bad_map`, `bad_threshold`.
    """
    values = _map(saliency_map, mask)
    if share is not None and not 0 <= share < 1:
        raise DataError("bad_threshold", f"A threshold is a share of the maximum, 0 to below 1, not {share}.")
    return iou(values > (otsu_threshold(values) if share is None else share * values.max()), mask)


def tuned_threshold(ious: ArrayLike, thresholds: Sequence[float] = THRESHOLDS) -> int:
    """Which column of ious, N×T, has the highest mean; the lowest threshold of equals. Raises DataError
    `shape_mismatch`."""
    table = np.asarray(ious, dtype=np.float64)
    if table.ndim != 2 or not len(table) or table.shape[1] != len(thresholds):
        raise DataError("shape_mismatch", f"IoUs must be N×{len(thresholds)} with N ≥ 1, not {table.shape}.")
    return int(table.mean(axis=0).argmax())


def cross_fitted_iou(
    ious: ArrayLike, patients: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[np.ndarray, tuple[float, float]]:
    """Each case's IoU at a threshold tuned on the other half of the patients, N; and the two thresholds.

    ious: N×T, of N cases at T thresholds; patients: N ids. Halves: every second patient in the order of the ids, so no
    patient is in both. Raises DataError `shape_mismatch`, `one_patient`.
    """
    table, ids = np.asarray(ious, dtype=np.float64), np.asarray(patients)
    if ids.shape != table.shape[:1]:
        raise DataError("shape_mismatch", f"{len(table)} cases need as many patient ids, not {ids.shape}.")
    known, number = np.unique(ids, return_inverse=True)
    if len(known) < 2:
        raise DataError("one_patient", "A threshold can be tuned on one half and judged on the other of ≥ 2 patients.")
    result = np.empty(len(table))
    chosen = []
    for half in (0, 1):
        judged = number % 2 == half
        column = tuned_threshold(table[~judged], thresholds)
        result[judged] = table[judged, column]
        chosen.append(thresholds[column])
    return result, (chosen[0], chosen[1])


def _map(saliency_map: ArrayLike, mask: Mask) -> NDArray[np.float64]:
    values = np.asarray(saliency_map, dtype=np.float64)
    if values.shape != mask.shape or values.ndim != 2:
        raise DataError("shape_mismatch", f"A map of {values.shape} cannot be laid over a mask of {mask.shape}.")
    if not np.isfinite(values).all() or values.min() < 0:
        raise DataError("bad_map", "A saliency map must be finite and not below 0.")
    return values
