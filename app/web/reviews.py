"""`/studies/{id}/decision`: what readers say of a study. The review page includes the same partials."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError

from app.actor import ActorDep
from app.context import ServicesDep
from app.errors import status_of
from app.schemas import Reason, ReviewRequest, UnaidedFinding, Verdict
from app.services.errors import ConflictError
from app.services.reviews import Panel
from app.web.render import page, wants_fragment
from model.errors import DataError
from model.findings import FINDINGS

router = APIRouter(include_in_schema=False, prefix="/studies/{study}")


@router.get("/decision")
def decision(request: Request, services: ServicesDep, actor: ActorDep, study: str) -> Response:
    """The form and the history, as a page of their own or as what htmx puts into one."""
    return _answer(request, services.reviews.panel(study, actor))


@router.post("/decision")
def decide(
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
    study: str,
    subject: Annotated[str, Form(max_length=64)],
    verdict: Annotated[Verdict | None, Form()] = None,
    reason: Annotated[str, Form(max_length=32)] = "",
    comment: Annotated[str, Form(max_length=4000)] = "",
    added: Annotated[list[str] | None, Form()] = None,
    added_words: Annotated[str, Form(max_length=500)] = "",
    token: Annotated[str, Form(max_length=64)] = "",
) -> Response:
    """Records a verdict, and goes back to the study."""
    panel = services.reviews.panel(study, actor)
    if verdict is None:
        return _refused(request, panel, subject, None, "Choose a verdict first.", 422)
    analysis_id, _, finding = subject.partition("/")
    words = [word.strip() for word in added_words.split(",") if word.strip()]
    try:
        review = ReviewRequest(
            verdict=verdict,
            finding=finding or None,
            reason=Reason(reason) if reason else None,
            comment=comment.replace("\r\n", "\n"),
            added_findings=[*(added or []), *words],
            token=token or None,
        )
    except ValueError as error:
        return _refused(request, panel, subject, None, _why(error), 422)
    if subject not in [one.value for one in panel.subjects] and not panel.locked:
        return _refused(request, panel, subject, review, "This is not a reading of this study; choose one.", 422)
    try:
        services.reviews.record(actor, analysis_id, review)
    except (DataError, ConflictError) as error:
        return _refused(request, panel, subject, review, str(error), status_of(error))
    if wants_fragment(request):
        return _answer(request, services.reviews.panel(study, actor))
    return RedirectResponse(f"/studies/{study}#_decision", 303)


@router.post("/unaided")
def unaided(
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
    study: str,
    said: Annotated[list[str] | None, Form(max_length=len(FINDINGS))] = None,
    comment: Annotated[str, Form(max_length=4000)] = "",
) -> Response:
    """Records the reader's own reading, and shows the study with its predictions.

    said: `FINDING:present|absent:definite|probable`, or empty for a finding that was left open.
    """
    chosen = {name: rest for name, _, rest in (one.partition(":") for one in said or [] if one)}
    try:
        findings = [_finding(name, rest) for name, rest in chosen.items()]
        services.reviews.record_unaided(actor, study, findings, comment)
    except (ValueError, DataError, ConflictError) as error:
        panel = replace(services.reviews.panel(study, actor), open_fields=chosen)
        status = 422 if isinstance(error, ValueError) else status_of(error)
        return _refused(request, panel, "", None, _why(error), status)
    if wants_fragment(request):
        return Response(headers={"HX-Redirect": f"/studies/{study}"})
    return RedirectResponse(f"/studies/{study}", 303)


@router.post("/read-first")
def read_first(services: ServicesDep, actor: ActorDep, study: str, on: Annotated[bool, Form()]) -> Response:
    """Asks readers of this study for an unaided reading first, or no longer."""
    services.reviews.set_read_first(study, on, actor)
    return RedirectResponse(f"/studies/{study}#_decision", 303)


def _finding(name: str, said: str) -> UnaidedFinding:
    presence, _, confidence = said.partition(":")
    if presence not in ("present", "absent"):
        raise ValueError("A finding is present or absent.")
    return UnaidedFinding.model_validate({"name": name, "present": presence == "present", "confidence": confidence})


def _refused(
    request: Request, panel: Panel, subject: str, draft: ReviewRequest | None, why: str, status: int
) -> Response:
    return _answer(request, replace(panel, chosen=subject, draft=draft, error=why), status)


def _answer(request: Request, panel: Panel, status: int = 200) -> Response:
    """htmx puts nothing of a 4xx into the page, so that a refusal reaches it as 200."""
    if wants_fragment(request):
        return page(request, "partials/_decision.html", {"panel": panel, "with_history": True})
    return page(request, "pages/decision.html", {"panel": panel}, status=status)


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc']).replace('_', ' ').capitalize()}: {first['msg']}."
    return str(error)
