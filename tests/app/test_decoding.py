"""Decoding in confined processes: the same radiograph, and nothing that a file does reaches the server."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import JPEGLosslessSV1, JPEGLSLossless

from app.decoding import Decoder, Pixels, viewer_pixels
from app.decoding.wire import ANSWER, READ, SAY, VIEWED, Garbled, Question, parse_answer, parse_head, parse_view
from app.services.errors import BusyError, passes
from model.errors import RadiographError
from model.radiograph import read_radiograph
from tests.app.conftest import png_bytes
from tests.app.dicoms import dicom_bytes
from tests.model.jpeg_streams import through_gdcm
from tests.model.test_radiograph_jpeg import WIDE, wrapped


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    made = Decoder(processes=1, timeout_s=4.0)
    yield made
    made.close()


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless])
def test_what_a_codec_decodes_in_a_process_of_its_own_is_decoded_here_too(decoder: Decoder, syntax: str) -> None:
    data = wrapped(through_gdcm(WIDE, syntax), WIDE, syntax, 12)
    np.testing.assert_array_equal(decoder.read(data).pixels, read_radiograph(data).pixels)


def _pid(decoder: Decoder) -> int:
    with decoder._one() as process:
        return process._process.pid


def test_reads_what_is_read_in_process(decoder: Decoder) -> None:
    for seed, size in ((1, (160, 128)), (2, (900, 700))):
        data = png_bytes(seed, size)
        ours, theirs = decoder.read(data, "C:\\x\\a.png"), read_radiograph(data, "C:\\x\\a.png")
        assert np.array_equal(ours.pixels, theirs.pixels) and ours.pixels.dtype == theirs.pixels.dtype
        assert not ours.pixels.flags.writeable
        for name in ("max_value", "sha256", "format", "name", "warnings", "pixel_spacing_mm", "metadata"):
            assert getattr(ours, name) == getattr(theirs, name)


def test_reads_real_dicom_as_in_process(decoder: Decoder, real_data: Path) -> None:
    for path in sorted((real_data / "dicom").glob("*.dcm")):
        data = path.read_bytes()
        try:
            theirs = read_radiograph(data, path.name)
        except RadiographError as error:
            with pytest.raises(RadiographError) as refused:
                decoder.read(data, path.name)
            assert refused.value.code == error.code
            continue
        ours = decoder.read(data, path.name)
        assert np.array_equal(ours.pixels, theirs.pixels) and ours.metadata == theirs.metadata


@pytest.mark.parametrize("longest_px", [64, 4096])
def test_what_the_viewer_draws_is_what_is_made_in_process(decoder: Decoder, longest_px: int) -> None:
    windowed = dicom_bytes(1, WindowCenter=["2000", "900"], WindowWidth=["800", "301"], ViewPosition="LL")
    for data in (png_bytes(1, (300, 129)), windowed, dicom_bytes(2, PixelSpacing=["0.2", "0.1"])):
        ours, theirs = decoder.view(data, "a", longest_px), viewer_pixels(data, "a", longest_px)
        assert np.array_equal(ours.values, theirs.values) and max(ours.values.shape) <= longest_px
        for one in fields(theirs):
            if one.name != "values":
                assert getattr(ours, one.name) == getattr(theirs, one.name)
    with pytest.raises(RadiographError, match="neither PNG"):
        decoder.view(b"text")


def test_a_refusal_keeps_its_code_and_the_process(decoder: Decoder) -> None:
    before = _pid(decoder)
    for data, code in ((b"", "empty_file"), (b"nothing", "unknown_format"), (png_bytes()[:-40], "damaged_image")):
        with pytest.raises(RadiographError) as refused:
            decoder.read(data)
        assert refused.value.code == code
    with pytest.raises(RadiographError, match="more than Overread reads"):
        decoder.read(png_bytes(), max_pixels=1024)
    assert _pid(decoder) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGSEGV, "damaged_image"), (signal.SIGKILL, "decoder_killed")])
def test_a_crash_is_the_files_and_a_kill_is_not_and_the_next_file_is_read(
    decoder: Decoder, number: int, code: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        process = _pid(decoder)
        os.kill(process, signal.SIGSTOP)  # or it might answer before it dies
        reading = pool.submit(decoder.read, png_bytes(3))
        time.sleep(0.1)
        os.kill(process, number)
        os.kill(process, signal.SIGCONT)
        with pytest.raises(RadiographError) as refused:
            reading.result(20)
    assert refused.value.code == code and passes(refused.value) == (code == "decoder_killed")
    assert decoder.read(png_bytes(3)).pixels.shape == (160, 128)


def test_a_decoder_that_hangs_is_stopped_in_time() -> None:
    decoder = Decoder(processes=1, timeout_s=1.0)
    try:
        process = _pid(decoder)
        os.kill(process, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(RadiographError) as refused:
            decoder.read(png_bytes())
        assert refused.value.code == "too_costly" and time.monotonic() - start < 2
        assert decoder.read(png_bytes(), "again.png").name == "again.png"
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    finally:
        decoder.close()


def test_nobody_waits_for_the_successor_while_another_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(processes=2, timeout_s=4.0)
    try:
        with decoder._one() as first, decoder._one():
            first.kill()
        monkeypatch.setattr("app.decoding.pool._START_S", 0.0)  # who has to wait is turned away
        assert decoder.read(png_bytes()).pixels.shape == (160, 128)
    finally:
        decoder.close()


def test_memory_is_limited(decoder: Decoder) -> None:
    """An image within the pixel cap, for which a process with little memory has no room: refused, not the machine's."""
    data = png_bytes(5, (4000, 4000))
    small = Decoder(processes=1, timeout_s=10.0, memory_mb=16)
    try:
        with pytest.raises(RadiographError) as refused:
            small.read(data)
        assert refused.value.code in ("too_large", "damaged_image")
        assert small.read(png_bytes(6)).pixels.shape == (160, 128)
    finally:
        small.close()


