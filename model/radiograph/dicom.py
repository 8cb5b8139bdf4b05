"""DICOM bytes → Radiograph: what the header says, which frame, and how its stored values become grey."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.errors import RadiographError
from model.radiograph.display import Display, Grey, Lut, Window, look_up, work_out
from model.radiograph.frame import Frame, FrameLayout, check_transfer_syntax, decode_frame, read_layout
from model.radiograph.header import PIXEL_DATA, Header, Parsed, parse, unpack_shorts
from model.radiograph.image import Radiograph, build, check_size, damage_reported_as
from model.radiograph.subject import check_subject

_DAMAGED = "This DICOM file is damaged or cut short; export or upload it again."
_UIDS = {
    "sop_class_uid": 0x00080016,
    "sop_instance_uid": 0x00080018,
    "study_instance_uid": 0x0020000D,
    "series_instance_uid": 0x0020000E,
}


@dataclass(frozen=True, eq=False)
class DicomReading:
    """A read DICOM file with all that writing it again needs."""

    radiograph: Radiograph
    parsed: Parsed
    frame: Frame
    grey: Grey
    display: Display


def read_dicom(data: bytes, name: str, max_pixels: int, lateral: bool = False) -> DicomReading:
    """lateral: take a lateral view too, with a warning. Raises RadiographError."""
    with damage_reported_as("damaged_dicom", _DAMAGED):
        parsed = parse(data)
        header = parsed.header
        metadata, warnings = check_subject(header, lateral)
        if PIXEL_DATA not in header.dataset:
            raise RadiographError("no_pixel_data", "This DICOM file has no image in it, or is cut short before it.")
        check_transfer_syntax(parsed.transfer_syntax)
        layout = read_layout(parsed)
        grey, more = _grey(header, layout)
        warnings += more
        check_size(layout.columns, layout.rows, max_pixels, layout.bits_allocated // 8)
        frame = decode_frame(parsed, layout)
        codes = frame.codes
        display, more = work_out(grey, codes)
        warnings += more
        spacing, more = _pixel_spacing(header)
        warnings += more
        metadata |= {key: header.uid(tag) for key, tag in _UIDS.items()}
        metadata |= {
            "photometric": header.text(0x00280004),
            "bits_stored": str(layout.bits_stored),
            "transfer_syntax": parsed.transfer_syntax,
            "voi": _describe(grey, display),
        }
        radiograph = build(
            data,
            name,
            "DICOM",
            look_up(display.table, codes),
            display.max_value,
            [*parsed.warnings, *warnings],
            spacing,
            metadata,
        )
        return DicomReading(radiograph, parsed, frame, grey, display)


def _grey(header: Header, layout: FrameLayout) -> tuple[Grey, list[str]]:
    """PS3.3 C.11.1, C.11.2, C.7.6.3.1.2 and C.11.6. Raises RadiographError `unsupported_pixels`, `bad_lut`."""
    warnings = []
    photometric = header.text(0x00280004).upper()
    if not photometric:
        warnings.append("photometric_missing")
    elif photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise RadiographError(
            "unsupported_pixels", f"This DICOM file is in colour ({photometric}); radiographs are grey."
        )
    shape = header.text(0x20500020).upper()
    if (photometric, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):
        warnings.append("polarity_contradiction")

    modality_lut = _lut(header, 0x00283000, layout.signed)
    slope, intercept = (header.floats(0x00281053) or [1.0])[0], (header.floats(0x00281052) or [0.0])[0]
    if slope == 0 or abs(slope) > 1e6 or abs(intercept) > 1e9:
        slope, intercept = 1.0, 0.0
        warnings.append("rescale_ignored")
    # A VOI LUT's first value is signed where the values it maps can be (PS3.3 C.11.2.1.1).
    below_zero = modality_lut is None and (layout.signed or intercept < 0 or slope < 0)
    voi: Lut | Window | None = _lut(header, 0x00283010, below_zero)
    if voi is None:
        voi, more = _window(header)
        warnings += more
    grey = Grey(
        bits=layout.bits_stored,
        signed=layout.signed,
        rescale=(slope, intercept),
        modality_lut=modality_lut,
        voi=voi,
        # For DX the two attributes state one fact twice; together they do not cancel out.
        inverted=photometric == "MONOCHROME1" or shape == "INVERSE",
        padding=_padding(header, layout.signed),
    )
    return grey, warnings


def _window(header: Header) -> tuple[Window | None, list[str]]:
    """The first of possibly several."""
    centres, widths = header.floats(0x00281050), header.floats(0x00281051)
    if not centres or not widths:
        stated = bool(header.raw(0x00281050) or header.raw(0x00281051))
        return None, ["window_ignored"] if stated else []
    function = header.text(0x00281056).upper()
    exact, sigmoid = function == "LINEAR_EXACT", function == "SIGMOID"
    window = Window(centres[0], widths[0], "LINEAR_EXACT" if exact else "SIGMOID" if sigmoid else "LINEAR")
    return (window, []) if window.valid else (None, ["window_ignored"])


def _lut(header: Header, tag: int, signed_first: bool) -> Lut | None:
    """The first item of a Modality or VOI LUT Sequence."""
    items = header.items(tag)
    if not items:
        return None
    little = header.little_endian
    descriptor, data = items[0].raw(0x00283002) or b"", items[0].raw(0x00283006) or b""
    if len(descriptor) < 6:
        raise RadiographError("bad_lut", "A look-up table in this DICOM file does not say how long it is.")
    count, first, bits = unpack_shorts(descriptor, 3, little)
    count = count or 2**16  # PS3.3 C.11.1.1: zero stands for 65,536
    if signed_first and first >= 2**15:
        first -= 2**16
    if not 1 <= bits <= 16 or len(data) < (count if bits <= 8 else 2 * count):
        raise RadiographError("bad_lut", f"A look-up table in this DICOM file is shorter than its {count} entries.")
    if len(data) >= 2 * count:
        entries = np.array(unpack_shorts(data, count, little), dtype=np.float64)
    else:
        entries = np.frombuffer(data, np.uint8, count).astype(np.float64)
    return Lut(first, np.minimum(entries, 2**bits - 1), bits)


def _padding(header: Header, signed: bool) -> tuple[int, int] | None:
    """PS3.3 C.7.5.1.1.2: stored values that fill the image up and are no part of it."""
    value = header.short(0x00280120, signed)
    if value is None:
        return None
    limit = header.short(0x00280121, signed)
    limit = value if limit is None else limit
    return min(value, limit), max(value, limit)


def _pixel_spacing(header: Header) -> tuple[tuple[float, float] | None, list[str]]:
    """Pixel Spacing, or else Imager Pixel Spacing (at the detector, PS3.3 10.7.1.3); rows, columns, in mm."""
    stated = False
    for tag in (0x00280030, 0x00181164):
        values = header.floats(tag)
        stated = stated or bool(header.raw(tag))
        if len(values) == 2 and all(0 < value < 100 for value in values):
            return (values[0], values[1]), [] if tag == 0x00280030 else ["spacing_at_detector"]
    return None, ["pixel_spacing_invalid"] if stated else []


def _describe(grey: Grey, display: Display) -> str:
    if display.span is not None:
        return f"range {display.span[0]:g} to {display.span[1]:g}"
    if isinstance(grey.voi, Window):
        return f"window {grey.voi.centre:g}/{grey.voi.width:g} {grey.voi.function}"
    return "lookup table"
