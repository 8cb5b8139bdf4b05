"""Whose study a DICOM file belongs to: from its header alone, without decoding a pixel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from pydicom.charset import decode_bytes, python_encoding

from model.radiograph.header import Header, looks_like_dicom, parse
from model.radiograph.image import clean_text

_MAX_UID = 64  # PS3.5 9.1


@dataclass(frozen=True)
class Identity:
    """What a file says about its place among others; empty or None where it says nothing usable.

    The texts are printable, one line, at most 64 characters; patient_name keeps the DICOM order, family name first,
    its components parted by spaces. The UIDs are well-formed (PS3.5 9.1).
    """

    study_instance_uid: str = ""
    series_instance_uid: str = ""
    sop_instance_uid: str = ""
    patient_id: str = ""
    patient_name: str = ""
    study_date: date | None = None
    description: str = ""


def read_identity(data: bytes) -> Identity:
    """The identity in a DICOM file's header; an empty one for PNG, JPEG, and whatever cannot be parsed.

    data: the file's bytes. Never raises: an odd value is an absent one.
    """
    if not looks_like_dicom(data):
        return Identity()
    try:
        header = parse(data).header
        return Identity(
            study_instance_uid=_uid(header, 0x0020000D),
            series_instance_uid=_uid(header, 0x0020000E),
            sop_instance_uid=_uid(header, 0x00080018),
            patient_id=_text(header, 0x00100020),
            patient_name=_name(header),
            study_date=_date(header.text(0x00080020)),
            description=_text(header, 0x00081030) or _text(header, 0x0008103E),
        )
    except Exception:  # pydicom raises a dozen unrelated types for damaged bytes; see image.damage_reported_as
        return Identity()


def _uid(header: Header, tag: int) -> str:
    """From the raw bytes: a text that was cut to its length would be another one's UID."""
    uid = (header.raw(tag) or b"").decode("latin-1").strip(" \0")
    return uid if len(uid) <= _MAX_UID and re.fullmatch(r"[0-9]+(\.[0-9]+)*", uid) else ""


def _text(header: Header, tag: int) -> str:
    """The first value, in the file's own character set (PS3.3 C.12.1.1.2) where it can be decoded."""
    raw = header.raw(tag)
    if not raw:
        return ""
    text = _decoded(header, raw[:4096])
    return clean_text(text.split("\\")[0])


def _name(header: Header) -> str:
    """PS3.5 6.2.1: component groups parted by “=”, the first is the alphabetic one; components by “^”."""
    raw = header.raw(0x00100010)
    if not raw:
        return ""
    groups = [clean_text(group.replace("^", " ")) for group in _decoded(header, raw[:4096]).split("=")]
    return next((group for group in groups if group), "")


def _decoded(header: Header, raw: bytes) -> str:
    charset = header.text(0x00080005).upper()
    encoding = {"ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gbk"}.get(charset)
    if encoding is None and charset not in ("", "ISO_IR 6", "ISO_IR 100"):
        names = [python_encoding.get(name) or "iso8859" for name in header.texts(0x00080005)]
        return decode_bytes(raw, names, set(b"\\^="))
    try:
        return raw.decode(encoding or "utf-8")  # many write UTF-8 and say nothing
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _date(text: str) -> date | None:
    """DA, YYYYMMDD, or the older YYYY.MM.DD (PS3.5 6.2)."""
    digits = text.replace(".", "")
    if not re.fullmatch(r"[0-9]{8}", digits):
        return None
    try:
        return date.fromisoformat(digits)
    except ValueError:
        return None
