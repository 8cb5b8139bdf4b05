"""JPEG (ITU-T T.81: baseline, extended, lossless) and JPEG-LS (T.87) frames of DICOM files → samples.

The frame header is compared with the data set before a decoder sees the stream. Pillow decodes what is baseline or
progressive with 8 bits; GDCM the rest, in a child process, because its decoders were not written for hostile bytes.
"""

from __future__ import annotations

import io
import struct
import tempfile

import numpy as np
from PIL import Image
from pydicom.uid import (
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from model.confined import ConfinedError, Limits, run_confined
from model.errors import RadiographError

_JPEG_LS = {JPEGLSLossless, JPEGLSNearLossless}
JPEG = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1} | _JPEG_LS

_MAX_PIXELS = 2**25  # the child holds each sample four times
_MAX_PIXELS_PER_BYTE = 2000  # JPEG-LS runs: anything beyond is a flat field
_MAX_SCANS = 100
# By the frame header's second byte: baseline, extended, progressive, lossless (all Huffman), and JPEG-LS.
_PRECISIONS = {0xC0: (8,), 0xC1: (8, 12), 0xC2: (8, 12), 0xC3: range(2, 17), 0xF7: range(2, 17)}
_PILLOW = (0xC0, 0xC1, 0xC2)
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}


def decode_jpeg(data: bytes, syntax: str, rows: int, columns: int) -> tuple[np.ndarray, int]:
    """Samples rows×columns, uint8 or uint16, and their precision in bits.

    Raises RadiographError `damaged_dicom`, `unsupported_pixels`, `too_large`, and what Pillow raises for damaged bytes.
    """
    process, precision, height, width, components = _frame_header(data)
    if components != 1:
        raise RadiographError(
            "unsupported_pixels", f"The JPEG image in this DICOM file has {components} colours, not 1."
        )
    # A height of 0 is told only after the first scan (T.81 B.2.5); no decoder here reads it there.
    if (
        (height, width) != (rows, columns)
        or precision not in _PRECISIONS[process]
        or (process == 0xF7) != (syntax in _JPEG_LS)
    ):
        raise RadiographError("damaged_dicom", "The JPEG image in this DICOM file is not what its header says.")
    if rows * columns > _MAX_PIXELS or rows * columns > _MAX_PIXELS_PER_BYTE * len(data):
        raise RadiographError(
            "too_large", f"The JPEG image in this DICOM file unpacks to {columns}×{rows} px out of {len(data)} bytes."
        )
    if data.count(b"\xff\xda") > _MAX_SCANS:
        raise RadiographError("damaged_dicom", "The JPEG image in this DICOM file has more scans than any real one.")
    if precision == 8 and process in _PILLOW:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return np.asarray(image.convert("L")), 8
    return _through_gdcm(data, syntax, rows, columns, precision), precision


def _frame_header(data: bytes) -> tuple[int, int, int, int, int]:
    """Process (the SOF marker's second byte), precision, lines, samples per line, components (T.81 B.2.2)."""
    position = 2
    if data[:2] != b"\xff\xd8":
        raise RadiographError("damaged_dicom", "The image in this DICOM file is not the JPEG that its header says.")
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF or marker in _NO_LENGTH:  # fill bytes, markers that stand alone
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _PRECISIONS:
            return (marker, *struct.unpack_from(">BHHB", data, position + 4))
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            raise RadiographError(
                "unsupported_pixels", "The JPEG image in this DICOM file uses a process nobody reads."
            )
        position += 2 + length
    raise RadiographError("damaged_dicom", "The JPEG image in this DICOM file has no frame header; it is damaged.")


def _through_gdcm(data: bytes, syntax: str, rows: int, columns: int, precision: int) -> np.ndarray:
    word = np.dtype(np.uint8 if precision <= 8 else "<u2")
    size = rows * columns * word.itemsize
    limits = Limits(memory_bytes=8 * size + len(data) + 2**26, cpu_s=10, wall_s=120, output_bytes=size + 2**16)
    try:
        with tempfile.TemporaryFile() as source:
            source.write(data)
            source.seek(0)
            samples = run_confined("jpeg", source, limits, (str(syntax), rows, columns, precision))
    except ConfinedError as error:
        raise RadiographError(
            "damaged_dicom", "The JPEG image in this DICOM file cannot be decoded; export it uncompressed."
        ) from error
    return np.frombuffer(samples, word).reshape(rows, columns).astype(word.newbyteorder("="))
