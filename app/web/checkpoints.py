"""`/checkpoints`: the registry, the live pair, and each card in words."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from app.actor import ActorDep
from app.context import ServicesDep
from app.services.cards import describe_card
from app.services.checkpoints import show_checkpoint
from app.web.render import page

router = APIRouter(include_in_schema=False, prefix="/checkpoints")


@router.get("")
def index(request: Request, services: ServicesDep, actor: ActorDep) -> Response:
    """Every checkpoint, and the form that chooses the pair."""
    infos = services.checkpoints()
    rows = [(info, describe_card(info.card) if info.card else None) for info in infos]
    context = {"rows": rows, "pair": services.pair, "pending": services.pending(actor)}
    return page(request, "pages/checkpoints.html", context)


@router.post("/pair")
def choose(
    services: ServicesDep, actor: ActorDep, reference: Annotated[str, Form()], candidate: Annotated[str, Form()]
) -> Response:
    """Changes the live pair."""
    services.choose_pair(reference, candidate, actor)
    return RedirectResponse("/checkpoints", status_code=303)


@router.get("/{checkpoint_id}")
def show(request: Request, services: ServicesDep, checkpoint_id: str) -> Response:
    """One card."""
    info = show_checkpoint(services.engine, services.pair, checkpoint_id)
    context = {"info": info, "described": describe_card(info.card) if info.card else None}
    return page(request, "pages/checkpoint.html", context)
