"""Radiographs in and out. Small numbers by hand; files are written, read back, compared."""

from __future__ import annotations

import hashlib
import io
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openjpeg.utils import encode_array
from PIL import Image, ImageOps
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from model.errors import RadiographError
from model.radiograph import Radiograph, read_radiograph, write_stamped

SIDE = 64
RAMP = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.uint8) * 2  # 0..252


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def png(pixels: np.ndarray) -> bytes:
    return encoded(Image.fromarray(pixels))


def told(radiograph: Radiograph) -> tuple[str, ...]:
    """The warnings, but for the one that a ramp is no chest: test_appearance has that."""
    return tuple(warning for warning in radiograph.warnings if warning != "not_a_chest_radiograph")


def refusal(data: bytes, name: str = "", **options: int) -> str:
    with pytest.raises(RadiographError) as caught:
        read_radiograph(data, name, **options)
    assert str(caught.value).endswith(".")
    return caught.value.code


def dicom(
    stored: np.ndarray | None = None,
    syntax: str = ExplicitVRLittleEndian,
    bits: int = 12,
    pixel_data: bytes | None = None,
    preamble: bool = True,
    change: Callable[[Dataset], None] | None = None,
    **attributes: object,
) -> bytes:
    """A small chest radiograph; `attributes` by keyword are set last, None deletes."""
    stored = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) if stored is None else stored
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.5"
    ds.ImageType, ds.Modality, ds.BodyPartExamined, ds.ViewPosition = ["ORIGINAL", "PRIMARY"], "DX", "CHEST", "PA"
    ds.PatientName, ds.PatientID = "Doe^Jane", "4711"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = stored.dtype.itemsize * 8, bits, bits - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    ds.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes() if pixel_data is None else pixel_data
    ds["PixelData"].VR = "OW"
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    if change is not None:
        change(ds)
    buffer = io.BytesIO()
    if preamble:
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    else:
        pydicom.dcmwrite(buffer, ds, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return buffer.getvalue()


def lut_item(first: int, entries: np.ndarray, bits: int) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "US", [len(entries) % 2**16, first % 2**16, bits])
    item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    return item


def voi_lut(first: int, entries: np.ndarray, bits: int) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        ds.VOILUTSequence = [lut_item(first, entries, bits)]

    return change


# PNG and JPEG


def test_png_of_8_bits_comes_out_as_it_is() -> None:
    data = png(RAMP)
    radiograph = read_radiograph(data, "/tmp/../home/jane/chest.png")
    assert (radiograph.format, radiograph.name, radiograph.max_value) == ("PNG", "chest.png", 255)
    assert radiograph.pixels.dtype == np.uint8
    np.testing.assert_array_equal(radiograph.pixels, RAMP)
    assert radiograph.sha256 == hashlib.sha256(data).hexdigest()
    assert told(radiograph) == ()
    assert radiograph.pixel_spacing_mm is None
    assert not radiograph.pixels.flags.writeable


def test_grey_is_float32_between_0_and_1() -> None:
    pixels = RAMP.copy()
    pixels[0, 0], pixels[0, 1] = 0, 255
    radiograph = read_radiograph(png(pixels))
    grey = radiograph.grey()
    assert grey.dtype == np.float32
    assert (grey[0, 0], grey[0, 1]) == (0.0, 1.0)
    assert grey[5, 5] == np.float32(20) / np.float32(255)
    grey[:] = 0
    assert radiograph.grey().max() == 1


def test_png_of_16_bits_stays_16_bits() -> None:
    pixels = RAMP.astype(np.uint16) * 257 + 3
    radiograph = read_radiograph(png(pixels))
    assert (radiograph.pixels.dtype, radiograph.max_value) == (np.uint16, 65535)
    np.testing.assert_array_equal(radiograph.pixels, pixels)


def test_16_bit_png_of_unscaled_12_bits_is_not_black() -> None:
    pixels = RAMP.astype(np.uint16) * 16
    radiograph = read_radiograph(png(pixels))
    assert radiograph.max_value == 4095
    assert "white_level_guessed" in radiograph.warnings
    np.testing.assert_array_equal(radiograph.pixels, pixels)


def test_one_bit_png() -> None:
    radiograph = read_radiograph(encoded(Image.fromarray(RAMP > 100)))
    np.testing.assert_array_equal(radiograph.pixels, np.where(RAMP > 100, 255, 0))
    assert "one_bit" in radiograph.warnings


def test_grey_stored_as_palette_or_opaque_rgba_is_no_colour() -> None:
    for image in (Image.fromarray(RAMP).convert("P"), Image.fromarray(RAMP).convert("RGBA")):
        radiograph = read_radiograph(encoded(image))
        np.testing.assert_array_equal(radiograph.pixels, RAMP)
        assert told(radiograph) == ()


