"""JPEG and JPEG-LS streams of grey samples, for tests: a lossless encoder of our own, and GDCM's."""

from __future__ import annotations

import struct

import gdcm
import numpy as np

_ALIVE: list[object] = []  # GDCM's wrappers free what others still point to


def lossless_jpeg(samples: np.ndarray, precision: int) -> bytes:
    """ITU-T T.81 annex H by hand, predictor 1 (the left neighbour), point transform 0: independent of any library.

    samples: H×W unsigned below 2^precision. The Huffman table gives each of the 17 difference categories a code of
    five bits, so that code c of category c is simply c.
    """
    height, width = samples.shape
    values = samples.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 2 ** (precision - 1)
    bits = []
    for difference in ((values - predicted + 2**15) % 2**16 - 2**15).ravel().tolist():
        if difference == -(2**15):
            category, extra = 16, ""  # H.1.2.2: 32768 has no extra bits
        else:
            category = abs(difference).bit_length()
            low = difference if difference > 0 else difference + 2**category - 1
            extra = format(low, f"0{category}b") if category else ""
        bits.append(format(category, "05b") + extra)
    joined = "".join(bits)
    joined += "1" * (-len(joined) % 8)
    coded = int(joined, 2).to_bytes(len(joined) // 8, "big").replace(b"\xff", b"\xff\x00")

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))
    return (
        b"\xff\xd8"
        + segment(0xC3, struct.pack(">BHHBBBB", precision, height, width, 1, 1, 0x11, 0))
        + segment(0xC4, table)
        + segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
        + coded
        + b"\xff\xd9"
    )


def through_gdcm(samples: np.ndarray, syntax: str) -> bytes:
    """A stream of the transfer syntax, with as many bits as the array's type has."""
    bits = samples.dtype.itemsize * 8
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((samples.shape[1], samples.shape[0], 1))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    image.SetPixelFormat(gdcm.PixelFormat(1, bits, bits, bits - 1, int(samples.dtype.kind == "i")))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(samples.tobytes())
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(image)
    assert change.Change()
    output = change.GetOutput()
    encoded = output.GetDataElement()
    sequence = encoded.GetSequenceOfFragments()
    fragment = sequence.GetFragment(0)
    value = fragment.GetByteValue()
    _ALIVE.extend([image, element, change, output, encoded, sequence, fragment, value])
    stream: bytes = value.GetBuffer().encode("utf-8", "surrogateescape")
    return stream
