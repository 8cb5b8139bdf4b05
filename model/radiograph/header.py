"""DICOM bytes → a data set, and its attributes as plain numbers and texts.

Values are taken from their raw bytes: pydicom's own conversion warns or raises for every oddity of real files, in
whichever place first touches the attribute.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from model.errors import RadiographError
from model.radiograph.image import clean_text

PIXEL_DATA = 0x7FE00010
MAX_INFLATED_BYTES = 2**26
_MAX_READS = 100_000  # two an element; real headers have some hundred elements
_MAX_SEQUENCE_BYTES = 2**22


@dataclass(frozen=True, eq=False)
class Header:
    """Attributes of a data set by tag; absent and malformed ones are empty or None, never an exception."""

    dataset: Dataset
    little_endian: bool

    def raw(self, tag: int) -> bytes | None:
        """The value's bytes as they are in the file."""
        if tag not in self.dataset:
            return None
        value = self.dataset.get_item(tag).value
        return value if isinstance(value, bytes) else None

    def texts(self, tag: int) -> list[str]:
        """Values of a text attribute, cleaned for printing."""
        raw = self.raw(tag)
        return [clean_text(part) for part in raw[:4096].decode("latin-1").split("\\")] if raw else []

    def text(self, tag: int) -> str:
        """The first value, or ""."""
        return next(iter(self.texts(tag)), "")

    def uid(self, tag: int) -> str:
        """A well-formed UID (PS3.5 9.1), or ""."""
        text = self.text(tag)
        return text if re.fullmatch(r"[0-9]+(\.[0-9]+)*", text) else ""

    def floats(self, tag: int) -> list[float]:
        """Values of a decimal string; empty if one of them is no finite number."""
        try:
            values = [float(text) for text in self.texts(tag)]
        except ValueError:
            return []
        return values if all(math.isfinite(value) for value in values) else []

    def short(self, tag: int, signed: bool = False) -> int | None:
        """A US or SS value."""
        raw = self.raw(tag)
        if raw is None or len(raw) < 2:
            return None
        return int.from_bytes(raw[:2], "little" if self.little_endian else "big", signed=signed)

    def items(self, tag: int) -> list[Header]:
        """The items of a sequence."""
        if tag not in self.dataset:
            return []
        raw = self.raw(tag)
        if raw is not None and len(raw) > _MAX_SEQUENCE_BYTES:
            raise RadiographError("damaged_dicom", "A sequence in this DICOM file is larger than any real one.")
        value = self.dataset[tag].value
        return [Header(item, self.little_endian) for item in value] if isinstance(value, Sequence) else []


@dataclass(frozen=True, eq=False)
class Parsed:
    """A DICOM file's two parts, the transfer syntax of the second, and warnings."""

    meta: Header
    header: Header
    transfer_syntax: str
    warnings: tuple[str, ...]


class _BoundedReader(io.BytesIO):
    """Bytes that can be read so many times: millions of empty elements would keep the parser busy for minutes."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise RadiographError("damaged_dicom", "This DICOM file has more attributes than any real one.")
        return super().read(size)


class _EndOfData:
    """Stops the parser at what cannot follow Pixel Data: another file's bytes, or the rest of pixels cut too short.

    What can (PS3.3 C.12.1.1.3, PS3.10 7.2): signatures, padding, and the private groups that come next in order.
    """

    reached = False
    _after_pixels = False

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        group = tag >> 16
        may_follow = group in (0xFFFA, 0xFFFC) or (0x7FE0 < group < 0x8000 and group % 2 == 1)
        self.reached = self._after_pixels and not may_follow
        self._after_pixels = self._after_pixels or tag == PIXEL_DATA
        return self.reached


def looks_like_dicom(data: bytes) -> bool:
    """With a preamble (PS3.10 7.1), or without one and beginning with group 0002 or 0008."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 132 or data[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    return re.fullmatch(rb"[A-Z]{2}", data[4:6]) is not None or int.from_bytes(data[4:8], "little") < len(data)


def parse(data: bytes) -> Parsed:
    """Parse without decoding pixels. Raises RadiographError, and whatever pydicom raises for damaged bytes."""
    warnings = []
    start = 132 if data[128:132] == b"DICM" else 0
    if start and data[:128].strip(b"\0"):
        warnings.append("preamble_not_empty")
    reader = _BoundedReader(data)
    reader.seek(start)
    meta = Dataset()
    if data[start : start + 2] == b"\x02\x00":
        meta = read_dataset(reader, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    meta_header = Header(meta, True)
    syntax = meta_header.uid(0x00020010) or _guess_syntax(data[reader.tell() :][:8])
    if syntax == DeflatedExplicitVRLittleEndian:
        reader = _BoundedReader(_inflate(data[reader.tell() :]))
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    end = _EndOfData()
    dataset = read_dataset(reader, implicit, little, stop_when=end)
    if end.reached:
        warnings.append("trailing_data")
    return Parsed(meta_header, Header(dataset, little), syntax, tuple(warnings))


def _guess_syntax(start: bytes) -> str:
    """Of a data set without file meta information: its first element shows whether the VR is written out."""
    return str(ExplicitVRLittleEndian if re.fullmatch(rb"[A-Z]{2}", start[4:6]) else ImplicitVRLittleEndian)


def _inflate(data: bytes) -> bytes:
    """PS3.5 A.5, with a bound: pydicom inflates whatever it is given."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    out = inflater.decompress(data, MAX_INFLATED_BYTES)
    if not inflater.eof:
        if len(out) >= MAX_INFLATED_BYTES:
            raise RadiographError("too_large", "This deflated DICOM file unpacks to more than Overread reads.")
        raise RadiographError("damaged_dicom", "This deflated DICOM file is cut short; export or upload it again.")
    return out


def unpack_shorts(raw: bytes, count: int, little_endian: bool) -> tuple[int, ...]:
    """`count` unsigned 16-bit numbers."""
    return struct.unpack_from(f"{'<' if little_endian else '>'}{count}H", raw)