def test_palette_index_out_of_range_is_refused() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in RAMP % 4)
    data = raw_png(SIDE, SIDE, rows, colour=3)
    palette = chunk(b"PLTE", bytes([0, 0, 0, 255, 255, 255]))
    assert refusal(data.replace(data[33:37] + b"IDAT", palette + data[33:37] + b"IDAT")) == "damaged_image"


def test_transparent_parts_are_black() -> None:
    image = Image.fromarray(RAMP).convert("LA")
    image.putalpha(Image.fromarray(np.where(np.arange(SIDE) < 10, 0, 255).astype(np.uint8)[None].repeat(SIDE, 0)))
    radiograph = read_radiograph(encoded(image))
    assert radiograph.pixels[:, :10].max() == 0
    np.testing.assert_array_equal(radiograph.pixels[:, 10:], RAMP[:, 10:])
    assert told(radiograph) == ("alpha_composited",)


def test_colour_becomes_luma_with_a_warning() -> None:
    colour = np.stack([RAMP, RAMP // 2, RAMP // 4], axis=-1)
    radiograph = read_radiograph(png(colour))
    expected = np.rint(colour @ np.array([0.299, 0.587, 0.114]))  # ITU-R BT.601
    assert np.abs(radiograph.pixels - expected).max() <= 1
    assert radiograph.warnings == ("colour_converted", "not_a_chest_radiograph")


def test_faint_tint_is_no_reason_to_doubt_the_subject() -> None:
    assert told(read_radiograph(png(np.stack([RAMP, RAMP, RAMP + 2], -1)))) == ("colour_converted",)


def test_16_bit_colour_png_says_that_bits_were_lost() -> None:
    rows = b"".join(b"\0" + row.astype(">u2").repeat(3).tobytes() for row in RAMP.astype(np.uint16) * 257)
    radiograph = read_radiograph(raw_png(SIDE, SIDE, rows, depth=16, colour=2))
    np.testing.assert_array_equal(radiograph.pixels, RAMP)
    assert told(radiograph) == ("reduced_to_8_bits",)


def test_jpeg() -> None:
    radiograph = read_radiograph(encoded(Image.fromarray(RAMP), "JPEG", quality=95))
    assert (radiograph.format, radiograph.max_value, told(radiograph)) == ("JPEG", 255, ())
    assert np.abs(radiograph.pixels.astype(int) - RAMP).max() <= 4


def test_cmyk_jpeg() -> None:
    radiograph = read_radiograph(encoded(Image.fromarray(RAMP).convert("RGB").convert("CMYK"), "JPEG", quality=95))
    assert np.abs(radiograph.pixels.astype(int) - RAMP).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation: int) -> None:
    image = Image.fromarray(RAMP[:40])
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "JPEG", exif=exif, quality=95)
    radiograph = read_radiograph(data)
    np.testing.assert_array_equal(radiograph.pixels, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))
    assert ("rotated_by_exif" in radiograph.warnings) == (orientation > 1)


def test_unreadable_exif_does_not_lose_the_image() -> None:
    radiograph = read_radiograph(encoded(Image.fromarray(RAMP), "JPEG", exif=b"Exif\0\0" + b"\xff" * 60_000))
    assert radiograph.pixels.shape == (SIDE, SIDE)


def test_animated_png_gives_its_first_frame_with_a_warning() -> None:
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    data = encoded(frames[0], save_all=True, append_images=frames[1:])
    radiograph = read_radiograph(data)
    np.testing.assert_array_equal(radiograph.pixels, RAMP)
    assert told(radiograph) == ("multiple_frames",)
    with pytest.raises(RadiographError) as caught:
        write_stamped(data, "", black_corner)
    assert caught.value.code == "multiple_frames"


# Refusals of any format


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_content_decides_and_names_do_not() -> None:
    assert read_radiograph(png(RAMP), "scan.dcm").format == "PNG"
    assert refusal(b"GIF89a" + b"\0" * 500, "scan.png") == "unknown_format"
    assert refusal(b"", "scan.png") == "empty_file"
    assert refusal(b"\0" * 5000) == "unknown_format"
    assert refusal(encoded(Image.fromarray(RAMP), "GIF")) == "unknown_format"


def test_a_file_of_two_formats_is_refused_and_appended_data_is_told() -> None:
    data = bytearray(png(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE), dtype=np.uint8)))
    data[128:132] = b"DICM"
    assert refusal(bytes(data)) == "ambiguous_format"
    assert "trailing_data" in read_radiograph(png(RAMP) + b"PK\x03\x04<script>").warnings
    assert "trailing_data" in read_radiograph(dicom() + b"PK\x03\x04<script>").warnings
    assert "trailing_data" in read_radiograph(encoded(Image.fromarray(RAMP), "JPEG") + b"PK\x03\x04").warnings


