"""GET /jobs, POST /jobs/{id}/cancel: long work and how far it is."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter

from app.actor import ActorDep
from app.api.problems import problems
from app.context import ServicesDep
from app.jobs import Job
from app.schemas import Schema

router = APIRouter(prefix="/jobs", tags=["jobs"])


class ProgressInfo(Schema):
    """How far. total: 0 when it is not known. note: of what."""

    done: int
    total: int
    note: str


class JobInfo(Schema):
    """A job. attempt: how often it was begun; after a lost worker it goes on from its last checkpoint,
    if its kind keeps any: a calibration begins anew.

    failures: attempts that ended in an error; at max_attempts it has failed. cancel_requested: it is about to stop.
    """

    id: str
    kind: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    priority: int
    attempt: int
    failures: int
    max_attempts: int
    cancel_requested: bool
    progress: ProgressInfo | None
    result: dict[str, Any] | None
    error: str | None
    sweep_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@router.get("/{job_id}", responses=problems(404, 422))
def show(services: ServicesDep, actor: ActorDep, job_id: str) -> JobInfo:
    """One job; poll it while its state is `queued` or `running`."""
    return describe(services.job(job_id, actor))


@router.post("/{job_id}/cancel", responses=problems(403, 404, 422))
def cancel(services: ServicesDep, actor: ActorDep, job_id: str) -> JobInfo:
    """Stops a job: at once if it waits, within five seconds if it runs. One that has ended stays as it is."""
    return describe(services.jobs.cancel(services.job(job_id, actor).id))


def describe(job: Job) -> JobInfo:
    """The job in JSON."""
    progress = job.progress
    return JobInfo(
        id=job.id,
        kind=job.kind,
        state=job.state.value,
        priority=job.priority,
        attempt=job.attempt,
        failures=job.failures,
        max_attempts=job.max_attempts,
        cancel_requested=job.cancel_requested,
        progress=ProgressInfo(done=progress.done, total=progress.total, note=progress.note) if progress else None,
        result=dict(job.result) if job.result is not None else None,
        error=job.error,
        sweep_id=job.sweep_id,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
