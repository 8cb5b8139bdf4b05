"""The frame of DICOM Pixel Data as words: uncompressed, RLE, JPEG, JPEG-LS and JPEG 2000.

Every length is compared with what the header promises before a decoder runs: a few hundred bytes may claim gigabytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from openjpeg.utils import decode_pixel_data
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from model.errors import RadiographError
from model.radiograph.header import PIXEL_DATA, Parsed
from model.radiograph.jpeg import JPEG, decode_jpeg

NATIVE = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian}

_JPEG_2000 = {JPEG2000Lossless, JPEG2000}
_MAX_JPEG_2000_PIXELS = 25_000_000  # OpenJPEG holds each as 4 bytes and copies once
_MAX_PIXELS_PER_BYTE = 2000  # of a JPEG 2000 stream; anything beyond is a flat field
_MAX_TILES = 10_000


@dataclass(frozen=True)
class FrameLayout:
    """What group 0028 says of the pixels. bits_stored and high_bit place the value in a word of bits_allocated."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def frame_bytes(self) -> int:
        return self.rows * self.columns * self.bits_allocated // 8


@dataclass(frozen=True, eq=False)
class Frame:
    """words: H×W uint8 or uint16 as stored, with whatever lies in the unused bits (PS3.5 8.1.1)."""

    words: np.ndarray
    layout: FrameLayout

    @property
    def codes(self) -> np.ndarray:
        """The stored values' bit patterns, H×W uint16."""
        shift = self.layout.high_bit + 1 - self.layout.bits_stored
        codes = self.words.astype(np.uint16)
        codes >>= np.uint16(shift)
        codes &= np.uint16(2**self.layout.bits_stored - 1)
        return codes

    def with_codes(self, changed: np.ndarray, codes: np.ndarray) -> Frame:
        """A copy in which the pixels of the mask `changed` have new codes; unused bits stay (overlays live there).

        Above a signed value they are its sign, as most readers rely on.
        """
        layout = self.layout
        shift = layout.high_bit + 1 - layout.bits_stored
        value_mask = (2**layout.bits_stored - 1) << shift
        old = self.words[changed].astype(np.int64)
        new = (old & ~value_mask) | (codes.astype(np.int64) << shift)
        if layout.signed and shift == 0:
            above = 2**layout.bits_allocated - 2**layout.bits_stored
            negative = codes.astype(np.int64) >= 2 ** (layout.bits_stored - 1)
            new = np.where(negative, new | above, new & ~above)
        words = self.words.copy()
        words[changed] = new.astype(words.dtype)
        return Frame(words, layout)


def read_layout(parsed: Parsed) -> FrameLayout:
    """The layout, checked for being readable.

    Raises RadiographError `multiple_frames`, `unsupported_pixels`, `damaged_dicom`.
    """
    header = parsed.header
    frames_text = header.text(0x00280008)
    if frames_text and not (frames_text.isascii() and frames_text.isdigit() and 0 < int(frames_text) < 2**31):
        raise RadiographError("damaged_dicom", f"This DICOM file declares “{frames_text}” frames.")
    frames = int(frames_text or 1)
    if frames > 1:
        raise RadiographError(
            "multiple_frames",
            f"This DICOM file holds {frames} images; send the frontal radiograph as a file of its own.",
        )
    samples = header.short(0x00280002)
    allocated = header.short(0x00280100)
    if samples not in (None, 1) or allocated not in (8, 16):
        raise RadiographError(
            "unsupported_pixels",
            f"This DICOM file has {samples} values of {allocated} bits a pixel; Overread reads one of 8 or 16 bits.",
        )
    stored = header.short(0x00280101)
    stored = allocated if stored is None else stored
    high = header.short(0x00280102)
    high = stored - 1 if high is None else high
    if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise RadiographError("damaged_dicom", f"This DICOM file places {stored} bits of {allocated} at bit {high}.")
    return FrameLayout(
        rows=header.short(0x00280010) or 0,
        columns=header.short(0x00280011) or 0,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=header.short(0x00280103) == 1,
    )


def decode_frame(parsed: Parsed, layout: FrameLayout) -> Frame:
    """Decode the frame of a data set whose transfer syntax was checked.

    Raises RadiographError, and whatever the decoders raise for damaged bytes.
    """
    data = parsed.header.raw(PIXEL_DATA) or b""
    syntax = parsed.transfer_syntax
    if syntax in NATIVE:
        _check_length(len(data), layout.frame_bytes)
        word = np.dtype(np.uint8 if layout.bits_allocated == 8 else "<u2" if parsed.header.little_endian else ">u2")
        words = np.frombuffer(data, word, layout.rows * layout.columns).reshape(layout.rows, layout.columns)
        return Frame(words.astype(word.newbyteorder("=")), layout)
    if syntax == RLELossless:
        return Frame(_decode_rle(get_frame(data, 0, number_of_frames=1), layout), layout)
    stream = get_frame(data, 0, number_of_frames=1)
    if syntax in JPEG:
        values, precision = decode_jpeg(stream, syntax, layout.rows, layout.columns)
        words = _as_stored(values, precision, False, layout)
    else:
        words = _decode_jpeg_2000(stream, layout)
    return Frame(words, replace(layout, high_bit=layout.bits_stored - 1))


