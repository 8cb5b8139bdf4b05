"""GDCM's encoder in a process of its own: its Python objects bring the interpreter down when it ends.

`python -m tests.model.gdcm_encoder DTYPE ROWS COLUMNS SYNTAX`, samples on stdin, the stream on stdout.
"""

from __future__ import annotations

import os
import sys

import gdcm
import numpy as np

_ALIVE: list[object] = []  # the wrappers free what others still point to


def encoded(samples: np.ndarray, syntax: str) -> bytes:
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
    pixels = output.GetDataElement()
    sequence = pixels.GetSequenceOfFragments()
    fragment = sequence.GetFragment(0)
    value = fragment.GetByteValue()
    stream: bytes = value.GetBuffer().encode("utf-8", "surrogateescape")
    _ALIVE.extend([image, element, change, output, pixels, sequence, fragment, value])
    return stream


if __name__ == "__main__":
    dtype, rows, columns, syntax = sys.argv[1:]
    samples = np.frombuffer(sys.stdin.buffer.read(), dtype).reshape(int(rows), int(columns))
    sys.stdout.buffer.write(encoded(samples, syntax))
    sys.stdout.flush()
    os._exit(0)
