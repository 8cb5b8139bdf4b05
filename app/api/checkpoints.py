"""GET /checkpoints: the registry."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.problems import problems
from app.context import ServicesDep
from app.schemas import CheckpointInfo, CheckpointList
from app.services.checkpoints import show_checkpoint

router = APIRouter(prefix="/checkpoints", tags=["checkpoints"])


@router.get("", responses=problems())
def index(services: ServicesDep) -> CheckpointList:
    """Every checkpoint, usable or not; the pair first."""
    return CheckpointList(checkpoints=services.checkpoints())


@router.get("/{checkpoint_id}", responses=problems(404, 422))
def show(services: ServicesDep, checkpoint_id: str) -> CheckpointInfo:
    """One checkpoint with its whole card."""
    return show_checkpoint(services.engine, services.pair, checkpoint_id)