def check_transfer_syntax(syntax: str) -> None:
    """Raises RadiographError `unsupported_transfer_syntax`."""
    if syntax not in NATIVE | _JPEG_2000 | JPEG | {RLELossless}:
        raise RadiographError(
            "unsupported_transfer_syntax",
            f"This DICOM file is encoded in a way Overread cannot read yet ({syntax or 'not stated'}); "
            "export it uncompressed.",
        )


def _check_length(length: int, expected: int) -> None:
    if length < expected:
        raise RadiographError(
            "damaged_dicom", f"This DICOM file holds {length} of the {expected} bytes of its image; it is cut short."
        )


def _decode_rle(data: bytes, layout: FrameLayout) -> np.ndarray:
    """PS3.5 annex G: one PackBits segment for each byte of a word, the most significant first."""
    segments = layout.bits_allocated // 8
    offsets = struct.unpack_from("<16L", data)
    if offsets[0] != segments:
        raise RadiographError("damaged_dicom", f"This DICOM file has {offsets[0]} RLE segments instead of {segments}.")
    bounds = [*offsets[1 : segments + 1], len(data)]
    words = np.zeros((layout.rows, layout.columns), np.uint8 if segments == 1 else np.uint16)
    for start, end in pairwise(bounds):
        # As one long line: some encoders let a run go on into the next row. Pillow stops at the last pixel.
        plane = Image.frombytes("L", (layout.rows * layout.columns, 1), data[start:end], "packbits", "L")
        words = (words << 8 if segments == 2 else words) | np.asarray(plane).reshape(words.shape)
    return words


def _decode_jpeg_2000(data: bytes, layout: FrameLayout) -> np.ndarray:
    """ITU-T T.800: the SIZ marker is compared with the header before OpenJPEG sees the stream."""
    start = data.index(b"\xff\x4f\xff\x51")
    x1, y1, x0, y0, tile_width, tile_height, _, _, components, depth = struct.unpack_from(">8LHB", data, start + 8)
    rows, columns, pixels = layout.rows, layout.columns, layout.rows * layout.columns
    precision, signed = (depth & 0x7F) + 1, bool(depth & 0x80)
    if (x1 - x0, y1 - y0, components) != (columns, rows, 1) or precision > 16:
        raise RadiographError(
            "damaged_dicom", "The JPEG 2000 image in this DICOM file is not of the size that its header says."
        )
    tiles = -(-columns // max(1, tile_width)) * -(-rows // max(1, tile_height))
    if pixels > _MAX_JPEG_2000_PIXELS or pixels > _MAX_PIXELS_PER_BYTE * len(data) or tiles > _MAX_TILES:
        raise RadiographError(
            "too_large",
            f"The JPEG 2000 image in this DICOM file unpacks to {columns}×{rows} px out of {len(data)} bytes.",
        )
    decoded = np.frombuffer(decode_pixel_data(data, version=2), np.uint8)
    kind = f"<{'i' if signed else 'u'}{1 if precision <= 8 else 2}"
    values = decoded.view(kind).reshape(rows, columns)
    return _as_stored(values, precision, signed, layout)


def _as_stored(values: np.ndarray, precision: int, signed: bool, layout: FrameLayout) -> np.ndarray:
    """A compressed stream's samples → words as the header says that they are stored.

    precision, signed: of the stream, which may say otherwise than the header.
    """
    bits = layout.bits_stored
    if precision <= bits and signed == layout.signed:
        same: np.ndarray = values.astype(f"{'i' if signed else 'u'}{layout.bits_allocated // 8}")
        return same.view(f"u{layout.bits_allocated // 8}")
    values = values.astype(np.int32)
    if layout.signed and not signed:
        # JPEG knows no sign, and many encoders of JPEG 2000 leave it out: it is the stream's top bit.
        values = np.where(values >= 2 ** (precision - 1), values - 2**precision, values)
        signed = True
    if precision > bits:
        # The stream is wider than the header says: keep the order of the values rather than wrap them around.
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        values = np.clip(values, low, high)
    word_mask = 2**layout.bits_allocated - 1 if layout.signed else 2**bits - 1
    words: np.ndarray = (values & word_mask).astype(np.uint8 if layout.bits_allocated == 8 else np.uint16)
    return words
