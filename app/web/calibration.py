"""`/calibration`: what the detector's flags promise, and whether they still keep it."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from app.actor import ActorDep
from app.api.calibrations import AlphaQuery
from app.context import Services, ServicesDep
from app.errors import status_of
from app.schemas import CalibrationInfo, CalibrationRequest
from app.services.errors import InvalidError
from app.services.users import Actor
from app.services.wording import finding_text
from app.web.charts import Chart, histogram, reliability, reliability_limit, roc
from app.web.render import page, wants_fragment
from model.detector import realised_rate_interval
from model.errors import OverreadError

router = APIRouter(include_in_schema=False)
ALPHAS = (0.001, 0.005, 0.01, 0.02, 0.05)
FALL = "fall of the logit / root of the logit's standard deviation"
_WORTH = (250, 2000)  # radiographs, whose promise the form tells


@router.get("/calibration")
def show(
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
    checkpoint: Annotated[str, Query(max_length=64)] = "",
    alpha: AlphaQuery = None,
    dataset: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The page of one checkpoint, the candidate by default; for htmx what changes with checkpoint and threshold.

    dataset: that its form suggests, opened.
    """
    every = [listed.id for listed in services.engine.checkpoints()]
    candidate = services.pair[1]
    chosen = checkpoint or (candidate if candidate in every or not every else every[0])
    if not every:
        return _page(request, {"info": None})
    return _page(request, _context(services, actor, chosen, alpha, dataset))


@router.get("/calibration/{checkpoint_id}/job")
def watch(request: Request, services: ServicesDep, checkpoint_id: str) -> Response:
    """For htmx how far the calibration is, until it ends and the page is asked for anew."""
    if not wants_fragment(request):
        return _to(checkpoint_id)
    job = services.calibration_job(checkpoint_id)
    answer = page(request, "partials/_calibrating.html", {"checkpoint_id": checkpoint_id, "job": job})
    if job is None or job.state.ended:
        answer.headers["HX-Refresh"] = "true"
    return answer


@router.post("/calibration/{checkpoint_id}")
def start(
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
    checkpoint_id: str,
    dataset: Annotated[str, Form(max_length=64)] = "",
    images: Annotated[str, Form(max_length=16)] = "",
) -> Response:
    """Queues a calibration, or says why there is none."""
    try:
        services.calibrate(checkpoint_id, _wanted(dataset, images), actor)
    except OverreadError as error:
        context = _context(services, actor, checkpoint_id, None, dataset)
        context |= {"problem": str(error), "images": images}
        return page(request, "pages/calibration.html", context, status=status_of(error))
    return _to(checkpoint_id)


@router.post("/calibration/{checkpoint_id}/cancel")
def cancel(services: ServicesDep, checkpoint_id: str) -> Response:
    """Stops it; the earlier calibration stays."""
    job = services.calibration_job(checkpoint_id)
    if job is not None:
        services.jobs.cancel(job.id)
    return _to(checkpoint_id)


def _wanted(dataset: str, images: str) -> CalibrationRequest:
    try:
        return CalibrationRequest(dataset=dataset, images=int(images))
    except ValueError as error:
        raise InvalidError("bad_images", "How many radiographs? A whole number from 1 to 5000.") from error


def _to(checkpoint_id: str) -> Response:
    return RedirectResponse(f"/calibration?{urlencode({'checkpoint': checkpoint_id})}", status_code=303)


def _page(request: Request, context: dict[str, Any]) -> Response:
    template = "partials/_calibration.html" if wants_fragment(request) else "pages/calibration.html"
    return page(request, template, context)


def _context(services: Services, actor: Actor, chosen: str, alpha: float | None, dataset: str | None) -> dict[str, Any]:
    job = services.calibration_job(chosen)  # first: it takes up what was made
    info = services.calibrations.one(chosen, services.pair, actor, alpha)
    return {
        "info": info,
        "known": list(dict.fromkeys(listed.id for listed in services.engine.checkpoints())),
        "alphas": _choices(info),
        "charts": _charts(info),
        "small": _small(info),
        "checkpoint_id": chosen,
        "job": job,
        "datasets": services.experiments.datasets.all(),
        "dataset": dataset,
        "images": str(CalibrationRequest().images),
        "worth": [(n, *realised_rate_interval(n, ALPHAS[2])) for n in _WORTH],
        "problem": "",
    }


def _choices(info: CalibrationInfo) -> list[float]:
    chosen = [info.preview.alpha] if info.preview else []
    own = [info.current["alpha"]] if info.current else []
    return sorted({*ALPHAS, *chosen, *own})


def _small(info: CalibrationInfo) -> list[Chart]:
    limit = reliability_limit(info.reliability.values())
    return [reliability(finding_text(name), bins, limit) for name, bins in info.reliability.items()]


def _charts(info: CalibrationInfo) -> dict[str, Chart | None]:
    if info.preview is None:
        return {}
    threshold = info.preview.score_threshold
    beside = {"lesions": info.hard, "stamped": info.stamped_scores}
    scores = {"clean": info.tested, **{name: several for name, several in beside.items() if several}}
    return {
        "scores": histogram("Scores of full tests", "score, logits", scores, threshold, "flagged →"),
        "falls": histogram(
            "Falls in the quick screen", FALL, {"clean": info.screened}, info.screen_threshold, "occluded →"
        ),
        "occlusions": histogram(
            "Largest falls by occlusion", FALL, {"clean": info.occluded}, info.occlusion_threshold, "tested further →"
        ),
        "roc": roc(info.stamped_p, info.preview.alpha),
    }