def test_a_declared_size_is_refused_before_it_is_allocated() -> None:
    tracemalloc.start()
    start = time.monotonic()
    assert refusal(raw_png(40_000, 40_000, b"\0" * 1000)) == "too_large"
    assert refusal(dicom(pixel_data=b"\0" * 100, Rows=65535, Columns=65535)) == "too_large"
    assert refusal(raw_png(7000, 7000, b"\0" * 1000, colour=6)) == "too_large"  # as RGBA, more bytes than pixels allow
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert time.monotonic() - start < 2
    assert refusal(png(RAMP), max_pixels=1000) == "too_large"


@pytest.mark.parametrize(
    ("shape", "code"),
    [((1, 1), "too_small"), ((31, 64), "too_small"), ((40, 400), "bad_aspect_ratio"), ((64, 64), "constant_image")],
)
def test_sizes_and_constants(shape: tuple[int, int], code: str) -> None:
    assert refusal(png(np.zeros(shape, np.uint8))) == code
    assert refusal(encoded(Image.fromarray(np.zeros(shape, np.uint8)), "JPEG")) == code
    assert refusal(dicom(np.zeros(shape, np.uint16))) == code


@pytest.mark.parametrize("kept", [9, 40, 100, 0.5, 0.98])
def test_cut_short(kept: float) -> None:
    for data in (png(RAMP), encoded(Image.fromarray(RAMP), "JPEG"), dicom()):
        end = int(kept * len(data)) if kept < 1 else min(int(kept), len(data) - 1)
        assert refusal(data[:end]) in {"damaged_image", "damaged_dicom", "unknown_format"}


def test_progressive_jpeg_of_endless_scans_is_refused() -> None:
    data = encoded(Image.fromarray(RAMP), "JPEG", progressive=True)
    scan = data.index(b"\xff\xda")
    assert refusal(data[:scan] + data[scan:-2] * 200 + data[-2:]) == "damaged_image"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("C:\\jane\\chest.png", "chest.png"),
        ("../../etc/passwd", "passwd"),
        ("..", ""),
        ("a\nb\u202egnp.exe\0", "a b gnp.exe"),
        ("x" * 999, "x" * 255),
        ("\ud800.png", ".png"),
    ],
)
def test_names_are_base_names_and_printable(given: str, kept: str) -> None:
    assert read_radiograph(png(RAMP), given).name == kept


# DICOM: what is read


def test_dicom_without_window_shows_the_range_present() -> None:
    stored = np.full((SIDE, SIDE), 1000, np.uint16)
    stored[0, 0], stored[0, 1] = 500, 1500
    radiograph = read_radiograph(dicom(stored))
    assert (radiograph.format, radiograph.max_value, radiograph.pixels.dtype) == ("DICOM", 4095, np.uint16)
    assert (radiograph.pixels[0, 0], radiograph.pixels[0, 1], radiograph.pixels[1, 1]) == (0, 4095, 2048)
    assert radiograph.warnings == ()
    assert radiograph.metadata["modality"] == "DX"
    assert radiograph.metadata["sop_instance_uid"] == "1.2.3.4"
    assert not any("Doe" in value or "4711" in value for value in radiograph.metadata.values())


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_uncompressed_transfer_syntaxes_agree(syntax: str) -> None:
    expected = read_radiograph(dicom()).pixels
    np.testing.assert_array_equal(read_radiograph(dicom(syntax=syntax)).pixels, expected)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_dicom_without_preamble(syntax: str) -> None:
    np.testing.assert_array_equal(
        read_radiograph(dicom(syntax=syntax, preamble=False)).pixels, read_radiograph(dicom()).pixels
    )


def rle(stored: np.ndarray, bits: int, **attributes: object) -> bytes:
    ds = pydicom.dcmread(io.BytesIO(dicom(stored, bits=bits, **attributes)))
    ds.compress(RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_rle(dtype: type) -> None:
    stored = (RAMP if dtype == np.uint8 else RAMP.astype(np.int32) * 8 - 1000 * (dtype == np.int16)).astype(dtype)
    bits = 8 if dtype == np.uint8 else 12
    np.testing.assert_array_equal(
        read_radiograph(rle(stored, bits)).pixels, read_radiograph(dicom(stored, bits=bits)).pixels
    )


def j2k(stored: np.ndarray, bits: int, syntax: str = JPEG2000Lossless, **attributes: object) -> bytes:
    stream = encode_array(stored, bits_stored=bits)
    return dicom(stored, syntax, bits, pixel_data=encapsulate([stream]), change=undefined_length, **attributes)


def undefined_length(ds: Dataset) -> None:
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEG2000])
@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.int16, 12), (np.uint16, 16)])
def test_jpeg_2000(syntax: str, dtype: type, bits: int) -> None:
    stored = (RAMP if bits == 8 else RAMP.astype(np.int32) * 2 ** (bits - 9) - 700 * (dtype == np.int16)).astype(dtype)
    np.testing.assert_array_equal(
        read_radiograph(j2k(stored, bits, syntax)).pixels, read_radiograph(dicom(stored, bits=bits)).pixels
    )


