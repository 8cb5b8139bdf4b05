"""Who did what, without anything of a patient: an append-only, hash-chained record."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.db import Database
from app.services.chain import ChainReport, append, timestamp, verify
from app.services.users import Actor
from app.tables import AuditRow, ReviewRow
from model.checkpoint import NOTICE

READS_APART_S = 300  # the same person's reads of the same thing within this time are one event
_REMEMBERED = 4096
_BATCH = 500
_FIELDS = ("sequence", "at", "actor", "action", "subject", "detail", "hash")


@dataclass(frozen=True)
class Event:
    """A recorded action. at: ISO 8601, UTC. subject: an id, may be empty. detail: small values for programs."""

    sequence: int
    at: str
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    previous_hash: str
    hash: str


@dataclass(frozen=True)
class Filter:
    """Which events; empty means all. day: in UTC."""

    actor: str = ""
    action: str = ""
    day: date | None = None


@dataclass(frozen=True)
class Page:
    """Events, the newest first. older: the cursor of the next page, None on the last."""

    events: tuple[Event, ...]
    older: int | None


class AuditService:
    """Records, lists, verifies."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._recent: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        self._guard = threading.Lock()

    def record(
        self, session: Session, actor: Actor, action: str, subject: str = "", detail: Mapping[str, Any] | None = None
    ) -> None:
        """Adds an event to the caller's transaction: it is there if, and only if, what it tells of is.

        action: `subject.verb`. detail: JSON values; never a name, a file name or an identifier of a patient.
        """
        document = {
            "at": timestamp(),
            "actor": actor.name,
            "actor_id": actor.id,
            "action": action,
            "subject": subject,
            "detail": dict(detail or {}),
        }
        append(session, AuditRow, document)

    def note(self, actor: Actor, action: str, subject: str = "", detail: Mapping[str, Any] | None = None) -> None:
        """The same in a transaction of its own."""
        with self.db.write() as session:
            self.record(session, actor, action, subject, detail)

    def note_read(self, actor: Actor, action: str, subject: str) -> None:
        """The same for a read, once for all the parts of a page and its polling."""
        key, moment = (actor.id, action, subject), time.monotonic()
        with self._guard:
            if moment - self._recent.get(key, -READS_APART_S) < READS_APART_S:
                return
        self.note(actor, action, subject)
        with self._guard:
            self._recent[key] = moment
            self._recent.move_to_end(key)
            while len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)

    def page(self, wanted: Filter, before: int | None, limit: int) -> Page:
        """A page of the list. before: the cursor, a sequence number."""
        query = _filtered(wanted).order_by(AuditRow.sequence.desc()).limit(limit + 1)
        with self.db.read() as session:
            rows = session.scalars(query if before is None else query.where(AuditRow.sequence < before)).all()
            events = tuple(_event(row) for row in rows[:limit])
        return Page(events, events[-1].sequence if len(rows) > limit else None)

    def actions(self) -> list[str]:
        """Every action that was ever recorded."""
        with self.db.read() as session:
            return list(session.scalars(select(AuditRow.action).distinct().order_by(AuditRow.action)))

    def actors(self) -> list[str]:
        """Everybody who ever did something."""
        with self.db.read() as session:
            return list(session.scalars(select(AuditRow.actor).distinct().order_by(AuditRow.actor)))

    def verify(self) -> list[ChainReport]:
        """Recomputes both chains of the database: the reviews' and the audit's."""
        with self.db.read() as session:
            return [verify(session, ReviewRow), verify(session, AuditRow)]

    def holds(self, digest: str) -> bool:
        """Whether a hash that was noted earlier is still a link of either chain."""
        with self.db.read() as session:
            queries = (select(table.sequence).where(table.hash == digest) for table in (ReviewRow, AuditRow))
            return any(session.scalars(query).first() is not None for query in queries)

    def csv(self, wanted: Filter) -> Iterator[str]:
        """The list as CSV, oldest first, in pieces. A cell that a spreadsheet would run is quoted."""

        def cells(event: dict[str, Any]) -> list[str]:
            values = (event[name] for name in _FIELDS)
            return [_cell(json.dumps(one) if isinstance(one, dict) else str(one)) for one in values]

        yield from _lines([_FIELDS])
        for events in self._batches(wanted):
            yield from _lines(
                [
                    _cell(json.dumps(value) if isinstance(value, dict) else str(value))
                    for value in map(event.get, _FIELDS)
                ]
                for event in events
            )

    def json(self, wanted: Filter) -> Iterator[str]:
        """The list as JSON, oldest first, in pieces: the documents as they were sealed, with their hashes."""
        yield f'{{"notice": {json.dumps(NOTICE)}, "events": ['
        separator = "\n"
        for events in self._batches(wanted):
            for event in events:
                yield separator + json.dumps(event, ensure_ascii=False)
                separator = ",\n"
        yield "\n]}\n"

    def _batches(self, wanted: Filter) -> Iterator[list[dict[str, Any]]]:
        """Short transactions, so that a slow reader of the export holds nothing."""
        after = 0
        while True:
            query = _filtered(wanted).where(AuditRow.sequence > after).order_by(AuditRow.sequence).limit(_BATCH)
            with self.db.read() as session:
                rows = session.scalars(query).all()
                batch = [
                    {**json.loads(row.document), "previous_hash": row.previous_hash, "hash": row.hash} for row in rows
                ]
            yield batch
            if len(rows) < _BATCH:
                return
            after = rows[-1].sequence


def _filtered(wanted: Filter) -> Select[AuditRow]:
    query = select(AuditRow)
    if wanted.actor:
        query = query.where(AuditRow.actor == wanted.actor)
    if wanted.action:
        query = query.where(AuditRow.action == wanted.action)
    if wanted.day:
        after = wanted.day + timedelta(days=1)
        query = query.where(AuditRow.at >= wanted.day.isoformat(), AuditRow.at < after.isoformat())
    return query


def _event(row: AuditRow) -> Event:
    document = json.loads(row.document)
    return Event(
        row.sequence, row.at, row.actor, row.action, row.subject, document["detail"], row.previous_hash, row.hash
    )


def _lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    yield buffer.getvalue()


def _cell(value: str) -> str:
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
