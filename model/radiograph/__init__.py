"""Radiographs in and out: bytes → pixels and what is known of them; and the same file with a stamp in it.

`read_radiograph` reads PNG, JPEG and DICOM as they come; what it hands out is what a reader sees: upright, bone bright,
grey. Whatever is wrong with the bytes, the only exception is `RadiographError`, with one of these codes:

empty_file, unknown_format, ambiguous_format; damaged_image, damaged_dicom; too_small, too_large, bad_aspect_ratio,
constant_image; no_pixel_data, unsupported_transfer_syntax, unsupported_pixels, bad_lut; not_a_radiograph, not_chest,
lateral_view, multiple_frames (of DICOM; of PNG and JPEG only on writing); and on writing bad_stamp, cannot_write_dicom.

Warnings: colour_converted, alpha_composited, one_bit, reduced_to_8_bits, white_level_guessed, rotated_by_exif,
exif_unreadable, trailing_data; of PNG and JPEG alone: multiple_frames, not_a_chest_radiograph (by vivid colours, or by
`model.radiograph.appearance`, which also takes an inverted radiograph for none); of DICOM alone: preamble_not_empty,
modality_unknown, for_processing, body_part_unknown, view_unknown, oblique_view, orientation_unusual,
photometric_missing, polarity_contradiction, rescale_ignored, window_ignored, pixel_spacing_invalid,
spacing_at_detector; and lateral_view where the caller takes one.
"""

from __future__ import annotations

from model.errors import RadiographError
from model.radiograph.dicom import read_dicom
from model.radiograph.header import looks_like_dicom
from model.radiograph.identity import Identity, read_identity
from model.radiograph.image import MAX_PIXELS, Format, Radiograph
from model.radiograph.raster import JPEG_MAGIC, PNG_MAGIC, read_jpeg, read_png
from model.radiograph.stamped import Stamp, stamp_dicom, stamp_raster

__all__ = [
    "Format",
    "Identity",
    "Radiograph",
    "Stamp",
    "read_identity",
    "read_radiograph",
    "sniff_format",
    "write_stamped",
]


def sniff_format(data: bytes) -> Format:
    """The format, from the bytes alone. Raises RadiographError `empty_file`, `unknown_format`, `ambiguous_format`."""
    if not data:
        raise RadiographError("empty_file", "This file is empty.")
    raster: Format | None = "PNG" if data.startswith(PNG_MAGIC) else "JPEG" if data.startswith(JPEG_MAGIC) else None
    if raster and data[128:132] == b"DICM":
        raise RadiographError(
            "ambiguous_format", f"This file is both a {raster} and a DICOM file; send one or the other."
        )
    if raster:
        return raster
    if looks_like_dicom(data):
        return "DICOM"
    raise RadiographError("unknown_format", "This file is neither PNG nor JPEG nor DICOM.")


def read_radiograph(data: bytes, name: str = "", *, max_pixels: int = MAX_PIXELS, lateral: bool = False) -> Radiograph:
    """Read a PNG, JPEG or DICOM file.

    data: the file's bytes. name: its name as given; only the last component is kept, and it decides nothing.
    max_pixels: refuse more than this before decoding. lateral: hand a lateral view out too, with the warning
    `lateral_view`: it can be shown, but no checkpoint reads it. Raises RadiographError and nothing else.
    """
    format_ = sniff_format(data)
    if format_ == "PNG":
        return read_png(data, name, max_pixels)
    if format_ == "JPEG":
        return read_jpeg(data, name, max_pixels)
    return read_dicom(data, name, max_pixels, lateral).radiograph


def write_stamped(data: bytes, name: str, stamp: Stamp) -> bytes:
    """The file with `stamp` applied to its grey image, in the same format.

    stamp: H×W float32 in [0, 1], display polarity → the same shape; what it leaves equal stays as it is.

    PNG → grey PNG of 8 or 16 bits (1, 2 and 4 bits become 8, colour becomes grey). JPEG → grey JPEG of quality 98, so
    that pixels near the stamp move by a few levels. DICOM → Explicit VR Little Endian, uncompressed, a derived image
    with a new SOP Instance UID; only pixels that the stamp changed differ, each is the stored value that looks nearest.

    Raises RadiographError, and whatever `stamp` raises.
    """
    format_ = sniff_format(data)
    if format_ == "DICOM":
        return stamp_dicom(read_dicom(data, name, MAX_PIXELS), stamp)
    read = read_png if format_ == "PNG" else read_jpeg
    return stamp_raster(read(data, name, MAX_PIXELS), stamp)