def test_jpeg_2000_marked_unsigned_in_a_signed_file() -> None:
    stored = (RAMP.astype(np.int32) * 8 - 1000).astype(np.int16)
    stream = encode_array((stored & 0xFFF).astype(np.uint16), bits_stored=12)
    data = dicom(stored, JPEG2000Lossless, pixel_data=encapsulate([stream]), change=undefined_length)
    np.testing.assert_array_equal(read_radiograph(data).pixels, read_radiograph(dicom(stored)).pixels)


@pytest.mark.parametrize("syntax", [HTJ2KLossless, MPEG2MPML, "1.2.3.4.5"])
def test_other_transfer_syntaxes_have_a_code_of_their_own(syntax: str) -> None:
    data = dicom(syntax=ExplicitVRLittleEndian).replace(b"1.2.840.10008.1.2.1\0", syntax.encode().ljust(20, b"\0")[:20])
    if len(syntax) > 20:
        ds = pydicom.dcmread(io.BytesIO(dicom()))
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        undefined_length(ds)
        buffer = io.BytesIO()
        ds.save_as(buffer)
        data = buffer.getvalue()
    assert refusal(data) == "unsupported_transfer_syntax"


def test_polarity() -> None:
    plain = read_radiograph(dicom()).pixels
    inverse = 4095 - plain
    for attributes in (
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PresentationLUTShape": "INVERSE"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    ):
        np.testing.assert_array_equal(read_radiograph(dicom(**attributes)).pixels, inverse)
    assert "polarity_contradiction" in read_radiograph(dicom(PresentationLUTShape="INVERSE")).warnings


WINDOWS = [
    {"WindowCenter": 2048, "WindowWidth": 1000},
    {"WindowCenter": [2048, 100], "WindowWidth": [1000, 50]},
    {"WindowCenter": 2048, "WindowWidth": 1},
    {"WindowCenter": 1500.5, "WindowWidth": 777.25, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 2048, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": 100, "WindowWidth": 3000, "RescaleSlope": 2, "RescaleIntercept": -1024},
]


@pytest.mark.parametrize("attributes", WINDOWS)
def test_windows_equal_pydicoms(attributes: dict[str, object]) -> None:
    data = dicom(**attributes)
    ds = pydicom.dcmread(io.BytesIO(data))
    shown = apply_voi_lut(apply_modality_lut(ds.pixel_array, ds), ds)
    # pydicom's output range is that of the rescaled stored values.
    low, high = (np.array([0, 4095]) * float(ds.get("RescaleSlope", 1))) + float(ds.get("RescaleIntercept", 0))
    expected = np.rint((shown - low) / (high - low) * 4095)
    assert np.abs(read_radiograph(data).pixels - expected).max() <= 1


def test_linear_window_by_hand() -> None:
    # PS3.3 C.11.2.1.2.1: centre 2048, width 4096 maps 0..4095 to black..white
    np.testing.assert_array_equal(
        read_radiograph(dicom(WindowCenter=2048, WindowWidth=4096)).pixels,
        np.arange(SIDE * SIDE).reshape(SIDE, SIDE),
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": 2000, "WindowWidth": 0},
        {"WindowCenter": 2000, "WindowWidth": -5},
        {"WindowCenter": 60000, "WindowWidth": 10},  # all of the image would be black
    ],
)
def test_a_window_that_shows_nothing_is_ignored(attributes: dict[str, object]) -> None:
    radiograph = read_radiograph(dicom(**attributes))
    np.testing.assert_array_equal(radiograph.pixels, read_radiograph(dicom()).pixels)
    assert radiograph.warnings == ("window_ignored",)


def test_voi_lut_comes_before_the_window() -> None:
    entries = np.arange(2048)[::-1] * 2  # for stored 1000..3047, falling
    data = dicom(change=voi_lut(1000, entries, 12), WindowCenter=5, WindowWidth=10)
    stored = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    np.testing.assert_array_equal(read_radiograph(data).pixels, entries[np.clip(stored - 1000, 0, 2047)])
    assert read_radiograph(data).metadata["voi"] == "lookup table"


def test_modality_lut_replaces_rescale() -> None:
    def change(ds: Dataset) -> None:
        item = lut_item(0, 4095 - np.arange(4096), 12)
        item.ModalityLUTType = "US"
        ds.ModalityLUTSequence = [item]

    np.testing.assert_array_equal(read_radiograph(dicom(change=change)).pixels, 4095 - read_radiograph(dicom()).pixels)


def test_signed_voi_lut_of_signed_values() -> None:
    stored = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) - 2048).astype(np.int16)
    data = dicom(stored, change=voi_lut(-2048, np.arange(4096), 12))
    np.testing.assert_array_equal(read_radiograph(data).pixels, stored + 2048)


