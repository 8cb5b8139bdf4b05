"""The worklist: filters, order, pages by cursor.

It opens no analysis, and a page costs the same at the beginning and at the end of the list.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import urlencode

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.db import Database
from app.schemas import CalledInfo, StudyInfo
from app.services.errors import InvalidError
from app.services.search import matching
from app.tables import StudyRow, utc

PAGE_ROWS = 50
_EXPORT_ROWS = 500
ME, NOBODY = "me", "nobody"


class Sort(StrEnum):
    """received: the newest first. priority: the strongest flag first, then disagreements, then the newest."""

    RECEIVED = "received"
    PRIORITY = "priority"


FlagWord = Literal["not_calibrated", "no_evidence", "suspicious", "causal"]
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


def list_page(db: Database, filters: Filters, actor: str, cursor: str | None = None, limit: int = PAGE_ROWS) -> Page:
    """A page of the list. Raises InvalidError `bad_cursor`."""
    with db.read() as session:
        rows = _rows(session, filters, actor, limit + 1, _after(cursor, filters.sort) if cursor else None)
    following = len(rows) > limit
    rows = rows[:limit]
    return Page([study_info(row) for row in rows], _cursor(rows[-1], filters.sort) if following else None)


def every(db: Database, filters: Filters, actor: str) -> Iterator[StudyInfo]:
    """The whole filtered list, some hundreds at a time: memory does not grow with it, and no transaction stays open."""
    after: list[Any] | None = None
    while True:
        with db.read() as session:
            rows = _rows(session, filters, actor, _EXPORT_ROWS, after)
        for row in rows:
            yield study_info(row)
        if len(rows) < _EXPORT_ROWS:
            return
        after = _key(rows[-1], filters.sort)


def next_unread(db: Database, filters: Filters, actor: str, after: str | None = None) -> str | None:
    """Id of the unread study that follows `after` in the list, or the first one, also when the list ends there."""
    unread = replace(filters, status="unread")
    with db.read() as session:
        current = session.get(StudyRow, after) if after else None
        following = _rows(session, unread, actor, 1, _key(current, filters.sort)) if current else []
        rows = following or _rows(session, unread, actor, 2, None)
    return next((row.id for row in rows if row.id != after), None)


def study_info(row: StudyRow) -> StudyInfo:
    """What a list says of a study."""
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
    )


def _rows(session: Session, filters: Filters, actor: str, limit: int, after: list[Any] | None) -> list[StudyRow]:
    return list(session.scalars(_query(session, filters, actor, after).limit(limit)))


def _query(session: Session, filters: Filters, actor: str, after: list[Any] | None) -> Select[StudyRow]:
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
            StudyRow.claimed_by == (actor if filters.claimed == ME else filters.claimed.replace("\0", " "))
        )
    found = matching(session, filters.q)
    if found is not None:
        query = query.where(found)
    columns = _columns(filters.sort)
    if after is not None:
        query = query.where(tuple_(*columns) < tuple_(*after))
    return query.order_by(*(column.desc() for column in columns))


def _columns(sort: Sort) -> list[InstrumentedAttribute[Any]]:
    newest: list[InstrumentedAttribute[Any]] = [StudyRow.received_at, StudyRow.id]
    return [StudyRow.priority, *newest] if sort is Sort.PRIORITY else newest


def _key(row: StudyRow, sort: Sort) -> list[Any]:
    newest = [utc(row.received_at), row.id]
    return [row.priority, *newest] if sort is Sort.PRIORITY else newest


def _cursor(row: StudyRow, sort: Sort) -> str:
    *numbers, received_at, key = _key(row, sort)
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
