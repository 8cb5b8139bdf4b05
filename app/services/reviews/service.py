"""Recording what readers say, and finding it again.

A writer takes the chain's lock before it looks, so that of two equal requests the second finds the first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import cast
from uuid import uuid4

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from app.db import Database
from app.schemas import Analysis, Review, ReviewRequest, UnaidedFinding, UnaidedRead
from app.services.audit import AuditService
from app.services.chain import append, lock
from app.services.errors import ConflictError, NotFoundError
from app.services.ids import is_id
from app.services.instances import Instance, find_row, mark_read
from app.services.read_first import ReadFirst, images_of, note_reader
from app.services.reviews.panel import Panel, said, subjects
from app.services.reviews.record import Entry, review_document, says_the_same, to_entry, unaided_document
from app.services.stored import load
from app.services.users import Actor
from app.tables import InstanceRow, ReviewRow

Shown = Callable[[str], Sequence[Analysis | None]]


class ReviewService:
    """A study may be named by its own id or by that of one of its instances: what is judged is an instance.

    shown: what the live pair says of an image, by its SHA-256, as the page shows it. read_first: whose unaided reading
    is asked for first.
    """

    def __init__(self, db: Database, audit: AuditService, shown: Shown, read_first: ReadFirst) -> None:
        self.db = db
        self.audit = audit
        self.shown = shown
        self.read_first = read_first

    def record(self, actor: Actor, analysis_id: str, request: ReviewRequest) -> tuple[Review, bool]:
        """Records a verdict; gives it back, and whether it is new.

        Not new is what comes with a token that this reader used for the same, or repeats the reader's last word on the
        subject.
        Raises NotFoundError `unknown_analysis`, DataError, ConflictError `token_reused` or `read_first`.
        """
        with self.db.write() as session:
            lock(session, ReviewRow)
            analysis = _analysis(session, analysis_id)
            image = find_row(session, analysis.instance_id)
            self.read_first.refuse(session, image, actor)
            document = review_document(actor, analysis, request)
            earlier = _with_token(session, actor, request.token)
            if earlier and (
                earlier.subject != document["subject"] or not says_the_same(json.loads(earlier.document), document)
            ):
                raise ConflictError("token_reused", "This token belongs to another review of yours; use a new one.")
            last = _last_word(session, actor, document["subject"])
            if earlier is None and last and says_the_same(json.loads(last.document), document):
                earlier = last
            if earlier:
                return cast(Review, to_entry(earlier, superseded=last is not None and last.id != earlier.id)), False
            row = append(session, ReviewRow, {**document, "supersedes": last.id if last else None})
            note_reader(session, image, actor.id)
            mark_read(session, analysis.instance_id, actor.name)
            # That it was said, not what: others may have to read the study themselves first.
            self.audit.record(session, actor, "analysis.review", analysis_id, {"review": row.id})
            return cast(Review, to_entry(row)), True

    def history(self, analysis_id: str) -> list[Review]:
        """An analysis' reviews, the oldest first. Raises NotFoundError `unknown_analysis`."""
        with self.db.read() as session:
            _analysis(session, analysis_id)
            query = select(ReviewRow).where(ReviewRow.analysis_id == analysis_id).order_by(ReviewRow.sequence)
            return [one for one in _entries(session.scalars(query).all()) if isinstance(one, Review)]

    def of_study(self, study: str) -> list[Entry]:
        """Everything said of an image, and the unaided reads of its study, the oldest first.

        Raises NotFoundError `unknown_study`.
        """
        with self.db.read() as session:
            return _entries(rows_of(session, find_row(session, study)))

    def count(self) -> int:
        """Links of the chain."""
        with self.db.read() as session:
            return session.scalar(select(func.max(ReviewRow.sequence))) or 0

    def is_locked(self, study: str, actor: Actor) -> bool:
        """Whether this reader must record an unaided read before a page shows predictions of the study."""
        with self.db.read() as session:
            return self.read_first.owes(session, find_row(session, study), actor)

    def set_read_first(self, study: str, wanted: bool, actor: Actor) -> None:
        """Asks readers of this study for an unaided read first, or no longer.

        Raises NotFoundError `unknown_study`, ConflictError `read_first` where who asks no longer owes one.
        """
        with self.db.write() as session:
            lock(session, ReviewRow)
            image = find_row(session, study)
            if self.read_first.set(session, image, wanted, actor):
                self.audit.record(session, actor, "study.read_first", image.id, {"on": wanted})

    def record_unaided(
        self, actor: Actor, study: str, findings: Sequence[UnaidedFinding], comment: str = ""
    ) -> UnaidedRead:
        """Records the reader's own reading of the study, once; the first is the one that counts.

        study: its id, or that of the image on whose page it is recorded.

        Raises NotFoundError `unknown_study`, DataError, ConflictError `not_asked` when the study does not wait for it.
        """
        with self.db.write() as session:
            lock(session, ReviewRow)
            image = find_row(session, study)
            document = unaided_document(actor, image.id, image.sha256, findings, comment)
            if not self.read_first.owes(session, image, actor):
                last = _unaided(session, actor, image)
                if last and json.loads(last.document)["findings"] == document["findings"]:  # the form came twice
                    return cast(UnaidedRead, to_entry(last))
                raise ConflictError("not_asked", "This study does not wait for an unaided reading of yours.")
            row = append(session, ReviewRow, document)
            note_reader(session, image, actor.id)
            self.audit.record(session, actor, "study.unaided_read", image.id, {"review": row.id})
            return cast(UnaidedRead, to_entry(row))

    def panel(self, study: str, actor: Actor) -> Panel:
        """What `_decision.html` and `_history.html` show to this reader. Raises NotFoundError `unknown_study`."""
        with self.db.read() as session:
            image = find_row(session, study)
            locked = self.read_first.owes(session, image, actor)
            asked = self.read_first.asked(session, image)
            entries = [] if locked else _entries(rows_of(session, image))
            own = _unaided(session, actor, image)
        pair = [None, None] if locked else self.shown(image.sha256)
        return Panel(
            study=image.id,
            locked=locked,
            read_first=asked,
            by_server=self.read_first.always,
            subjects=subjects(pair),
            history=tuple(reversed(entries)),
            said=said(cast(UnaidedRead, to_entry(own)), pair) if own else (),
            token=uuid4().hex,
        )


