"""PNG and JPEG → grey pixels.

The size is read and checked before Pillow allocates anything; the format is told from the bytes, never from the name.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.errors import RadiographError
from model.radiograph.appearance import looks_like_a_chest_radiograph
from model.radiograph.image import Format, Radiograph, build, check_size, damage_reported_as

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"

_MAX_CHUNKS = 100_000
_MAX_SCANS = 100  # a progressive JPEG of thousands of scans costs minutes; real ones have about ten
_EXIF_ORIENTATION = 0x0112
_UNSCALED_BITS = 14  # a 16-bit PNG darker than this holds a detector's 8 to 14 bits without scaling
_COLOUR_BYTES = 8  # Pillow's 4 a pixel, and as much again on the way to grey
_VIVID = 20.0  # mean spread of R, G and B, of 255; tinted film stays far below

_DAMAGED = "This {} file is damaged or cut short; export or upload it again."


@dataclass(frozen=True)
class _PngFacts:
    width: int
    height: int
    bit_depth: int
    colour_type: int
    palette_entries: int
    animated: bool
    trailing: bool


def read_png(data: bytes, name: str, max_pixels: int) -> Radiograph:
    """PNG of any kind → Radiograph; grey of 16 bits stays 16 bits. Raises RadiographError."""
    with damage_reported_as("damaged_image", _DAMAGED.format("PNG")):
        facts = _png_facts(data)
        bytes_per_pixel = {0: 1 + facts.bit_depth // 16, 3: 1}.get(facts.colour_type, _COLOUR_BYTES)
        check_size(facts.width, facts.height, max_pixels, bytes_per_pixel)
        warnings = []
        if facts.animated:
            warnings.append("multiple_frames")
        if facts.trailing:
            warnings.append("trailing_data")
        if facts.bit_depth == 16 and facts.colour_type != 0:
            warnings.append("reduced_to_8_bits")
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.load()
            if image.mode == "P" and np.asarray(image).max() >= facts.palette_entries:
                raise RadiographError("damaged_image", "This PNG uses colours that its palette does not have.")
            return _finish(data, name, "PNG", image, warnings)


def read_jpeg(data: bytes, name: str, max_pixels: int) -> Radiograph:
    """JPEG, grey or colour → Radiograph of 8 bits, turned as its EXIF orientation says. Raises RadiographError."""
    with damage_reported_as("damaged_image", _DAMAGED.format("JPEG")):
        if data.count(b"\xff\xda") > _MAX_SCANS:
            raise RadiographError("damaged_image", "This JPEG has more scans than any real one; export it again.")
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            check_size(image.width, image.height, max_pixels, 1 if image.mode == "L" else _COLOUR_BYTES)
            image.load()
            # A camera's JPEG with a preview is what Pillow calls MPO: several images in a row, the first is the image.
            warnings = ["multiple_frames"] if getattr(image, "n_frames", 1) > 1 else []
            end = data.rfind(b"\xff\xd9")
            if end < 0:
                raise RadiographError("damaged_image", _DAMAGED.format("JPEG"))
            if data[end + 2 :].strip(b"\0"):
                warnings.append("trailing_data")
            return _finish(data, name, "JPEG", image, warnings)


def encode_grey(pixels: np.ndarray, format_: Format) -> bytes:
    """H×W uint8 or uint16 → the bytes of a grey PNG of that depth, or of a grey JPEG of quality 98 (8 bits)."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if format_ == "JPEG":
        image.save(buffer, "JPEG", quality=98)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()


def _png_facts(data: bytes) -> _PngFacts:
    """Walk the chunks (PNG specification, 5.3), checking the check sums of the critical ones."""
    header: tuple[int, int, int, int] | None = None
    position, palette_entries, animated, ended = len(PNG_MAGIC), 0, False, False
    for _ in range(_MAX_CHUNKS):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            (expected,) = struct.unpack_from(">I", data, end - 4)
            if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != expected:
                break
        if header is None:
            if kind != b"IHDR":
                break
            header = struct.unpack_from(">IIBB", data, position + 8)
        elif kind == b"PLTE":
            palette_entries = length // 3
        elif kind == b"acTL":
            animated = True
        position = end
        if kind == b"IEND":
            ended = True
            break
    if header is None or not ended:
        raise RadiographError("damaged_image", _DAMAGED.format("PNG"))
    return _PngFacts(*header, palette_entries, animated, trailing=position < len(data))


def _finish(data: bytes, name: str, format_: Format, image: Image.Image, warnings: list[str]) -> Radiograph:
    pixels, more = _grey(image)
    warnings += more
    max_value = 255
    if pixels.dtype == np.uint16:
        peak = int(pixels.max())
        max_value = 65535
        if peak < 2**_UNSCALED_BITS:
            max_value = 2 ** max(8, peak.bit_length()) - 1
            warnings.append("white_level_guessed")
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # broken EXIF says nothing about the pixels, and Pillow raises a dozen types for it
        orientation = 1
        warnings.append("exif_unreadable")
    if orientation in _UPRIGHT:
        pixels = _UPRIGHT[orientation](pixels)
        warnings.append("rotated_by_exif")
    if not looks_like_a_chest_radiograph(pixels, max_value):
        warnings.append("not_a_chest_radiograph")
    return build(data, name, format_, pixels, max_value, warnings, None, {"photometric": image.mode})


# EXIF 2.3, tag 0112: how to turn stored rows and columns upright.
_UPRIGHT = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[:, ::-1],
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: a.T[::-1],
}


def _grey(image: Image.Image) -> tuple[np.ndarray, list[str]]:
    """Any Pillow mode of a PNG or JPEG → H×W uint8 or uint16, and what was done to it."""
    warnings: list[str] = []
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16), warnings
    if image.mode == "1":
        return np.asarray(image.convert("L")), ["one_bit"]
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        with_alpha = "LA" if image.mode in ("L", "LA", "La") else "RGBA"
        image = image if image.mode == with_alpha else image.convert(with_alpha)
        alpha = image.getchannel("A")
        if alpha.getextrema() != (255, 255):
            warnings.append("alpha_composited")
            bands = image.split()[:-1]
            black = Image.new("L", image.size)
            image = Image.merge("L" if len(bands) == 1 else "RGB", [Image.composite(b, black, alpha) for b in bands])
    if image.mode in ("L", "LA"):
        return np.asarray(image.getchannel(0)), warnings
    image = image if image.mode == "RGB" else image.convert("RGB")
    red, green, blue = (np.asarray(band) for band in image.split())
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red, warnings
    warnings.append("colour_converted")
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    if spread.mean() > _VIVID:
        warnings.append("not_a_chest_radiograph")
    return np.asarray(image.convert("L")), warnings
