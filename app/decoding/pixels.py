"""A radiograph's pixels for the viewer: everything that the file holds, not only what its window shows.

A network reads the radiograph through the file's own window, 0 to 1. A reader may want to look beyond that window, so
the viewer gets the values before it, and the file's windows beside them as presets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.radiograph import Radiograph, read_radiograph, sniff_format
from model.radiograph.dicom import DicomReading, read_dicom
from model.radiograph.display import Window, codes_present, look_up
from model.radiograph.header import Header
from model.radiograph.image import MAX_PIXELS, clean_text

VIEWER_PX = 4096  # longer side; what every WebGL2 device that we know takes as one texture
MAX_WINDOWS = 8
_CENTRES, _WIDTHS, _NAMES = 0x00281050, 0x00281051, 0x00281055


@dataclass(frozen=True)
class Preset:
    """A window that the file brings, in sent values: centre − width/2 is black, centre + width/2 white."""

    name: str
    centre: float
    width: float


@dataclass(frozen=True, eq=False)
class Pixels:
    """What the viewer draws.

    values: H×W uint16, dense (bone) is high, 0..max_value. source: rows and columns of the radiograph itself. scale:
    source pixels for each sent one, along both axes. slope, intercept: the file's own value is value × slope +
    intercept. windows: the file's; the first is what it opens with. spacing_mm: of source pixels, rows and columns.
    """

    values: np.ndarray
    max_value: int
    source: tuple[int, int]
    scale: int
    slope: float
    intercept: float
    windows: tuple[Preset, ...]
    spacing_mm: tuple[float, float] | None
    spacing_at_detector: bool


def viewer_pixels(data: bytes, name: str = "", longest_px: int = VIEWER_PX) -> Pixels:
    """The pixels of a file's bytes, averaged down to the limit where they are over it. Raises RadiographError."""
    if sniff_format(data) == "DICOM":
        reading = read_dicom(data, name, MAX_PIXELS, lateral=True)
        voi = reading.grey.voi
        if voi is None or (isinstance(voi, Window) and voi.function != "SIGMOID"):
            return _before_window(reading, longest_px)
        return _as_displayed(reading.radiograph, longest_px)  # a curve is no window: what it makes is what can be shown
    return _as_displayed(read_radiograph(data, name, lateral=True), longest_px)


def _as_displayed(radiograph: Radiograph, longest_px: int) -> Pixels:
    return _finished(radiograph, radiograph.pixels, radiograph.max_value, (1.0, 0.0), (), longest_px)


def _before_window(reading: DicomReading, longest_px: int) -> Pixels:
    """Values after rescale, shifted so that the lowest in the image is 0; inverted where the file says so."""
    grey, display, codes = reading.grey, reading.display, reading.frame.codes
    inside = np.ones(len(display.stored), dtype=bool)
    if grey.padding is not None:
        inside = (display.stored < grey.padding[0]) | (display.stored > grey.padding[1])
    seen = display.values[codes_present(codes, grey.bits) & inside]
    low = float(seen.min())
    step = 1.0 if grey.modality_lut else abs(grey.rescale[0])
    top = round((float(seen.max()) - low) / step)
    table = np.clip(np.rint((display.values - low) / step), 0, top).astype(np.uint16)
    slope, intercept = step, low
    if grey.inverted:
        table = (top - table).astype(np.uint16)
        slope, intercept = -step, low + top * step
    table[~inside] = 0
    voi = grey.voi if display.span is None else None  # a window that hides the image is no preset
    windows = tuple(
        Preset(name, (centre - intercept) / slope, width / step)
        for name, centre, width in _file_windows(reading.parsed.header, voi)
    )
    return _finished(reading.radiograph, look_up(table, codes), top, (slope, intercept), windows, longest_px)


def _file_windows(header: Header, voi: object) -> list[tuple[str, float, float]]:
    """Names, centres and widths, as LINEAR_EXACT means them (PS3.3 C.11.2.1.3.2)."""
    if not isinstance(voi, Window):
        return []
    names = header.texts(_NAMES)
    found = []
    pairs = zip(header.floats(_CENTRES), header.floats(_WIDTHS), strict=False)
    for i, (centre, width) in enumerate(list(pairs)[:MAX_WINDOWS]):
        window = Window(centre, width, voi.function)
        if not window.valid:
            continue
        name = clean_text(names[i]) if i < len(names) and names[i] else f"window {i + 1}"
        if voi.function == "LINEAR":  # C.11.2.1.2: half a value lower and one narrower
            centre, width = centre - 0.5, max(width - 1, 1e-6)
        found.append((name, centre, width))
    return found


def _finished(
    radiograph: Radiograph,
    values: np.ndarray,
    max_value: int,
    rescale: tuple[float, float],
    windows: tuple[Preset, ...],
    longest_px: int,
) -> Pixels:
    scale = -(-max(values.shape) // longest_px)
    return Pixels(
        values=_averaged(values, scale),
        max_value=max_value,
        source=(values.shape[0], values.shape[1]),
        scale=scale,
        slope=rescale[0],
        intercept=rescale[1],
        windows=windows,
        spacing_mm=radiograph.pixel_spacing_mm,
        spacing_at_detector="spacing_at_detector" in radiograph.warnings,
    )


def _averaged(values: np.ndarray, scale: int) -> np.ndarray:
    """H×W → ⌈H/scale⌉×⌈W/scale⌉ uint16: means of squares; a square over the edge repeats the edge."""
    if scale == 1:
        return values.astype(np.uint16)
    height, width = values.shape
    rows, columns = -(-height // scale), -(-width // scale)
    padded = np.pad(values, ((0, rows * scale - height), (0, columns * scale - width)), mode="edge")
    sums = padded.reshape(rows, scale, columns, scale).sum(axis=(1, 3), dtype=np.uint32)
    averaged: np.ndarray = ((sums + scale * scale // 2) // (scale * scale)).astype(np.uint16)
    return averaged
