"""What a decoding process and the one who asks say to each other: fixed headers, then bytes. No pickle.

Request: header, the file's name (UTF-8), its bytes. Answer: header, a JSON text, then the pixels, H×W little-endian:
those of the radiograph as it is read, or as the viewer draws it.

The answering side is not trusted: `parse_answer` checks every number before it is used.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import date
from types import MappingProxyType
from typing import Any, cast, get_args

import numpy as np

from app.decoding.pixels import MAX_WINDOWS, Pixels, Preset
from model.errors import RadiographError
from model.radiograph.identity import Identity
from model.radiograph.image import MAX_PIXELS, MIN_SIDE_PX, Format, Radiograph, base_name, clean_text

READY = b"R"
REQUEST = struct.Struct("<4sBIIIQ")  # magic, lateral or not, most pixels, viewer's side, bytes of name, bytes of file
ANSWER = struct.Struct("<4sBIIBIQ")  # magic, kind, rows, columns, bytes a pixel, bytes of JSON, bytes of pixels
ASK, SAY = b"ORq3", b"ORa3"
READ, REFUSED, VIEWED = 0, 1, 2
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
class Question:
    """What to do with a file. view_px: gives what the viewer draws, at most so large a side; 0 reads it.

    max_pixels: more are refused. lateral: whether a lateral view is taken, with a warning.
    """

    max_pixels: int = MAX_PIXELS
    lateral: bool = False
    view_px: int = 0


@dataclass(frozen=True)
class AnswerHead:
    """The numbers of an answer, checked against what was asked."""

    refused: bool
    rows: int
    columns: int
    bytes_per_pixel: int
    text_bytes: int
    pixel_bytes: int


def request(data: bytes, name: str, question: Question) -> tuple[bytes, bytes]:
    """Header with name, and the file. The name decides nothing in a decoder, so it may be cut."""
    encoded = base_name(name).encode()
    numbers = (question.lateral, question.max_pixels, question.view_px, len(encoded), len(data))
    return REQUEST.pack(ASK, *numbers) + encoded, data


def answer(radiograph: Radiograph, identity: Identity) -> tuple[bytes, bytes]:
    """Header with JSON, and the pixels, of what was read."""
    said = {
        "max_value": radiograph.max_value,
        "format": radiograph.format,
        "warnings": list(radiograph.warnings),
        "pixel_spacing_mm": radiograph.pixel_spacing_mm,
        "metadata": dict(radiograph.metadata),
        "identity": asdict(identity),
    }
    return _answered(READ, json.dumps(said, default=date.isoformat).encode(), radiograph.pixels)


def view_answer(view: Pixels) -> tuple[bytes, bytes]:
    """The same of what the viewer draws."""
    said = {one.name: getattr(view, one.name) for one in fields(Pixels) if one.name not in ("values", "windows")}
    said["windows"] = [asdict(window) for window in view.windows]
    return _answered(VIEWED, json.dumps(said).encode(), view.values)


def _answered(kind: int, text: bytes, array: np.ndarray) -> tuple[bytes, bytes]:
    pixels = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return ANSWER.pack(SAY, kind, *array.shape, array.dtype.itemsize, len(text), len(pixels)) + text, pixels


def refusal(error: RadiographError) -> bytes:
    """The same for a file that cannot be read."""
    text = json.dumps({"code": error.code, "message": str(error)[:2000]}).encode()
    return ANSWER.pack(SAY, REFUSED, 0, 0, 0, len(text), 0) + text


def parse_head(header: bytes, question: Question) -> AnswerHead:
    """Raises Garbled."""
    magic, kind, rows, columns, size, text_bytes, pixel_bytes = ANSWER.unpack(header)
    wanted = VIEWED if question.view_px else READ
    if magic != SAY or kind not in (wanted, REFUSED) or not 0 < text_bytes <= MAX_TEXT_BYTES:
        raise Garbled
    if kind == VIEWED and (not 1 <= min(rows, columns) <= max(rows, columns) <= question.view_px or size != 2):
        raise Garbled
    if kind == REFUSED:
        if pixel_bytes:
            raise Garbled
    elif (
        (kind == READ and min(rows, columns) < MIN_SIDE_PX)
        or rows * columns > question.max_pixels
        or size not in (1, 2)
        or pixel_bytes != rows * columns * size
    ):
        raise Garbled
    return AnswerHead(kind == REFUSED, rows, columns, size, text_bytes, pixel_bytes)


def parse_answer(head: AnswerHead, text: bytes, pixels: bytearray, data: bytes, name: str) -> Decoded:
    """The radiograph's hash and name are ours, not the decoder's. Raises RadiographError when refused, Garbled."""
    with _garbled():
        said, array = _said(head, text), _array(head, pixels)
        format_ = said["format"]
        if format_ not in get_args(Format):
            raise Garbled
        radiograph = Radiograph(
            pixels=array,
            max_value=_max_value(said, array),
            sha256=hashlib.sha256(data).hexdigest(),
            format=cast(Format, format_),
            name=base_name(name),
            warnings=tuple(_word(one) for one in said["warnings"][:_MAX_ENTRIES]),
            pixel_spacing_mm=_spacing(said["pixel_spacing_mm"]),
            metadata=_metadata(said["metadata"]),
        )
        return Decoded(radiograph, _identity(said["identity"]))


def parse_view(head: AnswerHead, text: bytes, pixels: bytearray) -> Pixels:
    """Raises RadiographError when refused, Garbled."""
    with _garbled():
        said, values = _said(head, text), _array(head, pixels)
        scale, (rows, columns) = said["scale"], said["source"]
        if any(type(one) is not int or one < 1 for one in (scale, rows, columns)) or rows * columns > MAX_PIXELS:
            raise Garbled
        if (-(-rows // scale), -(-columns // scale)) != values.shape:
            raise Garbled
        return Pixels(
            values=values,
            max_value=_max_value(said, values),
            source=(rows, columns),
            scale=scale,
            slope=_finite(said["slope"]),
            intercept=_finite(said["intercept"]),
            windows=tuple(
                Preset(clean_text(one["name"]), _finite(one["centre"]), _finite(one["width"]))
                for one in said["windows"][:MAX_WINDOWS]
            ),
            spacing_mm=_spacing(said["spacing_mm"]),
            spacing_at_detector=bool(said["spacing_at_detector"]),
        )


@contextmanager
def _garbled() -> Iterator[None]:
    """Whatever is odd about an answer's parts is Garbled."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Garbled from error


def _said(head: AnswerHead, text: bytes) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(text)
    if head.refused:
        raise RadiographError(_word(said["code"]), clean_text(said["message"], 2000))
    return said


def _array(head: AnswerHead, pixels: bytearray) -> np.ndarray:
    array = np.frombuffer(pixels, f"<u{head.bytes_per_pixel}").reshape(head.rows, head.columns)
    array.flags.writeable = False
    return array


def _max_value(said: dict[str, Any], array: np.ndarray) -> int:
    value = said["max_value"]
    if type(value) is not int or not array.max() <= value < 256**array.itemsize:
        raise Garbled
    return value


def _finite(said: Any) -> float:
    if not math.isfinite(said):
        raise Garbled
    return float(said)


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