def test_short_lut_is_refused() -> None:
    def change(ds: Dataset) -> None:
        item = lut_item(0, np.arange(10), 12)
        item[0x00283002].value = [4096, 0, 12]
        ds.VOILUTSequence = [item]

    assert refusal(dicom(change=change)) == "bad_lut"


def test_bits_outside_the_value_are_no_part_of_it() -> None:
    stored = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)
    expected = read_radiograph(dicom(stored)).pixels
    overlay = stored | (np.uint16(0xA) << np.uint16(12))
    np.testing.assert_array_equal(read_radiograph(dicom(overlay)).pixels, expected)
    np.testing.assert_array_equal(read_radiograph(dicom(stored << np.uint16(4), HighBit=15)).pixels, expected)


def test_padding_is_black_and_has_no_part_in_the_range() -> None:
    stored = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) % 1000 + 1000).astype(np.uint16)
    stored[:5] = 0
    radiograph = read_radiograph(dicom(stored, PixelPaddingValue=0, PhotometricInterpretation="MONOCHROME1"))
    assert radiograph.pixels[:5].max() == 0
    assert (radiograph.pixels[5:].min(), radiograph.pixels[5:].max()) == (0, 4095)


@pytest.mark.parametrize(
    ("attributes", "spacing", "warnings"),
    [
        ({"PixelSpacing": [0.2, 0.1]}, (0.2, 0.1), ()),
        ({"ImagerPixelSpacing": [0.143, 0.143]}, (0.143, 0.143), ("spacing_at_detector",)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2), ("spacing_at_detector",)),
        ({"PixelSpacing": [0, 0]}, None, ("pixel_spacing_invalid",)),
        ({"PixelSpacing": [0.1, -0.1]}, None, ("pixel_spacing_invalid",)),
        ({}, None, ()),
    ],
)
def test_pixel_spacing(attributes: dict[str, object], spacing: object, warnings: tuple[str, ...]) -> None:
    radiograph = read_radiograph(dicom(**attributes))
    assert radiograph.pixel_spacing_mm == spacing
    assert radiograph.warnings == warnings


# DICOM: what is refused


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"Modality": "CT"}, "not_a_radiograph"),
        ({"Modality": "OT"}, "not_a_radiograph"),
        ({"BodyPartExamined": "KNEE"}, "not_chest"),
        ({"BodyPartExamined": "THORACIC SPINE"}, "not_chest"),
        ({"BodyPartExamined": "LEFT HAND"}, "not_chest"),
        ({"ViewPosition": "LL"}, "lateral_view"),
        ({"ViewPosition": "LATERAL"}, "lateral_view"),
        ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, "lateral_view"),
        ({"PixelData": None}, "no_pixel_data"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "unsupported_pixels"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "unsupported_pixels"),
        ({"BitsAllocated": 32}, "unsupported_pixels"),
        ({"BitsStored": 17}, "damaged_dicom"),
        ({"HighBit": 3}, "damaged_dicom"),
        ({"NumberOfFrames": 2}, "multiple_frames"),
        ({"NumberOfFrames": 2**31 - 1}, "multiple_frames"),
        ({"Rows": None}, "too_small"),
        ({"Rows": 0}, "too_small"),
    ],
)
def test_dicom_refusals(attributes: dict[str, object], code: str) -> None:
    assert refusal(dicom(**attributes)) == code


