"""`/studies/{id}`: one radiograph, both readings."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.context import ServicesDep
from app.headers import picture
from app.schemas import Analysis
from app.services.checkpoints import usable_pair
from app.services.comparisons import Comparison, compare
from app.services.errors import BusyError, NotFoundError, UnavailableError
from app.services.images import DISPLAY_PX
from app.web.render import page, wants_fragment
from model.findings import FINDINGS

router = APIRouter(include_in_schema=False, prefix="/studies")
PANE_PX = 640


class Scale(StrEnum):
    """What the hottest colour means: the pair's larger peak at that layer, or each map's own."""

    SHARED = "shared"
    OWN = "own"


@router.get("/{study}")
def review(
    request: Request,
    services: ServicesDep,
    study: str,
    finding: Annotated[str | None, Query()] = None,
    scale: Annotated[Scale, Query()] = Scale.SHARED,
) -> Response:
    """The page, or for htmx what changes with the finding."""
    instance, pair = services.analyses.instance(study), services.pair
    if finding is not None and finding not in FINDINGS:
        raise NotFoundError("unknown_finding", f"“{finding}” is not one of the 14 findings.")
    context: dict[str, object] = {"instance": instance, "waiting": "", "failure": "", "scale": scale}
    try:
        comparison = compare(services.analyses.analyse(study, usable_pair(services.engine, pair)), pair)
    except BusyError as error:
        context["waiting"] = str(error)
        template = "partials/_waiting.html" if wants_fragment(request) else "pages/study.html"
        return page(request, template, context, headers={"Retry-After": str(error.retry_after_s)})
    except UnavailableError as error:
        return _failed(request, context, str(error))
    assert comparison is not None  # at least one of the pair has read it
    chosen = finding or comparison.default_finding
    context |= {"comparison": comparison, "chosen": chosen, "panes": _panes(comparison, chosen, scale)}
    if request.headers.get("hx-target") == "_waiting":  # what a page waited for has come: it loads itself anew
        return _refresh()
    template = "partials/_reading.html" if wants_fragment(request) else "pages/study.html"
    return page(request, template, context)


@router.get("/{study}/radiograph.png")
def radiograph(request: Request, services: ServicesDep, study: str) -> Response:
    """The radiograph in 8 bits, at the size of a screen."""
    return picture(request, services.analyses.radiograph_png(study, DISPLAY_PX))


@router.get("/{study}/thumbnail.png")
def thumbnail(request: Request, services: ServicesDep, study: str) -> Response:
    """A small one."""
    return picture(request, services.analyses.thumbnail_png(study))


def _failed(request: Request, context: dict[str, object], failure: str) -> Response:
    """The page that says why there is nothing to see; a part of it loads it whole, and asks no more."""
    if wants_fragment(request):
        return _refresh()
    return page(request, "pages/study.html", {**context, "failure": failure})


def _refresh() -> Response:
    return Response(headers={"HX-Refresh": "true", "Vary": "HX-Request"})


def _panes(comparison: Comparison, finding: str, scale: Scale) -> list[dict[str, object]]:
    """Reference and candidate, each at the middle and the last layer, for the template."""
    readings: list[tuple[str, Analysis]] = [
        (role, analysis)
        for role, analysis in (("reference", comparison.reference), ("candidate", comparison.candidate))
        if analysis
    ]
    panes: list[dict[str, object]] = []
    for role, analysis in readings:
        for layer in ("middle", "last"):
            peaks = [one.finding(finding).saliency[layer].peak for _, one in readings]
            saliency = analysis.finding(finding).saliency[layer]
            ceiling = max(peaks) if scale is Scale.SHARED else saliency.peak
            panes.append(
                {
                    "role": role,
                    "layer": layer,
                    "layer_name": analysis.layers[layer].name,
                    "grid": analysis.layers[layer].grid,
                    "reading": analysis.finding(finding),
                    "checkpoint": analysis.checkpoint.id,
                    "peak": saliency.peak,
                    "ceiling": ceiling,
                    "src": f"{saliency.url}.png?under=true&longest_px={PANE_PX}&ceiling={ceiling!r}",
                }
            )
    return panes
