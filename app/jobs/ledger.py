"""The ledger: the only truth about jobs.

A job is claimed by a conditional update that raises its attempt number; everything that an attempt writes is
conditional on that number. So whoever was thought dead and is not writes into nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import CursorResult, delete, func, select, update
from sqlalchemy.orm import Session

from app.db import Database
from app.jobs.context import StaleAttempt
from app.services.errors import ConflictError, NotFoundError
from app.services.ids import is_id
from app.tables import JobEventRow, JobRow, now, utc

RETRY_S = 2.0  # doubled with each failure
MAX_ERROR = 2000
_GIVEN_UP = "~"  # between a key and the job that had it before


class JobState(StrEnum):
    """Of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True)
class Progress:
    """How far. total: 0 when it is not known."""

    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class Job:
    """A row of the ledger, as a value. Times are UTC."""

    id: str
    kind: str
    spec: Mapping[str, Any]
    state: JobState
    priority: int
    attempt: int
    failures: int
    max_attempts: int
    cancel_requested: bool
    progress: Progress | None
    checkpoint: Mapping[str, Any] | None
    result: Mapping[str, Any] | None
    error: str | None
    unique_key: str | None
    sweep_id: str | None
    created_at: datetime
    started_at: datetime | None
    heartbeat_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True)
class JobEvent:
    """Something that happened. kind: queued, claimed, checkpoint, lost, retry, done, failed, cancelling, cancelled."""

    attempt: int
    kind: str
    at: datetime
    data: Mapping[str, Any] | None


