"""`/studies/{id}/export`: a study to print, or as JSON."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.actor import ActorDep
from app.context import ServicesDep
from app.inference import LAYERS
from app.services.exports import Printout
from app.web.render import page

router = APIRouter(include_in_schema=False, prefix="/studies/{study}")
PRINT_PX = 1200


@router.get("/export")
def printable(
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
    study: str,
    finding: Annotated[str | None, Query(max_length=32)] = None,
) -> Response:
    """A4: the radiograph, one finding's four heatmaps, the table, what readers said, and how to recompute it."""
    printout = services.exports.printout(study, finding, actor)
    return page(request, "pages/export.html", {"out": printout, "panes": _panes(printout)})


@router.get("/export.json")
def as_json(services: ServicesDep, actor: ActorDep, study: str) -> Response:
    """Everything that is needed to recompute the study, with the proof of its reviews."""
    document = services.exports.document(study, actor)
    headers = {"Content-Disposition": f'attachment; filename="overread-{study[:12]}.json"'}
    return Response(document.model_dump_json(indent=1), media_type="application/json", headers=headers)


def _panes(out: Printout) -> list[dict[str, object]]:
    """Row by row: reference and candidate, each at both layers; one scale down a column, as on the review page."""
    return [
        {
            "role": role,
            "layer": layer,
            "layer_name": analysis.layers[layer].name,
            "reading": analysis.finding(out.finding),
            "peak": analysis.finding(out.finding).saliency[layer].peak,
            "ceiling": (ceiling := max(one.finding(out.finding).saliency[layer].peak for _, one in out.analyses)),
            "src": f"{analysis.finding(out.finding).saliency[layer].url}.png"
            f"?under=true&longest_px={PRINT_PX}&ceiling={ceiling!r}",
        }
        for role, analysis in out.analyses
        for layer in LAYERS
    ]
