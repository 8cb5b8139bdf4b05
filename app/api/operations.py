"""For operators: is it alive, can it read."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from app.context import ServicesDep

router = APIRouter(tags=["operations"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Still loading, or nothing to read with."}})
def readyz(services: ServicesDep) -> Response:
    """200 once loading is over and at least one checkpoint can read; names the device."""
    ids = dict.fromkeys(listed.id for listed in services.engine.checkpoints())
    states = {checkpoint_id: services.engine.find(checkpoint_id).state.value for checkpoint_id in ids}
    ready = services.engine.settled and "ready" in states.values()
    status = "ready" if ready else "no_checkpoint" if services.engine.settled else "loading"
    content = {"status": status, "device": str(services.engine.device), "checkpoints": states}
    return JSONResponse(content, 200 if ready else 503, None if ready else {"Retry-After": "2"})
