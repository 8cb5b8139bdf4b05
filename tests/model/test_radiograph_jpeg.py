"""JPEG and JPEG-LS inside DICOM: written with an encoder of our own, with Pillow and with GDCM, and read back."""

from __future__ import annotations

import struct
from itertools import product

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from model.confined import ConfinedError
from model.radiograph import jpeg as jpeg_module
from model.radiograph import read_radiograph
from tests.model.jpeg_streams import lossless_jpeg, through_gdcm
from tests.model.test_radiograph import RAMP, dicom, encoded, read_or_refuse, refusal, undefined_length

WIDE = RAMP.astype(np.uint16) * 16  # 0..4032


def wrapped(stream: bytes, stored: np.ndarray, syntax: str, bits: int) -> bytes:
    return dicom(stored, syntax, bits, pixel_data=encapsulate([stream]), change=undefined_length)


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
@pytest.mark.parametrize(("stored", "bits"), [(RAMP, 8), (WIDE // 4, 10), (WIDE, 12), (WIDE * 16, 16)])
def test_lossless_jpeg_of_an_encoder_by_hand(syntax: str, stored: np.ndarray, bits: int) -> None:
    read = read_radiograph(wrapped(lossless_jpeg(stored, bits), stored, syntax, bits))
    np.testing.assert_array_equal(read.pixels, read_radiograph(dicom(stored, bits=bits)).pixels)
    assert read.metadata["transfer_syntax"] == syntax


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1, JPEGLSLossless])
@pytest.mark.parametrize("stored", [RAMP, WIDE, (WIDE.astype(np.int32) - 2000).astype(np.int16)])
def test_lossless_streams_of_gdcm(syntax: str, stored: np.ndarray) -> None:
    """Of 16 bits where the header says 12, signed without the stream knowing it: as archives hold them."""
    bits = 8 if stored.dtype == np.uint8 else 12
    read = read_radiograph(wrapped(through_gdcm(stored, syntax), stored, syntax, bits))
    np.testing.assert_array_equal(read.pixels, read_radiograph(dicom(stored, bits=bits)).pixels)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit])
def test_lossy_jpeg_of_8_bits(syntax: str) -> None:
    stream = encoded(Image.fromarray(RAMP), "JPEG", quality=98)
    read = read_radiograph(wrapped(stream, RAMP, syntax, 8))
    expected = read_radiograph(dicom(RAMP, bits=8)).pixels
    assert np.abs(read.pixels.astype(int) - expected).max() <= 4


def test_near_lossless_jpeg_ls_stays_near() -> None:
    read = read_radiograph(wrapped(through_gdcm(WIDE, JPEGLSNearLossless), WIDE, JPEGLSNearLossless, 12))
    assert np.abs(read.pixels.astype(int) - read_radiograph(dicom(WIDE)).pixels).max() <= 16


def changed(stream: bytes, process: int, offset: int, layout: str, value: int) -> bytes:
    start = stream.index(bytes([0xFF, process]))
    out = bytearray(stream)
    struct.pack_into(layout, out, start + 4 + offset, value)
    return bytes(out)


def test_a_stream_that_contradicts_the_header_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not_run(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(jpeg_module, "run_confined", must_not_run)
    stream = lossless_jpeg(WIDE, 12)
    cases = {
        "taller": (changed(stream, 0xC3, 1, ">H", 65535), JPEGLossless, "damaged_dicom"),
        "wider": (changed(stream, 0xC3, 3, ">H", 65), JPEGLossless, "damaged_dicom"),
        "17 bits": (changed(stream, 0xC3, 0, ">B", 17), JPEGLossless, "damaged_dicom"),
        "colour": (changed(stream, 0xC3, 5, ">B", 3), JPEGLossless, "unsupported_pixels"),
        "arithmetic": (stream.replace(b"\xff\xc3", b"\xff\xcb"), JPEGLossless, "unsupported_pixels"),
        "no JPEG-LS": (stream, JPEGLSLossless, "damaged_dicom"),
        "10 bits": (stream.replace(b"\xff\xc3\0\x0b\x0c", b"\xff\xc1\0\x0b\n"), JPEGExtended12Bit, "damaged_dicom"),
        "no stream": (b"not a JPEG", JPEGBaseline8Bit, "damaged_dicom"),
        "no frame": (b"\xff\xd8\xff\xd9", JPEGBaseline8Bit, "damaged_dicom"),
    }  # fmt: skip
    for name, (bad, syntax, code) in cases.items():
        assert refusal(wrapped(bad, WIDE, syntax, 12)) == code, name


def test_a_few_bytes_may_not_claim_a_large_image() -> None:
    stored = np.zeros((5000, 5000), np.uint16)
    stream = changed(changed(lossless_jpeg(WIDE[:8], 12), 0xC3, 1, ">H", 5000), 0xC3, 3, ">H", 5000)
    data = dicom(stored, JPEGLossless, 12, pixel_data=encapsulate([stream]), change=undefined_length)
    assert refusal(data) == "too_large"


def test_a_decoder_that_dies_or_hangs_is_a_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    data = wrapped(lossless_jpeg(WIDE, 12), WIDE, JPEGLossless, 12)
    for code in ("crashed", "too_slow"):

        def dies(*_: object, code: str = code) -> bytes:
            raise ConfinedError(code, "It died.")

        monkeypatch.setattr(jpeg_module, "run_confined", dies)
        assert refusal(data) == "damaged_dicom"


@pytest.mark.filterwarnings("ignore")
def test_damaged_streams_raise_nothing_else() -> None:
    """Each is decoded by a child of its own."""
    generator = np.random.default_rng(7)
    streams = [(lossless_jpeg(WIDE, 12), JPEGLossless), (through_gdcm(WIDE, JPEGLSLossless), JPEGLSLossless)]
    for (stream, syntax), _ in product(streams, range(6)):
        bad = bytearray(stream)
        for place in generator.integers(12, len(bad), 3):
            bad[place] = generator.integers(256)
        read_or_refuse(wrapped(bytes(bad[: generator.integers(40, len(bad) + 1)]), WIDE, syntax, 12))
