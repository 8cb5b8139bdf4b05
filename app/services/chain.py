"""Rows that can only be added, each sealed to the one before it.

hash = SHA-256(previous hash, as 64 hexadecimal digits, then the canonical JSON of the document), both as UTF-8. The
first previous hash is 64 zeros. Whoever notes the newest hash elsewhere can tell later whether anything before it was
changed or taken away; without such a note, rows cut off at the end cannot be missed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.tables import AuditRow, ReviewRow

FIRST = "0" * 64
_BATCH = 1000
_LOCKS = {"reviews": 0x6F76_0001, "audit_events": 0x6F76_0002}
Row = TypeVar("Row", AuditRow, ReviewRow)


@dataclass(frozen=True)
class Break:
    """The first link that does not hold, and why."""

    sequence: int
    why: str


@dataclass(frozen=True)
class ChainReport:
    """What verification found. length: links that hold, from the first. head: hash of the last of them."""

    name: str
    length: int
    head: str
    broken: Break | None = None


def timestamp() -> str:
    """The present as the chains write it: ISO 8601, UTC, microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def canonical(document: Mapping[str, Any]) -> str:
    """One text for one value: keys sorted, no spaces, characters as they are. Raises ValueError for NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def seal(previous_hash: str, document: str) -> str:
    """The hash of a link."""
    return hashlib.sha256((previous_hash + document).encode()).hexdigest()


def lock(session: Session, table: type[Row]) -> None:
    """Waits until nobody else can add; SQLite's BEGIN IMMEDIATE has done so already."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCKS[table.__tablename__]})


def append(session: Session, table: type[Row], document: Mapping[str, Any]) -> Row:
    """Adds a link and flushes it. `lock` first when what is added depends on what is there."""
    lock(session, table)
    last = session.execute(select(table.sequence, table.hash).order_by(table.sequence.desc()).limit(1)).first()
    sequence, previous = (last.sequence + 1, last.hash) if last else (1, FIRST)
    sealed = canonical({**document, "sequence": sequence})
    row = table(
        sequence=sequence,
        document=sealed,
        previous_hash=previous,
        hash=seal(previous, sealed),
        **table.repeated(document),
    )
    session.add(row)
    session.flush()
    return row


def verify(session: Session, table: type[Row]) -> ChainReport:
    """Recomputes every link, and compares the columns with what was sealed; stops at the first that does not hold."""
    previous, length, after = FIRST, 0, None
    while True:
        query = select(table).order_by(table.sequence).limit(_BATCH)
        rows = session.scalars(query if after is None else query.where(table.sequence > after)).all()
        for row in rows:
            why = _fault(row, length + 1, previous)
            if why:
                return ChainReport(table.__tablename__, length, previous, Break(row.sequence, why))
            previous, length, after = row.hash, length + 1, row.sequence
        session.expunge_all()
        if len(rows) < _BATCH:
            return ChainReport(table.__tablename__, length, previous)


def _fault(row: AuditRow | ReviewRow, expected: int, previous: str) -> str:
    if row.sequence != expected:
        return f"row {expected} is missing"
    if row.previous_hash != previous:
        return "it does not name the hash of the row before it"
    if seal(previous, row.document) != row.hash:
        return "its contents are not those that were sealed"
    document = json.loads(row.document)
    if document.get("sequence") != row.sequence:
        return "its number is not the one that was sealed"
    changed = [name for name, value in row.repeated(document).items() if getattr(row, name) != value]
    return f"its column {changed[0]} differs from what was sealed" if changed else ""