class Ledger:
    """Every method is one short transaction."""

    def __init__(self, db: Database) -> None:
        self.db = db

    # What people and services do

    def enqueue(
        self,
        kind: str,
        spec: Mapping[str, Any],
        *,
        priority: int = 0,
        max_attempts: int = 3,
        unique_key: str | None = None,
        sweep_id: str | None = None,
        anew: bool = False,
    ) -> Job:
        """Adds a job. One with the same unique_key that waits, runs or is done is given back instead; one that failed
        or was cancelled is queued again. anew: one that has ended gives its key to the new job, whatever came of it.
        """

        def add(session: Session) -> Job:
            if unique_key is not None:
                query = select(JobRow).where(JobRow.unique_key == unique_key).with_for_update()
                known = session.scalars(query).first()
                if known is not None and anew and JobState(known.state).ended:
                    _give_up_key(session, known)
                elif known is not None:
                    if JobState(known.state) in (JobState.FAILED, JobState.CANCELLED):
                        _requeue(session, known)
                    return _job(known)
            row = JobRow(
                id=uuid.uuid4().hex,
                kind=kind,
                spec=dict(spec),
                priority=priority,
                max_attempts=max_attempts,
                unique_key=unique_key,
                sweep_id=sweep_id,
            )
            return _job(add_job(session, row))

        return self.db.write_again(add)

    def get(self, job_id: str) -> Job:
        """Raises NotFoundError `unknown_job`."""
        with self.db.read() as session:
            return _job(_existing(session, job_id))

    def keyed(self, unique_key: str) -> Job | None:
        """The job that has this key."""
        with self.db.read() as session:
            row = session.scalars(select(JobRow).where(JobRow.unique_key == unique_key)).first()
            return _job(row) if row is not None else None

    def several(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Those of them that there are, by id."""
        with self.db.read() as session:
            return {row.id: _job(row) for row in session.scalars(select(JobRow).where(JobRow.id.in_(job_ids)))}

    def events(self, job_id: str, limit: int = 200) -> list[JobEvent]:
        """What happened to it, the newest first."""
        query = select(JobEventRow).where(JobEventRow.job_id == job_id).order_by(JobEventRow.id.desc()).limit(limit)
        with self.db.read() as session:
            return [JobEvent(row.attempt, row.kind, utc(row.at), row.data) for row in session.scalars(query)]

    def newest(self, limit: int, without: Sequence[str] = ()) -> list[Job]:
        """Running first, then waiting in their order, then what has ended, the newest first. without: kinds."""
        with self.db.read() as session:
            found: list[Job] = []
            for states, order in (
                (["running"], [JobRow.started_at]),
                (["queued"], [JobRow.priority.desc(), JobRow.created_at, JobRow.id]),
                (["done", "failed", "cancelled"], [JobRow.finished_at.desc(), JobRow.id]),
            ):
                query = select(JobRow).where(JobRow.state.in_(states), JobRow.kind.not_in(without))
                query = query.order_by(*order).limit(limit - len(found))
                found += [_job(row) for row in session.scalars(query)]
            return found

    def any_active(self, kind: str) -> bool:
        """Whether any of a kind waits or runs."""
        query = select(JobRow.id).where(JobRow.kind == kind, JobRow.state.in_(["queued", "running"])).limit(1)
        with self.db.read() as session:
            return session.scalars(query).first() is not None

    def active(self, kind: str) -> list[Job]:
        """What waits or runs of a kind, the oldest first."""
        query = select(JobRow).where(JobRow.kind == kind, JobRow.state.in_(["queued", "running"]))
        with self.db.read() as session:
            return [_job(row) for row in session.scalars(query.order_by(JobRow.created_at, JobRow.id))]

    def counts(self, without: Sequence[str] = ()) -> dict[JobState, int]:
        """How many jobs are in each state. without: kinds."""
        query = select(JobRow.state, func.count()).where(JobRow.kind.not_in(without)).group_by(JobRow.state)
        with self.db.read() as session:
            found = {JobState(state): count for state, count in session.execute(query)}
        return {state: found.get(state, 0) for state in JobState}

    def first(self, job_id: str) -> Job:
        """Puts a job that waits before all others of its kind that do. Raises NotFoundError `unknown_job`."""
        with self.db.write() as session:
            row = _existing(session, job_id, lock=True)
            others = select(func.max(JobRow.priority)).where(
                JobRow.kind == row.kind, JobRow.state == "queued", JobRow.id != job_id
            )
            highest = session.scalar(others)
            if row.state == "queued" and highest is not None:
                row.priority = max(row.priority, highest + 1)
            return _job(row)

    def cancel(self, job_id: str) -> Job:
        """Stops a job: at once if it waits, within seconds if it runs; one that has ended stays as it is.

        Raises NotFoundError `unknown_job`.
        """
        with self.db.write() as session:
            row = _existing(session, job_id)
            waits = _change(session, job_id, "queued", state="cancelled", finished_at=now(), error=None)
            if waits:
                _note(session, job_id, row.attempt, "cancelled")
            elif _change(session, job_id, "running", cancel_requested=True) and not row.cancel_requested:
                _note(session, job_id, row.attempt, "cancelling")
            session.expire_all()
            return _job(_existing(session, job_id))

    def retry(self, job_id: str) -> Job:
        """Queues again what failed or was cancelled; it goes on from its last checkpoint, if it keeps any.

        Raises NotFoundError, and ConflictError `already_queued` where a later job has its key and has not ended.
        """
        with self.db.write() as session:
            row = _existing(session, job_id, lock=True)
            if JobState(row.state) in (JobState.FAILED, JobState.CANCELLED):
                _take_key_back(session, row)
                _requeue(session, row)
            return _job(row)

    # What the dispatcher does

    def claim(self, kinds: Sequence[str] = (), without: Sequence[str] = ()) -> Job | None:
        """Takes the next job that may run, or None. It is the claimer's alone, under a new attempt number.

        kinds: of these alone, of all when empty. without: of none of these.
        """
        with self.db.write() as session:
            ready = JobRow.run_after.is_(None) | (JobRow.run_after <= now())
            query = (
                select(JobRow.id, JobRow.attempt)
                .where(JobRow.state == "queued", ready, *([JobRow.kind.in_(kinds)] if kinds else []))
                .where(JobRow.kind.not_in(without))
                .order_by(JobRow.priority.desc(), JobRow.created_at, JobRow.id)
                .limit(1)
            )
            found = session.execute(query).first()
            if found is None:
                return None
            job_id, attempt = found
            taken = _change(
                session,
                job_id,
                "queued",
                attempt,
                state="running",
                attempt=attempt + 1,
                started_at=now(),
                heartbeat_at=now(),
                cancel_requested=False,
                error=None,
            )
            if not taken:
                return None
            _note(session, job_id, attempt + 1, "claimed")
            return _job(_existing(session, job_id))

    def put_back_lost(self, reason: str) -> list[str]:
        """Queues everything marked as running: for a dispatcher that begins, and so knows that nobody runs it."""
        with self.db.write() as session:
            rows = session.execute(select(JobRow.id, JobRow.attempt).where(JobRow.state == "running")).all()
            for job_id, attempt in rows:
                self._release(session, job_id, attempt, reason)
            return [job_id for job_id, _ in rows]

    def put_back(self, job_id: str, attempt: int, reason: str) -> None:
        """Queues one job whose process was ended for no fault of its own, or cancels it if that was asked for."""
        with self.db.write() as session:
            self._release(session, job_id, attempt, reason)

    def fail(self, job_id: str, attempt: int, reason: str, *, final: bool = False) -> bool:
        """An attempt ended in an error: the job waits a while for the next, or has failed. False: it was stale."""
        with self.db.write() as session:
            row = _existing(session, job_id)
            failures = row.failures + 1
            over = final or failures >= row.max_attempts
            again = now() + timedelta(seconds=RETRY_S * 2 ** min(failures - 1, 10))
            values: dict[str, Any] = {"failures": failures, "error": reason[:MAX_ERROR]}
            if over:
                values |= {"state": "failed", "finished_at": now()}
            else:
                values |= {"state": "queued", "run_after": again}
            if not _change(session, job_id, "running", attempt, **values):
                return False
            _note(session, job_id, attempt, "failed" if over else "retry", {"reason": reason[:MAX_ERROR]})
            return True

    def cancelled(self, job_id: str, attempt: int) -> bool:
        """The attempt has stopped because it was told to. False: it was stale."""
        with self.db.write() as session:
            if not _change(session, job_id, "running", attempt, state="cancelled", finished_at=now()):
                return False
            _note(session, job_id, attempt, "cancelled")
            return True

    # What an attempt does

    def beat(self, job_id: str, attempt: int, progress: Progress | None) -> bool:
        """Heartbeat and progress; gives whether to stop. Raises StaleAttempt."""
        with self.db.write() as session:
            values: dict[str, Any] = {"heartbeat_at": now()}
            if progress is not None:
                values["progress"] = {"done": progress.done, "total": progress.total, "note": progress.note}
            if not _change(session, job_id, "running", attempt, **values):
                raise StaleAttempt
            return bool(session.scalar(select(JobRow.cancel_requested).where(JobRow.id == job_id)))

    def checkpoint(self, job_id: str, attempt: int, state: Mapping[str, Any], progress: Progress | None) -> None:
        """The checkpoint and its event, together or not at all. Raises StaleAttempt."""
        with self.db.write() as session:
            values: dict[str, Any] = {"checkpoint": dict(state), "heartbeat_at": now()}
            if progress is not None:
                values["progress"] = {"done": progress.done, "total": progress.total, "note": progress.note}
            if not _change(session, job_id, "running", attempt, **values):
                raise StaleAttempt
            _note(session, job_id, attempt, "checkpoint", state)

    def finish(self, job_id: str, attempt: int, result: Mapping[str, Any]) -> None:
        """Raises StaleAttempt."""
        with self.db.write() as session:
            values = {"state": "done", "result": dict(result), "finished_at": now(), "error": None}
            if not _change(session, job_id, "running", attempt, **values):
                raise StaleAttempt
            _note(session, job_id, attempt, "done", result)

    @staticmethod
    def _release(session: Session, job_id: str, attempt: int, reason: str) -> None:
        row = _existing(session, job_id)
        if row.cancel_requested:
            if _change(session, job_id, "running", attempt, state="cancelled", finished_at=now()):
                _note(session, job_id, attempt, "cancelled")
        elif _change(session, job_id, "running", attempt, state="queued"):
            _note(session, job_id, attempt, "lost", {"reason": reason})


def add_job(session: Session, row: JobRow) -> JobRow:
    """Queues a new job in the caller's transaction: it is there if, and only if, what it is for is."""
    session.add(row)
    session.flush()
    _note(session, row.id, 0, "queued")
    return row


def remove_job(session: Session, job_id: str) -> None:
    """Forgets a job and what happened to it, in the caller's transaction, unless it runs.

    Raises NotFoundError `unknown_job`, ConflictError `still_running`.
    """
    row = _existing(session, job_id, lock=True)
    if row.state == "running":
        raise ConflictError("still_running", "It is still running: cancel it first.")
    session.execute(delete(JobEventRow).where(JobEventRow.job_id == job_id))
    session.delete(row)


def new_sweep() -> str:
    """An id for rows that belong together."""
    return uuid.uuid4().hex


def _change(session: Session, job_id: str, state: str, attempt: int | None = None, /, **values: Any) -> bool:
    """Changes the row if it is in that state, and under that attempt; gives whether it was."""
    conditions = [JobRow.id == job_id, JobRow.state == state]
    if attempt is not None:
        conditions.append(JobRow.attempt == attempt)
    change = update(JobRow).where(*conditions).values(values).execution_options(synchronize_session=False)
    result = session.execute(change)
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def _note(session: Session, job_id: str, attempt: int, kind: str, data: Mapping[str, Any] | None = None) -> None:
    session.add(JobEventRow(job_id=job_id, attempt=attempt, kind=kind, data=None if data is None else dict(data)))


def _requeue(session: Session, row: JobRow) -> None:
    row.state, row.failures, row.error = "queued", 0, None
    row.cancel_requested, row.run_after, row.finished_at = False, None, None
    _note(session, row.id, row.attempt, "queued")


def _give_up_key(session: Session, row: JobRow) -> None:
    row.unique_key = f"{row.unique_key}{_GIVEN_UP}{row.id}"
    session.flush()


def _take_key_back(session: Session, row: JobRow) -> None:
    key, given_up, _ = (row.unique_key or "").partition(_GIVEN_UP)
    if not given_up:
        return
    holder = session.scalars(select(JobRow).where(JobRow.unique_key == key).with_for_update()).first()
    if holder is not None and not JobState(holder.state).ended:
        raise ConflictError("already_queued", "A later job does this already: cancel that first.")
    if holder is not None:
        _give_up_key(session, holder)
    row.unique_key = key


def unknown_job() -> NotFoundError:
    """What is said of a job that is not there, or not for who asks."""
    return NotFoundError("unknown_job", "There is no such job here.")


def _existing(session: Session, job_id: str, lock: bool = False) -> JobRow:
    row = None
    if is_id(job_id):
        row = session.get(JobRow, job_id, populate_existing=True, with_for_update=lock)
    if row is None:
        raise unknown_job()
    return row


def _job(row: JobRow) -> Job:
    progress = Progress(**row.progress) if row.progress else None
    return Job(
        row.id,
        row.kind,
        row.spec,
        JobState(row.state),
        row.priority,
        row.attempt,
        row.failures,
        row.max_attempts,
        row.cancel_requested,
        progress,
        row.checkpoint,
        row.result,
        row.error,
        row.unique_key,
        row.sweep_id,
        utc(row.created_at),
        *(None if at is None else utc(at) for at in (row.started_at, row.heartbeat_at, row.finished_at)),
    )
