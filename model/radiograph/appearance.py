"""Does a picture look like a frontal chest radiograph? A cheap test on the pixels, for files whose header cannot say.

A frontal chest is two dark lungs beside a brighter mediastinum, under brighter shoulders and over a brighter abdomen,
much the same left and right, smooth at this scale, in many greys. Each of these is a number below; with them go the
brightness of 8 × 8 places, and how unusual each number is, since a chest has neither too little nor too much of any. A
logistic regression weighs them. `python -m bench.appearance` fits it, writes its numbers to `appearance.json`, and
measures it on radiographs and pictures that had no part in that.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

CELLS = 64
_PLACES = 8
_SAMPLED_PX = 512  # rows and columns that are looked at, at most
_DARK_MARGIN = 0.04  # of the range: collimation and the black beside a padded film

FEATURES = (
    "lung_contrast",
    "lung_balance",
    "mediastinum_ridge",
    "shoulders",
    "abdomen",
    "symmetry",
    "fine_share",
    "medium_share",
    "greys",
    "commonest_grey",
    "steepness",
    "spread",
)


def features(pixels: np.ndarray, max_value: int) -> np.ndarray:
    """H×W uint8 or uint16, bone bright → float64: the numbers of FEATURES, then the brightness of 8×8 places."""
    step = max(1, -(-max(pixels.shape) // _SAMPLED_PX))
    sampled = pixels[::step, ::step].astype(np.float32) / np.float32(max_value)
    low, high = np.quantile(sampled, (0.01, 0.99))
    grey = np.clip((sampled - low) / max(high - low, 1e-6), 0, 1)
    counts = np.bincount(np.rint(grey.ravel() * 63).astype(np.int64), minlength=64) / grey.size
    inner = counts[1:-1]  # burnt-out and black parts are common in radiographs, and say little
    entropy = float(-(inner[inner > 0] * np.log2(inner[inner > 0])).sum())
    cells = _cells(_without_margin(grey))
    spread = float(cells.std())
    cells = (cells - cells.mean()) / max(spread, 1e-3)
    smooth = gaussian_filter(cells, 1.5, mode="nearest")
    coarse = gaussian_filter(cells, 4, mode="nearest")
    ridge, left, right = _lungs(smooth)
    lungs = (left + right) / 2
    named = np.array(
        [
            ridge - lungs,
            -abs(left - right),
            ridge - max(left, right),
            smooth[2:10, 4:60].mean() - lungs,
            smooth[50:62, 12:52].mean() - lungs,
            _symmetry(coarse),
            np.log10(((cells - smooth) ** 2).mean() + 1e-6),
            np.log10(((smooth - coarse) ** 2).mean() + 1e-6),
            entropy,
            inner.max(),
            np.log10(np.abs(np.diff(grey, axis=1)).mean() + 1e-6),
            spread,
        ]
    )
    side = CELLS // _PLACES
    return np.concatenate([named, cells.reshape(_PLACES, side, _PLACES, side).mean(axis=(1, 3)).ravel()])


def _without_margin(grey: np.ndarray) -> np.ndarray:
    """The part within the outermost rows and columns that are not simply dark; all of it where that is too little."""
    rows = np.flatnonzero(grey.mean(axis=1) > _DARK_MARGIN)
    columns = np.flatnonzero(grey.mean(axis=0) > _DARK_MARGIN)
    if len(rows) < grey.shape[0] / 2 or len(columns) < grey.shape[1] / 2:
        return grey
    return grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _cells(grey: np.ndarray) -> np.ndarray:
    """Means over a grid of CELLS × CELLS."""
    for axis in (0, 1):
        edges = np.linspace(0, grey.shape[axis], CELLS + 1)
        starts = np.minimum(edges[:-1].astype(np.int64), grey.shape[axis] - 1)
        ends = np.maximum(edges[1:].astype(np.int64), starts + 1)
        total = np.concatenate([np.zeros_like(grey.take([0], axis)), grey.cumsum(axis, dtype=np.float64)], axis)
        counts = (ends - starts).reshape((-1, 1) if axis == 0 else (1, -1))
        grey = (total.take(ends, axis) - total.take(starts, axis)) / counts
    return grey


def _lungs(smooth: np.ndarray) -> tuple[float, float, float]:
    """Of a band at the height of the lungs: the brightest column near the middle, the darkest on either side of it."""
    band = smooth[14:38].mean(axis=0)
    middle = 22 + int(band[22:43].argmax())
    left = band[6 : max(middle - 4, 7)]
    right = band[min(middle + 5, 57) : 58]
    return float(band[middle]), float(left.min()), float(right.min())


def _symmetry(coarse: np.ndarray) -> float:
    """Correlation with the mirror image, at the best of a few axes near the middle; −1..1."""
    best = -1.0
    for axis in range(CELLS - 8, CELLS + 9, 2):  # twice the mirror's column
        start, end = max(0, axis - CELLS), min(CELLS, axis)
        part = coarse[:, start:end]
        part = part - part.mean()
        power = float((part * part).sum())
        best = max(best, float((part * part[:, ::-1]).sum()) / power if power > 1e-9 else -1.0)
    return best


def score(found: np.ndarray) -> float:
    """A weighed sum of the features, of how far the first twelve are from usual, and of the layout; high is a chest."""
    fitted = _fitted()
    named, layout = found[: len(FEATURES)], found[len(FEATURES) :]
    unusual = ((named - fitted["mean"]) / fitted["deviation"]) ** 2
    return float(named @ fitted["linear"] + unusual @ fitted["square"] + layout @ fitted["layout"])


def looks_like_a_chest_radiograph(pixels: np.ndarray, max_value: int) -> bool:
    """Whether the score reaches what 997 of 1,000 radiographs reach. H×W uint8 or uint16, bone bright."""
    return score(features(pixels, max_value)) >= float(_fitted()["least"][0])


@cache
def _fitted() -> dict[str, np.ndarray]:
    content = json.loads(Path(__file__).with_name("appearance.json").read_text("utf-8"))
    return {name: np.array(numbers, dtype=np.float64) for name, numbers in content.items()}