@pytest.mark.parametrize(
    ("attributes", "warning"),
    [
        ({"Modality": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "modality_unknown"),
        ({"BodyPartExamined": None}, "body_part_unknown"),
        ({"ViewPosition": None}, "view_unknown"),
        ({"ViewPosition": "RAO"}, "oblique_view"),
        ({"PatientOrientation": ["R", "F"]}, "orientation_unusual"),
        ({"PatientOrientation": ["L", "H"]}, "orientation_unusual"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for_processing"),
        ({"PhotometricInterpretation": None}, "photometric_missing"),
        ({"RescaleSlope": 0}, "rescale_ignored"),
    ],
)
def test_dicom_warnings(attributes: dict[str, object], warning: str) -> None:
    radiograph = read_radiograph(dicom(**attributes))
    assert radiograph.warnings == (warning,)
    np.testing.assert_array_equal(radiograph.pixels, read_radiograph(dicom()).pixels)


def test_deflated_bomb() -> None:
    data = dicom(syntax=DeflatedExplicitVRLittleEndian)
    start = data.index(b"1.2.840.10008.1.2.1.99") + 22
    start += struct.unpack_from("<I", data, 140)[0] - (start - 144)
    packer = zlib.compressobj(1, wbits=-15)
    bomb = packer.compress(b"\0" * 2**27) + packer.flush()
    tracemalloc.start()
    began = time.monotonic()
    assert refusal(data[:start] + bomb) == "too_large"
    assert tracemalloc.get_traced_memory()[1] < 256 * 2**20
    tracemalloc.stop()
    assert time.monotonic() - began < 2


def test_jpeg_2000_that_claims_another_size_is_refused() -> None:
    data = bytearray(j2k(RAMP, 8))
    siz = data.index(b"\xff\x4f\xff\x51")
    struct.pack_into(">II", data, siz + 8, 2**31, 2**31)
    assert refusal(bytes(data)) == "damaged_dicom"
    struct.pack_into(">II", data, siz + 8, 5000, 5000)
    grown = bytes(data).replace(
        struct.pack("<HHI", 0x28, 0x10, 0)[:4] + b"US\x02\0@\0", b"\x28\0\x10\0US\x02\0\x88\x13"
    )
    grown = grown.replace(b"\x28\0\x11\0US\x02\0@\0", b"\x28\0\x11\0US\x02\0\x88\x13")
    assert refusal(grown) == "too_large"


def test_millions_of_attributes_do_not_keep_the_parser_busy() -> None:
    element = struct.pack("<HH2sH", 0x0009, 0x1001, b"LO", 0)
    began = time.monotonic()
    assert refusal(b"\0" * 128 + b"DICM" + element * 3_000_000) == "damaged_dicom"
    assert time.monotonic() - began < 4


def test_nesting_without_end() -> None:
    nested = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    assert refusal(b"\0" * 128 + b"DICM" + nested * 20_000) == "damaged_dicom"


# Writing


def black_corner(grey: np.ndarray) -> np.ndarray:
    grey[3:9, 5:11] = 0
    return grey


CORNER = np.zeros((SIDE, SIDE), bool)
CORNER[3:9, 5:11] = True


def patch(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def stamp(grey: np.ndarray) -> np.ndarray:
        return np.where(CORNER, np.float32(value), grey)

    return stamp


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_stamped_png_differs_only_in_the_stamp(dtype: type) -> None:
    pixels = RAMP.astype(dtype) * (257 if dtype == np.uint16 else 1)
    before = read_radiograph(png(pixels))
    after = read_radiograph(write_stamped(png(pixels), "x.png", patch(0.25)))
    assert (after.pixels.dtype, after.max_value) == (before.pixels.dtype, before.max_value)
    np.testing.assert_array_equal(after.pixels[~CORNER], before.pixels[~CORNER])
    assert set(after.pixels[CORNER]) == {round(0.25 * before.max_value)}


def test_stamped_jpeg_is_a_jpeg_of_high_quality() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(RAMP[:40]), "JPEG", quality=95, exif=exif)
    before = read_radiograph(data)
    after = read_radiograph(write_stamped(data, "x.jpg", black_corner))
    assert (after.format, told(after)) == ("JPEG", ())
    expected = black_corner(before.grey())
    assert np.abs(after.grey() - expected).max() < 0.03


def sequence_file() -> bytes:
    def change(ds: Dataset) -> None:
        voi_lut(0, (np.sqrt(np.arange(4096) / 4095) * 4095).astype(int), 12)(ds)

    return dicom(change=change)


SIGNED = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) - 2048).astype(np.int16)
STAMPABLE = {
    "range": dicom(),
    "implicit": dicom(syntax=ImplicitVRLittleEndian),
    "deflated": dicom(syntax=DeflatedExplicitVRLittleEndian),
    "no preamble": dicom(preamble=False),
    "monochrome1": dicom(PhotometricInterpretation="MONOCHROME1", WindowCenter=2048, WindowWidth=4096),
    "window": dicom(WindowCenter=2048, WindowWidth=4000),
    "exact": dicom(WindowCenter=2048, WindowWidth=4095, VOILUTFunction="LINEAR_EXACT"),
    "rescaled": dicom(WindowCenter=0, WindowWidth=2048, RescaleSlope=0.5, RescaleIntercept=-1024),
    "signed": dicom(SIGNED, WindowCenter=0, WindowWidth=4096),
    "8 bits": dicom(RAMP, bits=8, WindowCenter=128, WindowWidth=256),
    "overlay": dicom(
        np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) | np.uint16(0x5000),
        WindowCenter=2048,
        WindowWidth=4096,
    ),
    "high bit": dicom(
        np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) << np.uint16(4),
        HighBit=15,
        WindowCenter=2048,
        WindowWidth=4096,
    ),
    "jpeg 2000": j2k(
        np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE), 12, WindowCenter=2048, WindowWidth=4096
    ),
    "rle": rle(SIGNED, 12, WindowCenter=0, WindowWidth=4096),
    "jpeg 2000 signed": j2k(SIGNED, 12, WindowCenter=0, WindowWidth=4096),
}


