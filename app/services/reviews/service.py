"""Recording what readers say, and finding it again.

A writer takes the chain's lock before it looks, so that of two equal requests the second finds the first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import cast
from uuid import uuid4

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import Database
from app.schemas import Analysis, Review, ReviewRequest, StudyInfo, UnaidedFinding, UnaidedRead
from app.services.audit import AuditService
from app.services.chain import append, lock
from app.services.errors import ConflictError, NotFoundError
from app.services.ids import is_id
from app.services.instances import find_row, mark_read
from app.services.reviews.panel import Panel, said, subjects
from app.services.reviews.record import Entry, review_document, says_the_same, to_entry, unaided_document
from app.services.users import Actor
from app.tables import AnalysisRow, InstanceRow, ReadFirstRow, ReviewRow

_VEILED_AT_ONCE = 200
_VEIL = {"reference": None, "candidate": None, "disagreement": None, "flag": None}
Shown = Callable[[str], Sequence[Analysis | None]]


class ReviewService:
    """A study may be named by its own id or by that of one of its instances: what is judged is an instance.

    shown: what the live pair says of an image, by its SHA-256, as the page shows it. read_first: whether every study is
    locked.
    """

    def __init__(self, db: Database, audit: AuditService, shown: Shown, read_first: bool = False) -> None:
        self.db = db
        self.audit = audit
        self.shown = shown
        self.read_first = read_first

    def record(
        self, actor: Actor, analysis_id: str, request: ReviewRequest, *, on_page: bool = False
    ) -> tuple[Review, bool]:
        """Records a verdict; gives it back, and whether it is new.

        Not new is what comes with a token that this reader used for the same, or repeats the reader's last word on the
        subject. on_page: heed the read-first lock, as pages do.
        Raises NotFoundError `unknown_analysis`, DataError, ConflictError `token_reused` or `read_first`.
        """
        with self.db.write() as session:
            lock(session, ReviewRow)
            analysis = _analysis(session, analysis_id)
            if on_page and self._owes_unaided(session, analysis.instance_id, actor):
                raise ConflictError("read_first", "Record your own reading of this study first.")
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
            mark_read(session, analysis.instance_id, actor.name)
            detail = {"review": row.id, "verdict": row.verdict, "finding": document["finding"]}
            self.audit.record(session, actor, "analysis.review", analysis_id, detail)
            return cast(Review, to_entry(row)), True

    def history(self, analysis_id: str) -> list[Review]:
        """An analysis' reviews, the oldest first. Raises NotFoundError `unknown_analysis`."""
        with self.db.read() as session:
            _analysis(session, analysis_id)
            query = select(ReviewRow).where(ReviewRow.analysis_id == analysis_id).order_by(ReviewRow.sequence)
            return [one for one in _entries(session.scalars(query).all()) if isinstance(one, Review)]

    def of_study(self, study: str) -> list[Entry]:
        """Everything said of a study, unaided reads too, the oldest first. Raises NotFoundError `unknown_study`."""
        with self.db.read() as session:
            return _of_study(session, find_row(session, study).id)

    def latest(self, studies: Sequence[str]) -> dict[str, Review]:
        """The last verdict on each of these studies, where there is one: for lists."""
        newest = (
            select(func.max(ReviewRow.sequence))
            .where(ReviewRow.instance_id.in_(studies), ReviewRow.kind == "review")
            .group_by(ReviewRow.instance_id)
        )
        with self.db.read() as session:
            rows = session.scalars(select(ReviewRow).where(ReviewRow.sequence.in_(newest)))
            return {row.instance_id: cast(Review, to_entry(row)) for row in rows}

    def count(self) -> int:
        """Links of the chain."""
        with self.db.read() as session:
            return session.scalar(select(func.max(ReviewRow.sequence))) or 0

    def is_locked(self, study: str, actor: Actor) -> bool:
        """Whether this reader must record an unaided read before a page shows predictions of the study."""
        with self.db.read() as session:
            return self._owes_unaided(session, find_row(session, study).id, actor)

    def veiled(self, studies: Iterable[StudyInfo], actor: Actor) -> Iterator[StudyInfo]:
        """The same lines of the worklist, without what checkpoints say of studies that this reader must read first."""
        lines = iter(studies)
        while some := list(islice(lines, _VEILED_AT_ONCE)):
            owed = self._owed([one.id for one in some], actor)
            for one in some:
                yield one.model_copy(update=_VEIL) if one.id in owed else one

    def _owed(self, studies: Sequence[str], actor: Actor) -> set[str]:
        said = select(ReviewRow.id).where(ReviewRow.instance_id == InstanceRow.id, ReviewRow.reader_id == actor.id)
        query = select(InstanceRow.study_id).where(InstanceRow.study_id.in_(studies), ~said.exists())
        if not self.read_first:
            query = query.join(ReadFirstRow, ReadFirstRow.instance_id == InstanceRow.id)
        with self.db.read() as session:
            return {str(one) for one in session.scalars(query)}

    def set_read_first(self, study: str, wanted: bool, actor: Actor) -> None:
        """Asks readers of this study for an unaided read first, or no longer. Raises NotFoundError `unknown_study`."""
        with self.db.write() as session:
            lock(session, ReviewRow)
            study = find_row(session, study).id
            row = session.get(ReadFirstRow, study)
            if wanted == (row is not None):
                return
            if row is None:
                session.add(ReadFirstRow(instance_id=study))
            else:
                session.delete(row)
            self.audit.record(session, actor, "study.read_first", study, {"on": wanted})

    def record_unaided(
        self, actor: Actor, study: str, findings: Sequence[UnaidedFinding], comment: str = ""
    ) -> UnaidedRead:
        """Records the reader's own reading, once; the first is the one that counts.

        Raises NotFoundError `unknown_study`, DataError, ConflictError `not_asked` when the study does not wait for it.
        """
        with self.db.write() as session:
            lock(session, ReviewRow)
            instance = find_row(session, study)
            study = instance.id
            document = unaided_document(actor, study, instance.sha256, findings, comment)
            if not self._owes_unaided(session, study, actor):
                last = _last_word(session, actor, study)
                if last and json.loads(last.document)["findings"] == document["findings"]:  # the form came twice
                    return cast(UnaidedRead, to_entry(last))
                raise ConflictError("not_asked", "This study does not wait for an unaided reading of yours.")
            row = append(session, ReviewRow, document)
            self.audit.record(session, actor, "study.unaided_read", study, {"review": row.id})
            return cast(UnaidedRead, to_entry(row))

    def panel(self, study: str, actor: Actor) -> Panel:
        """What `_decision.html` and `_history.html` show to this reader. Raises NotFoundError `unknown_study`."""
        with self.db.read() as session:
            instance = find_row(session, study)
            study = instance.id
            locked = self._owes_unaided(session, study, actor)
            by_study = session.get(ReadFirstRow, study) is not None
            entries = [] if locked else _of_study(session, study)
            own = _last_word(session, actor, study)
        pair = [None, None] if locked else self.shown(instance.sha256)
        return Panel(
            study=study,
            locked=locked,
            read_first=self.read_first or by_study,
            by_server=self.read_first,
            subjects=subjects(pair),
            history=tuple(reversed(entries)),
            said=said(cast(UnaidedRead, to_entry(own)), pair) if own else (),
            token=uuid4().hex,
        )

    def _owes_unaided(self, session: Session, study: str, actor: Actor) -> bool:
        """Whoever has said anything of the study has either read unaided or seen the predictions."""
        if not self.read_first and session.get(ReadFirstRow, study) is None:
            return False
        query = select(ReviewRow.sequence).where(ReviewRow.instance_id == study, ReviewRow.reader_id == actor.id)
        return session.scalars(query.limit(1)).first() is None


