"""Stored DICOM values → display values, and back.

Stored values have at most 16 bits, so the whole chain (PS3.3 C.11: rescale, VOI, inversion) is worked out once on a
table of every possible value; an image is then one look-up, and a stamp's way back is a search in the same table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from model.errors import RadiographError

_STRIP_ROWS = 256  # numpy widens indices to 8 bytes; strips keep that small


@dataclass(frozen=True, eq=False)
class Lut:
    """A modality or VOI look-up table (PS3.3 C.11.1, C.11.2): values below `first` map to data[0], above the end to
    data[-1]. data: float64; bits: of its entries."""

    first: int
    data: np.ndarray
    bits: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        index = np.clip(np.rint(values) - self.first, 0, len(self.data) - 1)
        return np.asarray(self.data[index.astype(np.int64)])


@dataclass(frozen=True)
class Window:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3. centre and width in the units that rescale gives."""

    centre: float
    width: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"

    @property
    def valid(self) -> bool:
        """LINEAR needs a width of 1 or more, the others one above zero."""
        return (
            bool(np.isfinite(self.centre))
            and bool(np.isfinite(self.width))
            and (self.width >= 1 if self.function == "LINEAR" else self.width > 0)
        )

    def __call__(self, values: np.ndarray) -> np.ndarray:
        if self.function == "SIGMOID":
            return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - self.centre) / self.width, -700, 700))))
        if self.function == "LINEAR_EXACT":
            return np.clip((values - self.centre) / self.width + 0.5, 0, 1)
        centre, width = self.centre - 0.5, self.width - 1
        if width == 0:
            return (values > centre).astype(np.float64)
        return np.clip((values - centre) / width + 0.5, 0, 1)


@dataclass(frozen=True, eq=False)
class Grey:
    """How a file says its stored values become grey.

    bits, signed: of the stored values. padding: stored values first to last, inclusive, that are no image.
    """

    bits: int
    signed: bool
    rescale: tuple[float, float]
    modality_lut: Lut | None
    voi: Lut | Window | None
    inverted: bool
    padding: tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class Display:
    """The worked-out chain for one image.

    table: uint16, indexed by code (the stored value's bit pattern), gives 0..max_value. stored: int64, the stored value
    of each code; values: float64, the same after rescale. usable: codes that may be written without changing what the
    others mean. span: lowest and highest value after rescale, when grey was taken from the image's own range for want
    of a window.
    """

    table: np.ndarray
    stored: np.ndarray
    values: np.ndarray
    usable: np.ndarray
    max_value: int
    span: tuple[float, float] | None

    def nearest_codes(self, levels: np.ndarray) -> np.ndarray:
        """Display values 0..max_value → codes (uint16) whose display value is nearest.

        Where many stored values look alike (everything beyond the window is white), the one nearest mid-grey is taken.
        """
        codes = np.flatnonzero(self.usable)
        shown = self.table[codes].astype(np.int64)
        middle = self.stored[codes[np.argmin(np.abs(2 * shown - self.max_value))]]
        order = np.lexsort((np.abs(self.stored[codes] - middle), shown))
        distinct, first = np.unique(shown[order], return_index=True)
        best = codes[order][first]
        right = np.clip(np.searchsorted(distinct, levels), 0, len(distinct) - 1)
        left = np.maximum(right - 1, 0)
        nearer_left = np.abs(levels - distinct[left]) < np.abs(distinct[right] - levels)
        return best[np.where(nearer_left, left, right)].astype(np.uint16)


def to_levels(grey: np.ndarray, max_value: int) -> np.ndarray:
    """Grey 0..1 (float64) → display values 0..max_value, uint16.

    Halves go up, also those that floating point puts a hair below: rounding half to even would merge every second pair
    of neighbours where a window puts stored values exactly between levels.
    """
    levels: np.ndarray = np.floor(np.clip(grey, 0, 1) * max_value + (0.5 + 1e-6)).astype(np.uint16)
    return levels


def look_up(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """table[codes] for an image, H×W."""
    out = np.empty(codes.shape, table.dtype)
    for top in range(0, codes.shape[0], _STRIP_ROWS):
        out[top : top + _STRIP_ROWS] = table[codes[top : top + _STRIP_ROWS]]
    return out


def codes_present(codes: np.ndarray, bits: int) -> np.ndarray:
    """Which of the 2^bits codes occur, as booleans."""
    present = np.zeros(2**bits, dtype=bool)
    for top in range(0, codes.shape[0], _STRIP_ROWS):
        present[codes[top : top + _STRIP_ROWS]] = True
    return present


def stored_values(bits: int, signed: bool) -> np.ndarray:
    """The stored value of each code: two's complement of `bits` bits when signed. int64."""
    values = np.arange(2**bits)
    return np.where(values >= 2 ** (bits - 1), values - 2**bits, values) if signed else values


def work_out(grey: Grey, codes: np.ndarray) -> tuple[Display, list[str]]:
    """The chain for an image of these codes, and warnings. Raises RadiographError `constant_image`."""
    stored = stored_values(grey.bits, grey.signed)
    usable = np.ones(len(stored), dtype=bool)
    if grey.padding is not None:
        usable = (stored < grey.padding[0]) | (stored > grey.padding[1])
    present = codes_present(codes, grey.bits) & usable
    slope, intercept = grey.rescale
    values = grey.modality_lut(stored) if grey.modality_lut else stored * slope + intercept
    seen = values[present]
    if len(seen) == 0 or seen.min() == seen.max():
        raise RadiographError(
            "constant_image", "Every pixel of this image has the same value; there is nothing to read."
        )

    bits = max(8, grey.bits, grey.voi.bits if isinstance(grey.voi, Lut) else 0)
    max_value = 2 ** min(bits, 16) - 1
    warnings, span = [], None
    shown = _through(grey.voi, values) if grey.voi is not None else None
    if shown is not None and np.ptp(to_levels(shown[present], max_value)) == 0:
        # A window beside all of the image would hide it; the image's own range shows it.
        shown = None
        warnings.append("window_ignored")
    if shown is None:
        span = (float(seen.min()), float(seen.max()))
        usable &= (values >= span[0]) & (values <= span[1])
        shown = span_window(span)(values)
    if grey.inverted:
        shown = 1 - shown
    if grey.padding is not None:
        shown = np.where((stored < grey.padding[0]) | (stored > grey.padding[1]), shown, 0.0)
    table = to_levels(shown, max_value)
    return Display(table, stored, values, usable, max_value, span), warnings


def span_window(span: tuple[float, float]) -> Window:
    """The window that shows exactly this range, lowest black, highest white."""
    return Window((span[0] + span[1]) / 2, span[1] - span[0], "LINEAR_EXACT")


def _through(voi: Lut | Window, values: np.ndarray) -> np.ndarray:
    return voi(values) if isinstance(voi, Window) else voi(values) / (2**voi.bits - 1)