def test_a_process_is_replaced_after_its_share_of_files() -> None:
    decoder = Decoder(processes=1, timeout_s=4.0, files_each=2)
    try:
        first = _pid(decoder)
        decoder.read(png_bytes(1))
        assert _pid(decoder) == first
        decoder.read(png_bytes(2))
        assert _pid(decoder) != first
    finally:
        decoder.close()


def test_who_finds_no_room_is_turned_away() -> None:
    decoder = Decoder(processes=1, timeout_s=4.0, waiting=0)
    try:
        with decoder._one(), pytest.raises(BusyError):
            decoder.read(png_bytes())
        decoder.read(png_bytes())
    finally:
        decoder.close()
    with pytest.raises(BusyError):
        decoder.read(png_bytes())


@pytest.mark.parametrize(
    "head",
    [
        (b"XXXX", READ, 64, 64, 1, 10, 4096),
        (SAY, 7, 64, 64, 1, 10, 4096),
        (SAY, READ, 64, 64, 1, 10, 2**40),
        (SAY, READ, 2**31, 2**31, 1, 10, 2**62),
        (SAY, READ, 64, 64, 4, 10, 4 * 4096),
        (SAY, READ, 64, 64, 1, 2**31, 4096),
        (SAY, READ, 1, 4096, 1, 10, 4096),
        (SAY, 1, 0, 0, 0, 10, 4096),
        (SAY, VIEWED, 64, 64, 2, 10, 2 * 4096),
    ],
)
def test_an_untrue_header_is_not_believed(head: tuple[object, ...]) -> None:
    with pytest.raises(Garbled):
        parse_head(ANSWER.pack(*head), Question(2**24))


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"[" * 60000,
        b"[]",
        b"{}",
        b'{"max_value": 3, "format": "PNG", "warnings": [], "pixel_spacing_mm": null, "metadata": {}}',
        b'{"max_value": 255, "format": "EXE", "warnings": [], "pixel_spacing_mm": null, "metadata": {}}',
        b'{"max_value": 255, "format": "PNG", "warnings": ["<b>"], "pixel_spacing_mm": null, "metadata": {}}',
        b'{"max_value": 255, "format": "PNG", "warnings": [], "pixel_spacing_mm": [0, 1], "metadata": {}}',
        b'{"max_value": 255, "format": "PNG", "warnings": [], "pixel_spacing_mm": null, "metadata": {"a": 1}}',
    ],
)
def test_an_untrue_text_is_not_believed(text: bytes) -> None:
    head = parse_head(ANSWER.pack(SAY, READ, 64, 64, 1, min(len(text), 60000), 4096), Question(2**24))
    with pytest.raises(Garbled):
        parse_answer(head, text, bytearray([9]) * 4096, b"data", "name")


@pytest.mark.parametrize("head", [(SAY, VIEWED, 65, 64, 2, 10, 2 * 65 * 64), (SAY, VIEWED, 64, 64, 1, 10, 4096),
                                  (SAY, READ, 64, 64, 2, 10, 2 * 4096)])  # fmt: skip
def test_an_untrue_header_of_a_view_is_not_believed(head: tuple[object, ...]) -> None:
    with pytest.raises(Garbled):
        parse_head(ANSWER.pack(*head), Question(view_px=64))


@pytest.mark.parametrize(
    "untrue",
    [{"scale": 2}, {"scale": 0}, {"source": [64, 2**40]}, {"max_value": 8}, {"slope": float("nan")}, {"windows": 3},
     {"windows": [{"name": "a", "centre": "1", "width": 2}]}, {"spacing_mm": [0, 1]}, {"intercept": None}],
)  # fmt: skip
def test_an_untrue_view_is_not_believed(untrue: dict[str, object]) -> None:
    said = {"max_value": 9 * 257, "source": [64, 64], "scale": 1, "slope": 1.0, "intercept": 0.0, "windows": [],
            "spacing_mm": None, "spacing_at_detector": False}  # fmt: skip

    def parsed(said: dict[str, object]) -> Pixels:
        text = json.dumps(said).encode()
        head = parse_head(ANSWER.pack(SAY, VIEWED, 64, 64, 2, len(text), 2 * 4096), Question(view_px=64))
        return parse_view(head, text, bytearray([9]) * (2 * 4096))

    assert parsed(said).values[3, 3] == 9 * 257
    with pytest.raises(Garbled):
        parsed({**said, **untrue})
