"""For operators: is it alive, can it read, what does it do."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.api.problems import problems
from app.context import Services, ServicesDep
from app.telemetry import METRICS_TYPE

router = APIRouter(tags=["operations"])
metrics_router = APIRouter(tags=["operations"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Still loading, without a database, or nothing to read with."}})
def readyz(services: ServicesDep) -> Response:
    """200 once loading is over, the database answers and at least one checkpoint can read; names the device."""
    ids = dict.fromkeys(listed.id for listed in services.engine.checkpoints())
    states = {checkpoint_id: services.engine.find(checkpoint_id).state.value for checkpoint_id in ids}
    if not _database_answers(services):
        status = "no_database"
    elif not services.engine.settled:
        status = "loading"
    else:
        status = "ready" if "ready" in states.values() else "no_checkpoint"
    content = {"status": status, "device": str(services.engine.device), "checkpoints": states}
    ready = status == "ready"
    return JSONResponse(content, 200 if ready else 503, None if ready else {"Retry-After": "2"})


@metrics_router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **problems(401),
    },
)
def metrics(request: Request) -> Response:
    """Requests by route and status, their durations, the queue, and how much was read and reviewed."""
    return Response(request.app.state.metrics.text(), media_type=METRICS_TYPE)


def _database_answers(services: Services) -> bool:
    try:
        with services.db.read() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return False
    return True
