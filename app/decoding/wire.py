"""What a decoding process and the one who asks say to each other: fixed headers, then bytes. No pickle.

Request: header, the file's name (UTF-8), its bytes. Answer: header, a JSON text, then the pixels, H×W little-endian.
The answering side is not trusted: `parse_answer` checks every number before it is used.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from types import MappingProxyType
from typing import Any, cast, get_args

import numpy as np

from model.errors import RadiographError
from model.radiograph.identity import Identity
from model.radiograph.image import MIN_SIDE_PX, Format, Radiograph, base_name, clean_text

READY = b"R"
REQUEST = struct.Struct("<4sBIIQ")  # magic, lateral or not, largest number of pixels, bytes of name, bytes of file
ANSWER = struct.Struct("<4sBIIBIQ")  # magic, kind, rows, columns, bytes a pixel, bytes of JSON, bytes of pixels
ASK, SAY = b"ORq2", b"ORa2"
READ, REFUSED = 0, 1
MAX_TEXT_BYTES = 2**16
_MAX_ENTRIES = 64


class Garbled(Exception):
    """The answer is not one that a decoder of ours gives."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a file holds, and whose it says it is."""

    radiograph: Radiograph
    identity: Identity


@dataclass(frozen=True)
class AnswerHead:
    """The numbers of an answer, checked against what was asked."""

    refused: bool
    rows: int
    columns: int
    bytes_per_pixel: int
    text_bytes: int
    pixel_bytes: int


def request(data: bytes, name: str, max_pixels: int, lateral: bool) -> tuple[bytes, bytes]:
    """Header with name, and the file. The name decides nothing in a decoder, so it may be cut."""
    encoded = base_name(name).encode()
    return REQUEST.pack(ASK, lateral, max_pixels, len(encoded), len(data)) + encoded, data


def answer(radiograph: Radiograph, identity: Identity) -> tuple[bytes, bytes]:
    """Header with JSON, and the pixels."""
    pixels = radiograph.pixels.astype(radiograph.pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    said = {
        "max_value": radiograph.max_value,
        "format": radiograph.format,
        "warnings": list(radiograph.warnings),
        "pixel_spacing_mm": radiograph.pixel_spacing_mm,
        "metadata": dict(radiograph.metadata),
        "identity": asdict(identity),
    }
    text = json.dumps(said, default=date.isoformat).encode()
    rows, columns = radiograph.pixels.shape
    size = radiograph.pixels.dtype.itemsize
    return ANSWER.pack(SAY, READ, rows, columns, size, len(text), len(pixels)) + text, pixels


def refusal(error: RadiographError) -> bytes:
    """The same for a file that cannot be read."""
    text = json.dumps({"code": error.code, "message": str(error)[:2000]}).encode()
    return ANSWER.pack(SAY, REFUSED, 0, 0, 0, len(text), 0) + text


def parse_head(header: bytes, max_pixels: int) -> AnswerHead:
    """Raises Garbled."""
    magic, kind, rows, columns, size, text_bytes, pixel_bytes = ANSWER.unpack(header)
    if magic != SAY or kind not in (READ, REFUSED) or not 0 < text_bytes <= MAX_TEXT_BYTES:
        raise Garbled
    if kind == REFUSED:
        if pixel_bytes:
            raise Garbled
    elif (
        min(rows, columns) < MIN_SIDE_PX
        or rows * columns > max_pixels
        or size not in (1, 2)
        or pixel_bytes != rows * columns * size
    ):
        raise Garbled
    return AnswerHead(kind == REFUSED, rows, columns, size, text_bytes, pixel_bytes)


def parse_answer(head: AnswerHead, text: bytes, pixels: bytearray, data: bytes, name: str) -> Decoded:
    """The radiograph's hash and name are ours, not the decoder's. Raises RadiographError when refused, Garbled."""
    try:
        said = json.loads(text)
        if head.refused:
            raise RadiographError(_word(said["code"]), clean_text(said["message"], 2000))
        array = np.frombuffer(pixels, f"<u{head.bytes_per_pixel}").reshape(head.rows, head.columns)
        array.flags.writeable = False
        max_value, format_ = said["max_value"], said["format"]
        if type(max_value) is not int or not array.max() <= max_value < 256**head.bytes_per_pixel:
            raise Garbled
        if format_ not in get_args(Format):
            raise Garbled
        radiograph = Radiograph(
            pixels=array,
            max_value=max_value,
            sha256=hashlib.sha256(data).hexdigest(),
            format=cast(Format, format_),
            name=base_name(name),
            warnings=tuple(_word(one) for one in said["warnings"][:_MAX_ENTRIES]),
            pixel_spacing_mm=_spacing(said["pixel_spacing_mm"]),
            metadata=_metadata(said["metadata"]),
        )
        return Decoded(radiograph, _identity(said["identity"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Garbled from error


def _word(text: Any) -> str:
    if not isinstance(text, str) or len(text) > 64 or not text.replace("_", "").isalnum():
        raise Garbled
    return text


def _spacing(said: Any) -> tuple[float, float] | None:
    if said is None:
        return None
    rows, columns = (float(one) for one in said)
    if not (0 < rows < 1000 and 0 < columns < 1000):
        raise Garbled
    return rows, columns


def _identity(said: Any) -> Identity:
    texts = {one.name: clean_text(said[one.name]) for one in fields(Identity) if one.name != "study_date"}
    day = said["study_date"]
    return Identity(**texts, study_date=None if day is None else date.fromisoformat(day))


def _metadata(said: Any) -> Mapping[str, str]:
    if not isinstance(said, dict) or len(said) > _MAX_ENTRIES:
        raise Garbled
    return MappingProxyType({_word(key): clean_text(value, 1024) for key, value in said.items()})