def rows_of(session: Session, image: InstanceRow | Instance) -> Sequence[ReviewRow]:
    """The links of what was said of an image, and of the unaided reads of its study, the oldest first."""
    unaided = and_(ReviewRow.kind == "unaided", ReviewRow.instance_id.in_(images_of(image)))
    query = select(ReviewRow).where(or_(ReviewRow.instance_id == image.id, unaided))
    return session.scalars(query.order_by(ReviewRow.sequence)).all()


def _analysis(session: Session, analysis_id: str) -> Analysis:
    found = load(session, [analysis_id]) if is_id(analysis_id) else {}
    if analysis_id not in found:
        raise NotFoundError("unknown_analysis", "There is no such analysis here.")
    return found[analysis_id]


def _with_token(session: Session, actor: Actor, token: str | None) -> ReviewRow | None:
    if token is None:
        return None
    return session.scalars(select(ReviewRow).where(ReviewRow.reader_id == actor.id, ReviewRow.token == token)).first()


def _last_word(session: Session, actor: Actor, subject: str) -> ReviewRow | None:
    query = select(ReviewRow).where(ReviewRow.subject == subject, ReviewRow.reader_id == actor.id)
    return session.scalars(query.order_by(ReviewRow.sequence.desc()).limit(1)).first()


def _unaided(session: Session, actor: Actor, image: InstanceRow) -> ReviewRow | None:
    """What the reader saw of the study before anything was shown, on whichever image's page it was recorded."""
    query = select(ReviewRow).where(
        ReviewRow.instance_id.in_(images_of(image)), ReviewRow.reader_id == actor.id, ReviewRow.kind == "unaided"
    )
    return session.scalars(query.order_by(ReviewRow.sequence.desc()).limit(1)).first()


def _entries(rows: Sequence[ReviewRow]) -> list[Entry]:
    """A row is superseded when the same reader said something later of the same."""
    last = {(row.reader_id, row.subject): row.id for row in rows}
    return [to_entry(row, superseded=last[row.reader_id, row.subject] != row.id) for row in rows]