def stored_array(data: bytes) -> np.ndarray:
    return pydicom.dcmread(io.BytesIO(data), force=True).pixel_array


@pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("kind", STAMPABLE)
def test_stamped_dicom_shows_the_stamp_and_nothing_else_changes(kind: str, value: float) -> None:
    data = STAMPABLE[kind]
    before = read_radiograph(data)
    written = write_stamped(data, "x.dcm", patch(value))
    after = read_radiograph(written)
    np.testing.assert_array_equal(after.pixels[~CORNER], before.pixels[~CORNER])
    changed = after.pixels[CORNER].astype(int)
    assert np.abs(changed - value * before.max_value).max() <= 1
    if kind != "no preamble":
        np.testing.assert_array_equal(stored_array(written)[~CORNER], stored_array(data)[~CORNER])


def test_stamp_through_a_curve_hits_the_nearest_that_it_can_show() -> None:
    before = read_radiograph(sequence_file())
    after = read_radiograph(write_stamped(sequence_file(), "", patch(0.1)))
    levels = np.unique(before.pixels.astype(int))
    nearest = np.abs(levels - round(0.1 * 4095)).min()
    assert set(np.abs(after.pixels[CORNER].astype(int) - round(0.1 * 4095))) == {nearest}
    np.testing.assert_array_equal(after.pixels[~CORNER], before.pixels[~CORNER])


def test_stamp_over_the_only_extreme_keeps_everything_else_as_it_looked() -> None:
    stored = np.full((SIDE, SIDE), 1000, np.uint16)
    stored[20:] = 1200
    stored[4, 6] = 4000  # the brightest pixel, about to be covered
    for window in ({}, {"WindowCenter": 60000, "WindowWidth": 10}):
        data = dicom(stored, **window)
        before, after = read_radiograph(data), read_radiograph(write_stamped(data, "", patch(0.5)))
        np.testing.assert_array_equal(after.pixels[~CORNER], before.pixels[~CORNER])
        assert np.abs(after.pixels[CORNER].astype(int) - 2048).max() <= 1


def test_a_stamp_never_writes_the_padding_value() -> None:
    data = dicom(PixelPaddingValue=0, WindowCenter=2048, WindowWidth=4096)
    written = write_stamped(data, "", patch(0.0))
    assert set(stored_array(written)[CORNER]) == {1}


def test_overlay_bits_survive_a_stamp() -> None:
    written = stored_words(write_stamped(STAMPABLE["overlay"], "", patch(0.7)))
    assert set(written.ravel() >> 12) == {5}


def stored_words(data: bytes) -> np.ndarray:
    return np.frombuffer(pydicom.dcmread(io.BytesIO(data)).PixelData, "<u2").reshape(SIDE, SIDE)


def test_stamped_dicom_is_a_derived_image_of_its_own() -> None:
    def change(ds: Dataset) -> None:
        ds.add_new(0x00091001, "LO", "private")
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.InstitutionName = "Krankenhaus Köln"

    data = dicom(
        change=change,
        DerivationDescription="edge enhanced",
        BurnedInAnnotation="NO",
        ImageType=["ORIGINAL", "PRIMARY", "", "X"],
        SmallestImagePixelValue=0,
        LargestImagePixelValue=4095,
        WindowCenter=2048,
        WindowWidth=2000,
    )
    before = pydicom.dcmread(io.BytesIO(data))
    after = pydicom.dcmread(io.BytesIO(write_stamped(data, "x", black_corner)))
    assert after.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert after.SOPInstanceUID == after.file_meta.MediaStorageSOPInstanceUID != before.SOPInstanceUID
    assert after.SOPClassUID == after.file_meta.MediaStorageSOPClassUID == before.SOPClassUID
    assert list(after.ImageType) == ["DERIVED", "SECONDARY", "", "X"]
    assert after.DerivationDescription.startswith("edge enhanced; Overread stamped a test trigger")
    assert after.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    replaced = {
        "ImageType",
        "InstanceCreationDate",
        "InstanceCreationTime",
        "SOPInstanceUID",
        "DerivationDescription",
        "SourceImageSequence",
        "SmallestImagePixelValue",
        "LargestImagePixelValue",
        "PixelData",
    }
    assert {e.tag: e.value for e in before if e.keyword not in replaced} == {
        e.tag: e.value for e in after if e.keyword not in replaced
    }
    twice = pydicom.dcmread(io.BytesIO(write_stamped(write_stamped(data, "", black_corner), "", black_corner)))
    assert len(twice.SourceImageSequence) == 2


