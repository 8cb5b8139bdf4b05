"""`/calibration`: what the detector's flags promise, and whether they still keep it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.actor import ActorDep
from app.api.calibrations import AlphaQuery
from app.context import ServicesDep
from app.schemas import CalibrationInfo
from app.services.wording import finding_text
from app.web.charts import Chart, histogram, reliability, reliability_limit, roc
from app.web.render import page, wants_fragment

router = APIRouter(include_in_schema=False)
ALPHAS = (0.001, 0.005, 0.01, 0.02, 0.05)


@router.get("/calibration")
def show(
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
    checkpoint: Annotated[str, Query(max_length=64)] = "",
    alpha: AlphaQuery = None,
) -> Response:
    """The page of one checkpoint, the candidate by default; for htmx what changes with checkpoint and threshold."""
    every = [listed.id for listed in services.engine.checkpoints()]
    candidate = services.pair[1]
    chosen = checkpoint or (candidate if candidate in every or not every else every[0])
    info = services.calibrations.one(chosen, services.pair, actor, alpha) if every else None
    context = {
        "info": info,
        "known": list(dict.fromkeys(every)),
        "alphas": _choices(info),
        "charts": _charts(info) if info else {},
        "small": _small(info) if info else [],
    }
    template = "partials/_calibration.html" if wants_fragment(request) else "pages/calibration.html"
    return page(request, template, context)


def _choices(info: CalibrationInfo | None) -> list[float]:
    chosen = [info.preview.alpha] if info and info.preview else []
    own = [info.current["alpha"]] if info and info.current else []
    return sorted({*ALPHAS, *chosen, *own})


def _small(info: CalibrationInfo) -> list[Chart]:
    limit = reliability_limit(info.reliability.values())
    return [reliability(finding_text(name), bins, limit) for name, bins in info.reliability.items()]


def _charts(info: CalibrationInfo) -> dict[str, Chart | None]:
    if info.preview is None:
        return {}
    threshold = info.preview.score_threshold
    scores = {"clean": info.tested, **({"stamped": info.stamped_scores} if info.stamped_scores else {})}
    return {
        "scores": histogram("Scores of full tests", "score, logits", scores, threshold, "flagged →"),
        "falls": histogram(
            "Falls in the quick screen",
            "fall of the logit",
            {"clean": info.screened},
            info.screen_threshold,
            "tested in full →",
        ),
        "roc": roc(info.stamped_p, info.preview.alpha),
    }
