"""GET /calibrations: what the detector's flags promise, for each checkpoint."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.actor import ActorDep
from app.api.problems import problems
from app.context import ServicesDep
from app.schemas import CalibrationInfo, CalibrationList

router = APIRouter(prefix="/calibrations", tags=["calibrations"])
AlphaQuery = Annotated[
    float | None,
    Query(ge=0.0001, le=0.5, allow_inf_nan=False, description="Threshold to preview; by default its own."),
]


@router.get("", responses=problems())
def index(services: ServicesDep, actor: ActorDep) -> CalibrationList:
    """Every checkpoint's calibration; the pair first."""
    return CalibrationList(calibrations=services.calibrations.every(services.pair, actor))


@router.get("/{checkpoint_id}", responses=problems(404, 422))
def show(services: ServicesDep, actor: ActorDep, checkpoint_id: str, alpha: AlphaQuery = None) -> CalibrationInfo:
    """One checkpoint's calibration: scores of clean radiographs, history, drift, and what a threshold would do."""
    return services.calibrations.one(checkpoint_id, services.pair, actor, alpha)
