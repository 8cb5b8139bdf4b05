"""The detector's full tests, behind the pages: for the worklist's analyses that the quick screen asks one for.

The job loads the checkpoints itself, in its own process at low priority: somebody may be looking at the page, so it
takes what the others leave. What a test finds is written once: after a kill the tests that were kept are not made
again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from app.db import Database
from app.jobs.analysing import analysing
from app.jobs.context import Context, JobCancelled, StaleAttempt
from app.jobs.ledger import Job, JobState, Ledger
from app.services.analyses import AnalysisService
from app.services.errors import BusyError, passes
from app.services.examinations import strongest_first, waiting
from app.tables import AnalysisRow
from model.errors import OverreadError

log = logging.getLogger("overread.jobs")
KIND = "examine"
ROWS = 8  # of a job: what comes meanwhile waits for no more than these
PRIORITY = 10  # somebody may be looking at the page
WAIT_S = 60.0


def request(ledger: Ledger, analyses: Sequence[str]) -> Job:
    """Queues the full tests of these analyses; again, where the job that had them left any untested."""
    key = _key(*analyses)
    job = ledger.enqueue(KIND, {"analyses": list(analyses)}, unique_key=key, priority=PRIORITY)
    while job.state is JobState.DONE and _any_owed(ledger.db, analyses):
        key = _key(key, job.id)
        job = ledger.enqueue(KIND, {"analyses": list(analyses)}, unique_key=key, priority=PRIORITY)
    with ledger.db.write() as session:
        rows = update(AnalysisRow).where(AnalysisRow.id.in_(analyses))
        session.execute(rows.values(test_job=job.id).execution_options(synchronize_session=False))
    return job


def _key(*parts: str) -> str:
    return f"{KIND}:" + hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _any_owed(db: Database, analyses: Sequence[str]) -> bool:
    query = select(AnalysisRow.id).where(AnalysisRow.id.in_(analyses), AnalysisRow.owes_test).limit(1)
    with db.read() as session:
        return session.scalars(query).first() is not None


def request_waiting(ledger: Ledger, fingerprints: Collection[str]) -> list[Job]:
    """Queues what nobody has asked for yet of what these fingerprints have read: after a crash, a new calibration, or
    when an image that was only predicted comes onto the worklist."""
    jobs = []
    while fingerprints and (found := waiting(ledger.db, fingerprints, ROWS)):
        jobs.append(request(ledger, found))
    return jobs


def run(spec: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
    """spec: analyses (ids), tested from the one whose call fell furthest in the quick screen.

    Result, in numbers: tested; outdated (of a checkpoint, calibration or code that is no longer there); refused (could
    not be). Never whose: readers may have to read the study unaided first.

    Raises BusyError `not_all_tested` for what the machine had trouble with: the next attempt tests it.
    """
    keys: list[str] = list(spec["analyses"])
    with (
        closing(Database(ctx.settings.resolved_database_url)) as db,
        analysing(ctx.settings, db, _checkpoints(db, keys)) as service,
    ):
        return _Tests(service, ctx).run(strongest_first(db, keys))


class _Tests:
    """One attempt."""

    def __init__(self, service: AnalysisService, ctx: Context) -> None:
        self.service, self.ctx = service, ctx
        self.outdated: list[str] = []
        self.refused: dict[str, str] = {}
        self.later: dict[str, str] = {}

    def run(self, keys: Sequence[str]) -> dict[str, Any]:
        total = len(keys)
        for position, key in enumerate(keys):
            self._stop_if_cancelled()
            self.ctx.report(position, total, "radiographs")
            try:
                self._test(key)
            except (JobCancelled, StaleAttempt, OperationalError):
                raise
            except Exception as error:  # one must not keep the others from their tests
                if not isinstance(error, OverreadError):
                    log.exception("An analysis could not be tested")
                (self.later if passes(error) else self.refused)[key] = str(error)
            self.ctx.checkpoint({"next": position + 1})
        if self.later:
            why = next(iter(self.later.values()))
            raise BusyError("not_all_tested", f"{len(self.later)} of {total} could not be tested for now: {why}")
        self._forget(self.outdated)
        self.ctx.report(total, total, "radiographs")
        tested = total - len(self.outdated) - len(self.refused)
        return {"tested": tested, "outdated": len(self.outdated), "refused": len(self.refused)}

    def _forget(self, keys: Sequence[str]) -> None:
        """Where what read them comes back, they are tested as if nobody had asked."""
        with self.service.db.write() as session:
            rows = update(AnalysisRow).where(AnalysisRow.id.in_(keys))
            session.execute(rows.values(test_job=None).execution_options(synchronize_session=False))

    def _test(self, key: str) -> None:
        """Nothing, where it has been tested already."""
        service = self.service
        if not service.examinations.owed([key]):
            return
        analysis = service.analysis(key)
        if service.present_id(analysis.image_sha256, analysis.checkpoint.id) != key:
            self.outdated.append(key)
            return
        instance = service.instance(analysis.instance_id)
        grey = service.decode(service.blobs.get(instance.sha256), instance.name).grey()
        service.examinations.examine(analysis, grey, self._stop_if_cancelled, WAIT_S)

    def _stop_if_cancelled(self) -> None:
        if self.ctx.cancelled():
            raise JobCancelled


def _checkpoints(db: Database, keys: Sequence[str]) -> list[str]:
    query = select(AnalysisRow.checkpoint_id).where(AnalysisRow.id.in_(keys)).distinct()
    with db.read() as session:
        return sorted(session.scalars(query))