def _analysis(session: Session, analysis_id: str) -> Analysis:
    row = session.get(AnalysisRow, analysis_id) if is_id(analysis_id) else None
    if row is None:
        raise NotFoundError("unknown_analysis", "There is no such analysis here.")
    return Analysis.model_validate_json(row.document)


def _with_token(session: Session, actor: Actor, token: str | None) -> ReviewRow | None:
    if token is None:
        return None
    return session.scalars(select(ReviewRow).where(ReviewRow.reader_id == actor.id, ReviewRow.token == token)).first()


def _last_word(session: Session, actor: Actor, subject: str) -> ReviewRow | None:
    query = select(ReviewRow).where(ReviewRow.subject == subject, ReviewRow.reader_id == actor.id)
    return session.scalars(query.order_by(ReviewRow.sequence.desc()).limit(1)).first()


def _of_study(session: Session, study: str) -> list[Entry]:
    query = select(ReviewRow).where(ReviewRow.instance_id == study).order_by(ReviewRow.sequence)
    return _entries(session.scalars(query).all())


def _entries(rows: Sequence[ReviewRow]) -> list[Entry]:
    """A row is superseded when the same reader said something later of the same."""
    last = {(row.reader_id, row.subject): row.id for row in rows}
    return [to_entry(row, superseded=last[row.reader_id, row.subject] != row.id) for row in rows]
