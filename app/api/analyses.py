"""GET /analyses: what was read, and the saliency maps behind it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from app.api.problems import problems
from app.api.read_first import opened
from app.context import GoneDep, ServicesDep
from app.headers import IMMUTABLE, PICTURE, picture
from app.inference import LAYERS
from app.schemas import Analysis
from app.services.analyses import Grid, Grids
from app.services.images import LARGEST_PX
from app.services.viewing import METHODS, STORED_METHOD

router = APIRouter(prefix="/analyses", tags=["analyses"], dependencies=[Depends(opened)])
RAW = "application/octet-stream"
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
ProofKind = Literal["seen", "erased", "donor-1", "donor-2"]
MethodQuery = Annotated[str, Query(description=f"How the map is made: {', '.join(METHODS)}.")]


@router.get("/{analysis_id}", responses=problems(404, 409, 422))
def show(services: ServicesDep, analysis_id: str) -> Analysis:
    """One analysis."""
    return services.analyses.analysis(analysis_id)


@router.get(
    "/{analysis_id}/saliency/{layer}",
    response_class=Response,
    responses={200: {"description": "The maps", "content": {RAW: _BINARY}}, **problems(404, 409, 422, 503)},
)
def all_saliency(
    services: ServicesDep, gone: GoneDep, analysis_id: str, layer: str, method: MethodQuery = STORED_METHOD
) -> Response:
    """The saliency maps of all 14 findings at one layer, raw, one after the other in the analysis' order.

    layer: `middle`, `last`, or the name of any stage. Each map is as a single one's raw answer, with the same headers.
    """
    return _raw(services.viewing.grids(analysis_id, layer, method, gone), method)


@router.get(
    "/{analysis_id}/saliency/{layer}/{finding}",
    response_class=Response,
    responses={
        200: {"description": "The map", "content": {"image/png": _BINARY, RAW: _BINARY}},
        **problems(404, 409, 422, 503),
    },
)
def saliency(
    request: Request,
    services: ServicesDep,
    gone: GoneDep,
    analysis_id: str,
    layer: str,
    finding: str,
    accept: Annotated[str, Header()] = "*/*",
    ceiling: Annotated[
        float | None,
        Query(ge=0, allow_inf_nan=False, description="Value of the hottest colour; by default the map's peak."),
    ] = None,
    under: Annotated[bool, Query(description="PNG: with the radiograph beneath, else a transparent overlay.")] = False,
    longest_px: Annotated[
        int | None,
        Query(ge=16, le=8192, description=f"PNG: shrink to this longer side; at most {LARGEST_PX} in any case."),
    ] = None,
    method: MethodQuery = STORED_METHOD,
) -> Response:
    """A saliency map: as a picture registered to the radiograph, or raw.

    `.png` behind the finding, or anything but `Accept: application/octet-stream`, gives a PNG of the radiograph's size,
    or of 2048 px on its longer side where it is larger. Raw is the layer's own grid, float32 little-endian, row by row,
    un-normalised, with headers: `Overread-Grid` (rows, columns), `Overread-Layer`, and `Overread-Input-Map` (JSON;
    source = input × scale + offset, pixel edges).
    """
    wants_raw = RAW in accept and not finding.endswith(".png")
    grid = services.viewing.grids(analysis_id, layer, method, gone).of(finding.removesuffix(".png"))
    if wants_raw:
        return _raw(grid, method)
    return picture(request, services.analyses.saliency_png(grid, ceiling, under, longest_px))


@router.get(
    "/{analysis_id}/proofs/{finding}/{kind}.png",
    response_class=Response,
    responses={200: {"description": "The picture", "content": {"image/png": _BINARY}}, **problems(404, 409, 422)},
)
def proof(request: Request, services: ServicesDep, analysis_id: str, finding: str, kind: ProofKind) -> Response:
    """A picture that proves a flag, as the network saw it: `seen`, the radiograph; `erased`, with the region filled
    from its surroundings; `donor-1` and `donor-2`, the spot on a phantom.
    """
    return picture(request, services.analyses.examinations.picture(analysis_id, finding, kind))


def _raw(maps: Grid | Grids, method: str) -> Response:
    """What is stored with its analysis never changes; what is computed by code of today may, tomorrow."""
    stored = method == STORED_METHOD and maps.layer in LAYERS.values()
    headers = {
        **(IMMUTABLE if stored else PICTURE),
        "Overread-Grid": ",".join(str(n) for n in maps.values.shape[-2:]),
        "Overread-Layer": maps.layer,
        "Overread-Input-Map": json.dumps(maps.analysis.image.input_map),
    }
    return Response(maps.values.astype("<f4", copy=False).tobytes(), media_type=RAW, headers=headers)
