"""/calibrations: what the detector's flags promise, for each checkpoint, and calibrating it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query

from app.actor import ActorDep
from app.api.jobs import JobInfo, describe
from app.api.problems import problems
from app.context import ServicesDep
from app.schemas import CalibrationInfo, CalibrationList, CalibrationRequest

router = APIRouter(prefix="/calibrations", tags=["calibrations"])
AlphaQuery = Annotated[
    float | None,
    Query(ge=0.0001, le=0.5, allow_inf_nan=False, description="Threshold to preview; by default its own."),
]
_ASKED = {
    "phantoms": {"value": {}},
    "a data set of this server": {"value": {"dataset": "nih", "images": 500}},
}
_NOTHING = CalibrationRequest()


@router.get("", responses=problems())
def index(services: ServicesDep, actor: ActorDep) -> CalibrationList:
    """Every checkpoint's calibration; the pair first."""
    return CalibrationList(calibrations=services.calibrations.every(services.pair, actor))


@router.get("/{checkpoint_id}", responses=problems(404, 422))
def show(services: ServicesDep, actor: ActorDep, checkpoint_id: str, alpha: AlphaQuery = None) -> CalibrationInfo:
    """One checkpoint's calibration: scores of clean radiographs, history, drift, and what a threshold would do."""
    return services.calibrations.one(checkpoint_id, services.pair, actor, alpha)


@router.post("/{checkpoint_id}", status_code=202, responses=problems(403, 404, 409, 413, 422))
def create(
    services: ServicesDep,
    actor: ActorDep,
    checkpoint_id: str,
    asked: Annotated[CalibrationRequest, Body(openapi_examples=_ASKED)] = _NOTHING,
) -> JobInfo:
    """Queues a calibration of this checkpoint; poll the job. When it is done, the new one decides the flags."""
    return describe(services.calibrate(checkpoint_id, asked, actor))
