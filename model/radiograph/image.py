"""What a radiograph is once it has been read, and the checks every format shares."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from model.errors import RadiographError

Format = Literal["PNG", "JPEG", "DICOM"]

MAX_PIXELS = 2**26  # 8192 × 8192; the largest flat panels have 20 million
MAX_DECODED_BYTES = 2**27  # what a decoder may allocate for one image, so that a small file cannot fill the memory
MIN_SIDE_PX = 32
MAX_ASPECT = 4


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One grey image as a reader sees it, and what its file says about it.

    pixels: H×W uint8 or uint16, read-only, upright, dense (bone) is bright. max_value: the value that means white.
    sha256: of the file's bytes, hexadecimal. name: base name only, safe to print, possibly empty.
    warnings: stable snake_case words, without duplicates. pixel_spacing_mm: distance of rows, distance of columns.
    metadata: short texts (modality, body_part, view, photometric, …), never who the patient is.
    """

    pixels: np.ndarray
    max_value: int
    sha256: str
    format: Format
    name: str
    warnings: tuple[str, ...]
    pixel_spacing_mm: tuple[float, float] | None
    metadata: Mapping[str, str]

    def grey(self) -> np.ndarray:
        """H×W float32 in [0, 1], 0 black; a new array each time."""
        grey = self.pixels.astype(np.float32)
        grey /= np.float32(self.max_value)
        return grey


def build(
    data: bytes,
    name: str,
    format_: Format,
    pixels: np.ndarray,
    max_value: int,
    warnings: Iterable[str],
    spacing: tuple[float, float] | None,
    metadata: Mapping[str, str],
) -> Radiograph:
    """The finished value. Raises RadiographError `constant_image`."""
    if pixels.min() == pixels.max():
        raise RadiographError(
            "constant_image", "Every pixel of this image has the same value; there is nothing to read."
        )
    pixels = np.ascontiguousarray(pixels)
    pixels.flags.writeable = False
    return Radiograph(
        pixels=pixels,
        max_value=max_value,
        sha256=hashlib.sha256(data).hexdigest(),
        format=format_,
        name=base_name(name),
        warnings=tuple(dict.fromkeys(warnings)),
        pixel_spacing_mm=spacing,
        metadata=MappingProxyType({key: value for key, value in metadata.items() if value}),
    )


def check_size(width: int, height: int, max_pixels: int, bytes_per_pixel: int) -> None:
    """Refuse a declared size before anything is allocated for it. Raises RadiographError."""
    if width < 1 or height < 1 or min(width, height) < MIN_SIDE_PX:
        raise RadiographError(
            "too_small", f"This image is {width}×{height} px; a side must have at least {MIN_SIDE_PX} px."
        )
    if width * height > max_pixels or width * height * bytes_per_pixel > MAX_DECODED_BYTES:
        raise RadiographError(
            "too_large", f"This image declares {width}×{height} px, more than Overread reads; send a smaller one."
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise RadiographError(
            "bad_aspect_ratio", f"This image is {width}×{height} px, too long and narrow for a chest radiograph."
        )


@contextmanager
def damage_reported_as(code: str, message: str) -> Iterator[None]:
    """Everything that goes wrong inside becomes one RadiographError.

    Pillow, pydicom and OpenJPEG raise a dozen unrelated types for damaged bytes (SyntaxError, struct.error, KeyError,
    zlib.error, RecursionError, …), and new ones with each release: only a catch-all keeps the promise to the caller.
    """
    try:
        yield
    except RadiographError:
        raise
    except MemoryError as error:
        raise RadiographError("too_large", "There is not enough memory to read this image.") from error
    except Exception as error:
        raise RadiographError(code, message) from error


def clean_text(text: str, limit: int = 64) -> str:
    """One printable line: no controls, no direction overrides, no lone surrogates, at most `limit` characters."""
    kept = "".join(c if not unicodedata.category(c).startswith(("C", "Z")) else " " for c in text[: 4 * limit])
    return re.sub(" +", " ", kept).strip()[:limit]


def base_name(name: str) -> str:
    """The last component of a path of either kind of system, printable."""
    last = clean_text(re.split(r"[/\\]", name)[-1], limit=255)
    return "" if last in (".", "..") else last
