"""GET /instances/{id}/pixels: what a viewer needs to draw a radiograph itself."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from app.api.problems import problems
from app.context import ServicesDep
from app.decoding import VIEWER_PX, Pixels
from app.headers import IMMUTABLE
from app.outgoing import LargeResponse

router = APIRouter(prefix="/instances", tags=["instances"])
RAW = "application/octet-stream"
_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_GZIPPED_BYTES = 2**22  # beyond it, packing takes longer than the network of a hospital


@router.get(
    "/{instance_id}/pixels",
    response_class=Response,
    responses={200: {"description": "The pixels", "content": {RAW: _BINARY}}, **problems(404, 422, 503)},
)
def pixels(
    services: ServicesDep,
    instance_id: str,
    longest_px: Annotated[
        int, Query(ge=64, le=VIEWER_PX, description="Average down to at most this longer side.")
    ] = VIEWER_PX,
    accept_encoding: Annotated[str, Header()] = "",
) -> Response:
    """A radiograph's pixels: uint16 little-endian, row by row, dense is high, as before the file's window.

    Headers: `Overread-Size` (rows, columns that follow), `Overread-Source-Size` (of the radiograph), `Overread-Scale`
    (source pixels for each sent one), `Overread-Max-Value`, `Overread-Value-Scale` (slope, intercept: the file's own
    value is value × slope + intercept), `Overread-Windows` (JSON: the file's own, in sent values; centre − width/2 is
    black, centre + width/2 white), and where it is known `Overread-Pixel-Spacing` (mm a source pixel: rows, columns)
    with `Overread-Spacing-At` (`detector` or `image`).
    """
    found = services.viewing.pixels(instance_id, longest_px)
    body = found.values.astype("<u2", copy=False).tobytes()
    headers = {**IMMUTABLE, "Vary": "Accept-Encoding", **_described(found)}
    if "gzip" in accept_encoding and len(body) <= _GZIPPED_BYTES:
        body = gzip.compress(body, 1, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return LargeResponse(services.outgoing, body, RAW, headers)


def _described(found: Pixels) -> dict[str, str]:
    headers = {
        "Overread-Size": _pair(found.values.shape),
        "Overread-Source-Size": _pair(found.source),
        "Overread-Scale": str(found.scale),
        "Overread-Max-Value": str(found.max_value),
        "Overread-Value-Scale": _pair((found.slope, found.intercept)),
        "Overread-Windows": json.dumps([asdict(window) for window in found.windows]),
    }
    if found.spacing_mm:
        headers["Overread-Pixel-Spacing"] = _pair(found.spacing_mm)
        headers["Overread-Spacing-At"] = "detector" if found.spacing_at_detector else "image"
    return headers


def _pair(values: tuple[float, ...]) -> str:
    return ",".join(repr(value) for value in values)