def test_a_file_without_uids_can_be_stamped() -> None:
    data = dicom(preamble=False, SOPClassUID=None, SOPInstanceUID=None, Modality="CR")
    after = pydicom.dcmread(io.BytesIO(write_stamped(data, "", black_corner)))
    assert after.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1"
    assert "SourceImageSequence" not in after


def test_bad_stamps_are_refused_and_their_own_errors_pass() -> None:
    for stamp in (lambda g: g[:-1], lambda g: g * np.nan):
        with pytest.raises(RadiographError) as caught:
            write_stamped(dicom(), "", stamp)
        assert caught.value.code == "bad_stamp"
    with pytest.raises(ZeroDivisionError):
        write_stamped(dicom(), "", lambda g: 1 / 0)


# Whatever the bytes: a Radiograph or a RadiographError

SEEDS = [
    png(RAMP),
    png(RAMP.astype(np.uint16) * 257),
    encoded(Image.fromarray(RAMP).convert("P")),
    encoded(Image.fromarray(RAMP), "JPEG"),
    encoded(Image.fromarray(RAMP).convert("CMYK"), "JPEG", progressive=True),
    sequence_file(),
    *STAMPABLE.values(),
]


def read_or_refuse(data: bytes) -> None:
    try:
        radiograph = read_radiograph(data, "fuzz")
    except RadiographError:
        return
    assert isinstance(radiograph, Radiograph)
    assert radiograph.pixels.max() <= radiograph.max_value


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4), st.integers(0, 6)), max_size=6),
    near_start=st.booleans(),
    end=st.one_of(st.just(1.0), st.floats(0, 1)),
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_raise_nothing_else(
    seed: bytes, edits: list[tuple[float, bytes, int]], near_start: bool, end: float
) -> None:
    data = bytearray(seed)
    for place, replacement, removed in edits:
        at = int(place * (min(len(data), 1200) if near_start else len(data)))
        data[at : at + removed] = replacement
    read_or_refuse(bytes(data[: int(end * len(data))]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\0" * 128 + b"DICM", b"\x08\0\x05\0CS\x0a\0"]),
    rest=st.binary(max_size=400),
)
@pytest.mark.filterwarnings("ignore")
def test_noise_raises_nothing_else(start: bytes, rest: bytes) -> None:
    read_or_refuse(start + rest)


# Real files


def test_the_shared_computed_radiograph_has_dark_lungs_and_stands_upright(real_data: Path) -> None:
    data = (real_data / "dicom" / "RG1_J2KI.dcm").read_bytes()
    radiograph = read_radiograph(data, "RG1_J2KI.dcm")
    assert radiograph.pixels.shape == (1955, 1841)
    assert (radiograph.max_value, radiograph.pixel_spacing_mm) == (32767, None)
    assert radiograph.warnings == ("pixel_spacing_invalid",)
    assert radiograph.metadata["photometric"] == "MONOCHROME1"
    grey = radiograph.grey()
    right_lung, left_lung = grey[240:300, 540:600].mean(), grey[500:600, 1130:1230].mean()
    spine, belly = grey[900:1100, 880:950].mean(), grey[1600:1700, 300:500].mean()
    assert max(right_lung, left_lung) < 0.6 < 0.8 < min(spine, belly)
    # Not mirrored: the liver, denser than the stomach, is at the left edge of the picture.
    assert grey[1430:1470, 400:560].mean() > grey[1430:1470, 1280:1440].mean() + 0.05


def test_the_shared_computed_radiograph_can_be_stamped(real_data: Path) -> None:
    data = (real_data / "dicom" / "RG1_J2KI.dcm").read_bytes()

    def stamp(grey: np.ndarray) -> np.ndarray:
        grey[900:960, 800:860] = 0
        return grey

    before, after = read_radiograph(data), read_radiograph(write_stamped(data, "", stamp))
    assert after.pixels[900:960, 800:860].max() <= 1
    assert np.count_nonzero(before.pixels != after.pixels) == 3600


def test_chest_xray_14_is_read_without_a_warning(real_data: Path) -> None:
    paths = sorted((real_data / "chestxray14" / "fullsize").glob("*.png"))[:8]
    assert paths
    for path in paths:
        radiograph = read_radiograph(path.read_bytes(), path.name)
        assert (radiograph.name, radiograph.max_value, radiograph.warnings) == (path.name, 255, ())
