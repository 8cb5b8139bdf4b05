"""One grey JPEG or JPEG-LS frame → its samples, through GDCM (Apache-2.0; its JPEG-LS is CharLS)."""

from __future__ import annotations

from typing import BinaryIO

import gdcm

from model.confined.child import Refused


def main(source: BinaryIO, answer: BinaryIO, syntax: str, rows: int, columns: int, precision: int) -> None:
    """Writes rows × columns little-endian words, of 8 bits up to a precision of 8, else of 16.

    syntax: transfer syntax UID. precision: of the stream's samples, which are unsigned.
    """
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(source.read())
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    allocated = 8 if precision <= 8 else 16
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, precision, precision - 1, 0))
    samples = image.GetBuffer().encode("utf-8", "surrogateescape")  # SWIG hands bytes out as text
    if len(samples) != rows * columns * allocated // 8:
        raise Refused("damaged", "The stream does not hold the samples that it promises.")
    answer.write(samples)
