"""The worklist: filters, order, pages by cursor.

It opens no analysis, and a page costs the same at the beginning and at the end of the list. What a reader may not see
yet (app.services.read_first) is veiled in the query itself, so that no filter, order or cursor tells it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import urlencode

from sqlalchemy import ColumnElement, Select, literal, or_, select, tuple_
from sqlalchemy.orm import Session

from app.db import Database
from app.schemas import CalledInfo, StudyInfo
from app.services.errors import InvalidError
from app.services.ids import is_id
from app.services.read_first import ReadFirst
from app.services.search import matching
from app.services.users import Actor
from app.tables import StudyRow, utc

PAGE_ROWS = 50
VEILED = ("reference", "candidate", "disagreement", "flag", "flag_by", "flag_finding")
_VEIL = {**dict.fromkeys(VEILED), "read_first": True}
_EXPORT_ROWS = 500
ME, NOBODY = "me", "nobody"


class Sort(StrEnum):
    """received: the newest first. priority: the strongest flag first, then disagreements, then the newest."""

    RECEIVED = "received"
    PRIORITY = "priority"


FlagWord = Literal["not_calibrated", "no_evidence", "screened", "suspicious", "causal"]
StatusWord = Literal["unread", "in_progress", "read"]


@dataclass(frozen=True)
class Filters:
    """Which studies, in which order. None and "" let everything through.

    claimed: who claimed or read it, `me` or `nobody`. q: beginnings of words, all of which must be found in what is
    known of the study: file names, patient, description, ids.
    """

    flag: FlagWord | None = None
    status: StatusWord | None = None
    disagreement: bool | None = None
    claimed: str = ""
    q: str = ""
    sort: Sort = Sort.RECEIVED

    def query_string(self, **more: str) -> str:
        """As the address of a page has it; empty for the plain list."""
        fields: dict[str, str | None] = {
            "flag": self.flag,
            "status": self.status,
            "disagreement": None if self.disagreement is None else "yes" if self.disagreement else "no",
            "claimed": self.claimed,
            "q": self.q,
            "sort": None if self.sort is Sort.RECEIVED else self.sort.value,
            **more,
        }
        return urlencode({key: value for key, value in fields.items() if value})

    @property
    def narrowed(self) -> bool:
        """Whether they hide anything."""
        return replace(self, sort=Sort.RECEIVED) != Filters()


@dataclass(frozen=True)
class Page:
    """Some rows, and the cursor of those that follow; None at the end."""

    studies: list[StudyInfo]
    next_cursor: str | None


class Worklist:
    """The list as readers see it, each with what they may see."""

    def __init__(self, db: Database, read_first: ReadFirst) -> None:
        self.db = db
        self.read_first = read_first

    def page(self, filters: Filters, actor: Actor, cursor: str | None = None, limit: int = PAGE_ROWS) -> Page:
        """A page of the list. Raises InvalidError `bad_cursor`."""
        with self.db.read() as session:
            lines = self._lines(session, filters, actor, limit + 1, _after(cursor, filters.sort) if cursor else None)
        following = len(lines) > limit
        lines = lines[:limit]
        return Page([line.info for line in lines], _cursor(lines[-1], filters.sort) if following else None)

    def every(self, filters: Filters, actor: Actor) -> Iterator[StudyInfo]:
        """The whole filtered list, some hundreds at a time: memory does not grow, and no transaction stays open."""
        after: list[Any] | None = None
        while True:
            with self.db.read() as session:
                lines = self._lines(session, filters, actor, _EXPORT_ROWS, after)
            for line in lines:
                yield line.info
            if len(lines) < _EXPORT_ROWS:
                return
            after = lines[-1].key(filters.sort)

    def next_unread(self, filters: Filters, actor: Actor, after: str | None = None) -> str | None:
        """Id of the unread study that follows `after` in the list, or the first one, also when the list ends there."""
        unread = replace(filters, status="unread")
        with self.db.read() as session:
            current = session.get(StudyRow, after) if after and is_id(after) else None
            place = self.line(session, current, actor).key(filters.sort) if current else None
            following = self._lines(session, unread, actor, 1, place) if place else []
            lines = following or self._lines(session, unread, actor, 2, None)
        return next((line.row.id for line in lines if line.row.id != after), None)

    def line(self, session: Session, row: StudyRow, actor: Actor) -> Line:
        """One study as this reader sees it."""
        return Line(row, row.id in self._veiled(session, [row], self.read_first.owed(session, actor)))

    def _lines(
        self, session: Session, filters: Filters, actor: Actor, limit: int, after: list[Any] | None
    ) -> list[Line]:
        owed = self.read_first.owed(session, actor)
        query = _query(session, filters, actor)
        if owed is None:
            return self._run(session, _part(query, filters.sort, after, limit), owed)
        if filters.flag or filters.disagreement is not None:  # what is veiled cannot be found by it
            return self._run(session, _part(query.where(~owed), filters.sort, after, limit), None)
        if filters.sort is not Sort.PRIORITY:  # what may be veiled decides nothing
            return self._run(session, _part(query, filters.sort, after, limit), owed)
        # Each part can use the index of its order, which a condition inside the order could not; the first is small.
        first = _part(query.where(StudyRow.priority > 0, ~owed), filters.sort, after, limit)
        others = query.where(or_(StudyRow.priority == 0, owed))
        if after is not None:  # their priority is 0, as far as this reader may know
            others = others.where(literal(after[0] >= 0))
            after = after[1:] if after[0] == 0 else None
        lines = self._run(session, first, None)
        if len(lines) < limit:
            lines += self._run(session, _part(others, Sort.RECEIVED, after, limit - len(lines)), owed)
        return lines

    def _run(self, session: Session, query: Select[StudyRow], owed: ColumnElement[bool] | None) -> list[Line]:
        rows = session.scalars(query).all()
        veiled = self._veiled(session, rows, owed)
        return [Line(row, row.id in veiled) for row in rows]

    @staticmethod
    def _veiled(session: Session, rows: Sequence[StudyRow], owed: ColumnElement[bool] | None) -> set[str]:
        """Ids of those of the rows whose reading is owed."""
        if owed is None or not rows:
            return set()
        return set(session.scalars(select(StudyRow.id).where(StudyRow.id.in_([row.id for row in rows]), owed)))


@dataclass(frozen=True)
class Line:
    """A study as a reader sees it. veiled: without what checkpoints say, until the reader has read it unaided."""

    row: StudyRow
    veiled: bool

    @property
    def info(self) -> StudyInfo:
        """What a list says of it."""
        info = _study_info(self.row)
        return info.model_copy(update=_VEIL) if self.veiled else info

    def key(self, sort: Sort) -> list[Any]:
        """Its place in the order."""
        newest = [utc(self.row.received_at), self.row.id]
        return [0 if self.veiled else self.row.priority, *newest] if sort is Sort.PRIORITY else newest


def _study_info(row: StudyRow) -> StudyInfo:
    return StudyInfo(
        id=row.id,
        url=f"/studies/{row.id}",
        title=row.title,
        format=row.format,
        instance_count=row.instance_count,
        study_instance_uid=row.study_instance_uid,
        patient_id=row.patient_id,
        patient_name=row.patient_name,
        study_date=row.study_date,
        description=row.description,
        source=row.source,
        received_at=utc(row.received_at),
        status=row.status,
        claimed_by=row.claimed_by,
        claimed_at=utc(row.claimed_at) if row.claimed_at else None,
        reference=_called(row.reference_positives, row.reference_finding, row.reference_probability),
        candidate=_called(row.candidate_positives, row.candidate_finding, row.candidate_probability),
        disagreement=row.disagreement,
        flag=row.flag,
        flag_by=row.flag_by,
        flag_finding=row.flag_finding,
    )


def _query(session: Session, filters: Filters, actor: Actor) -> Select[StudyRow]:
    """The rows that pass, in no order."""
    query = select(StudyRow)
    if filters.flag:
        query = query.where(StudyRow.flag == filters.flag)
    if filters.status:
        query = query.where(StudyRow.status == filters.status)
    if filters.disagreement is not None:
        query = query.where(StudyRow.disagreement == filters.disagreement)
    if filters.claimed == NOBODY:
        query = query.where(StudyRow.claimed_by.is_(None))
    elif filters.claimed:
        query = query.where(
            StudyRow.claimed_by == (actor.name if filters.claimed == ME else filters.claimed.replace("\0", " "))
        )
    found = matching(session, filters.q)
    return query if found is None else query.where(found)


def _part(query: Select[StudyRow], sort: Sort, after: list[Any] | None, limit: int) -> Select[StudyRow]:
    """The first rows behind a place, in the order in which `Line.key` puts rows that are not veiled."""
    columns: list[Any] = [StudyRow.received_at, StudyRow.id]
    if sort is Sort.PRIORITY:
        columns.insert(0, StudyRow.priority)
    if after is not None:
        query = query.where(tuple_(*columns) < tuple_(*after))
    return query.order_by(*(column.desc() for column in columns)).limit(limit)


def _cursor(line: Line, sort: Sort) -> str:
    *numbers, received_at, key = line.key(sort)
    text = json.dumps([sort.value, *numbers, received_at.isoformat(), key])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _after(cursor: str, sort: Sort) -> list[Any]:
    """Raises InvalidError `bad_cursor`, also for the cursor of another order."""
    try:
        decoded = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        sorted_by, *numbers, received_at, key = decoded
        expected = [int] if sort is Sort.PRIORITY else []
        fits = [type(n) for n in numbers] == expected and all(abs(n) < 2**31 for n in numbers)
        if sorted_by != sort.value or not fits or not isinstance(key, str) or "\0" in key:
            raise ValueError
        at = datetime.fromisoformat(received_at)
        return [*numbers, at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC), key]
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as error:
        message = "This cursor is not one of this list; begin again from its first page."
        raise InvalidError("bad_cursor", message) from error


def _called(positives: int | None, finding: str | None, probability: float | None) -> CalledInfo | None:
    if positives is None:
        return None
    return CalledInfo(finding=finding, probability=probability, positives=positives)
