"""`/jobs`: long work, how far it is, and how to stop it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from app.actor import Actor, ActorDep, subjects
from app.context import Services, ServicesDep
from app.jobs import Job, JobState
from app.jobs.kinds import calibrate, reanalyse, verify
from app.services.concerns import Concerns, concerns
from app.web.render import page, wants_fragment

router = APIRouter(include_in_schema=False, prefix="/jobs")
ROWS = 50
_TITLES = {
    "calibrate": "Calibrate a checkpoint",
    "examine": "Test what the screen found",
    "experiment": "Run an experiment",
    "reanalyse": "Read the worklist again",
    "scan": "Screen a folder",
    "verify": "Verify the stored files",
}
_ANEW = (calibrate.KIND,)  # kinds that keep nothing of an attempt that was interrupted


class Startable(StrEnum):
    """What the page can start."""

    REANALYSE = "reanalyse"
    VERIFY = "verify"


@router.get("")
def index(request: Request, services: ServicesDep, actor: ActorDep) -> Response:
    """The page, or for htmx the list alone, which asks again while something is to come."""
    return _page(request, services, actor, "")


@router.post("")
def start(request: Request, services: ServicesDep, actor: ActorDep, kind: Annotated[Startable, Form()]) -> Response:
    """Starts one of the kinds that the page offers."""
    if kind is Startable.VERIFY:
        jobs = verify.request(services.jobs)
    else:
        jobs = reanalyse.request(services.jobs, services.engine, services.pair)
    subjects(request, *(job.id for job in jobs))
    if not jobs:
        return _page(request, services, actor, "Everything on the worklist has been read by the present pair already.")
    return RedirectResponse("/jobs", status_code=303)


@router.post("/{job_id}/cancel")
def cancel(services: ServicesDep, actor: ActorDep, job_id: str) -> Response:
    """Stops a job."""
    services.jobs.cancel(services.job(job_id, actor).id)
    return RedirectResponse("/jobs", status_code=303)


@router.post("/{job_id}/retry")
def retry(services: ServicesDep, actor: ActorDep, job_id: str) -> Response:
    """Tries again what failed or was cancelled: from where it was, but for a calibration."""
    services.jobs.retry(services.job(job_id, actor).id)
    return RedirectResponse("/jobs", status_code=303)


def _page(request: Request, services: Services, actor: Actor, said: str) -> Response:
    without = services.kept_from(actor)
    jobs, counts = services.jobs.newest(ROWS, without), services.jobs.counts(without)
    about = concerns(services.db, services.read_first, jobs, actor)
    context = {
        "rows": [
            {
                "job": job,
                "title": _TITLES.get(job.kind, job.kind),
                "about": about.get(job.id, Concerns()),
                "anew": job.kind in _ANEW,
                "outcome": _outcome(job),
            }
            for job in jobs
        ],
        "counts": counts,
        "active": counts[JobState.QUEUED] + counts[JobState.RUNNING] > 0,
        "hidden": max(0, sum(counts.values()) - len(jobs)),
        "said": said,
    }
    template = "partials/_jobs.html" if wants_fragment(request) else "pages/jobs.html"
    return page(request, template, context)


def _outcome(job: Job) -> str:
    """What came of it, in words."""
    if job.error:
        return job.error
    result = job.result
    if result is None:
        return ""
    if job.kind == "calibrate":
        rate = f"{100 * result['alpha']:g} %"
        worth = f"it flags at {rate}" if result["decides"] else f"too few for a flag at {rate}"
        return f"{job.spec['checkpoint']}: {result['n']} radiographs, {worth}."
    if job.kind == "experiment":
        return "Trained and judged: its page has the figures."
    if job.kind == "verify":
        bad = len(result["damaged"]) + len(result["missing"])
        verdict = f"{bad} damaged or missing" if bad else "all as they should be"
        return f"{result['checked']} files, {verdict}."
    if job.kind == "reanalyse":
        refused = len(result["refused"])
        return f"{result['read']} read" + (f", {refused} could not be read." if refused else ".")
    if job.kind == "examine":
        left = result["outdated"] + result["refused"]
        return f"{result['tested']} tested" + (f", {left} could not be." if left else ".")
    if job.kind == "scan":
        return f"{result['files']} files, {result['refused']} of them could not be read."
    return ""
