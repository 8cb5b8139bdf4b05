"""The read-first lock over REST: nothing under an analysis is answered to who must read its study first."""

from __future__ import annotations

from app.actor import ActorDep
from app.context import ServicesDep


def opened(services: ServicesDep, actor: ActorDep, analysis_id: str) -> None:
    """A dependency of routers. Raises ConflictError `read_first`."""
    services.read_first.refuse_analysis(analysis_id, actor)
