"""/sweeps: the same experiment over a grid of values."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response

from app.actor import ActorDep, subjects
from app.api.experiments import INFO, example
from app.api.problems import problems
from app.context import Services, ServicesDep
from app.schemas.experiments import SweepDetail, SweepList, SweepRequest
from app.services.experiments import describe
from app.services.experiments.sweeps import as_csv

router = APIRouter(prefix="/sweeps", tags=["experiments"])
_ID = "9b2c4d6e8f0a1b3c5d7e9f0a1b2c3d4e"
_SWEEP: dict[str, Any] = {
    "id": _ID,
    "url": f"/sweeps/{_ID}",
    "name": "quick",
    "grid": {"trigger.size_px": [2, 3], "poison.rate": [0.05, 0.1], "seed": [1, 2, 3]},
    "created_at": "2026-11-25T20:00:00Z",
    "created_by": "ada",
    "counts": {"done": 11, "running": 1},
    "cells": [
        {
            "at": {"trigger.size_px": 2, "poison.rate": 0.05},
            "experiments": [INFO["id"]],
            "done": 1,
            "figures": {"asr": {"value": 0.91, "interval": [0.84, 0.98]}},
        }
    ],
    "experiments": [{**INFO, "sweep_id": _ID, "cell": {"trigger.size_px": 2, "poison.rate": 0.05, "seed": 1}}],
    "notice": "Research use, not for diagnosis.",
}
_ASKED = {
    "12 runs": {
        "value": {"preset": "quick", "grid": {"size_px": [2, 3], "rate": [0.05, 0.1], "seed": [1, 2, 3]}},
    }
}


@router.post("", status_code=201, responses={**example(201, "Queued, all of them", _SWEEP), **problems(403, 413, 422)})
def create(
    services: ServicesDep,
    actor: ActorDep,
    request: Request,
    asked: Annotated[SweepRequest, Body(openapi_examples=_ASKED)],
) -> SweepDetail:
    """Queues a run for each combination of the grid's values, all of them or none."""
    made = services.sweeps.start(
        actor,
        describe.asked(asked),
        asked.grid.axes(),
        name=asked.name or "",
        clean_twin=asked.clean_twin,
        priority=asked.priority,
    )
    subjects(request, made.id)
    return _detail(services, made.id)


@router.get("", responses=problems(422))
def index(services: ServicesDep, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> SweepList:
    """Sweeps, the newest first."""
    return SweepList(sweeps=[describe.sweep(one) for one in services.sweeps.page(limit)])


@router.get("/{sweep_id}", responses={**example(200, "It", _SWEEP), **problems(404, 422)})
def show(services: ServicesDep, sweep_id: str) -> SweepDetail:
    """One sweep: its runs, and for each cell the mean over the seeds with its interval."""
    return _detail(services, sweep_id)


@router.get(
    "/{sweep_id}/csv",
    response_class=Response,
    responses={200: {"content": {"text/csv": {}}, "description": "A line a run"}, **problems(404, 422)},
)
def table(services: ServicesDep, sweep_id: str) -> Response:
    """A line a run: what it is, its state, every measure with its interval."""
    return csv_answer(services, sweep_id)


def csv_answer(services: Services, sweep_id: str) -> Response:
    """The table as a file."""
    found = services.sweeps.get(sweep_id)
    headers = {"Content-Disposition": f'attachment; filename="sweep-{found.id[:8]}.csv"'}
    return Response(as_csv(services.sweeps.runs(sweep_id)), media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/{sweep_id}/cancel", responses=problems(403, 404, 422))
def cancel(services: ServicesDep, sweep_id: str) -> SweepDetail:
    """Stops every run that waits or runs."""
    return _detail(services, services.sweeps.cancel(sweep_id).id)


@router.post("/{sweep_id}/resume", responses=problems(403, 404, 422))
def resume(services: ServicesDep, sweep_id: str) -> SweepDetail:
    """Goes on with every run that failed or was cancelled."""
    return _detail(services, services.sweeps.resume(sweep_id).id)


@router.delete("/{sweep_id}", status_code=204, responses=problems(403, 404, 409, 422))
def remove(services: ServicesDep, sweep_id: str) -> None:
    """Removes it with all its runs and their files, unless one of them runs."""
    services.sweeps.remove(sweep_id)


def _detail(services: Services, sweep_id: str) -> SweepDetail:
    return describe.sweep_detail(services.sweeps.get(sweep_id), services.sweeps.runs(sweep_id))
