"""`/studies/{id}/flags`: what the detector says of a study. The review page includes the same partial, and asks for it
again while a full test is being made."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from app.actor import ActorDep
from app.context import Services, ServicesDep
from app.jobs.kinds import examine
from app.services.checkpoints import usable_pair
from app.services.comparisons import Comparison, compare
from app.services.errors import NotFoundError
from app.web.render import page, wants_fragment
from model.findings import FINDINGS

router = APIRouter(include_in_schema=False, prefix="/studies/{study}")


@router.get("/flags")
def flags(
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
    study: str,
    finding: Annotated[str | None, Query(max_length=32)] = None,
    known: Annotated[str, Query(max_length=64, description="What is on the page already.")] = "",
) -> Response:
    """The cards of all findings; nothing for htmx where they are what it has already."""
    comparison = _comparison(services, study, actor)
    context = flags_context(services, comparison, _known_finding(finding) or comparison.default_finding)
    if not wants_fragment(request):
        return page(request, "pages/flags.html", {**context, "study": study})
    if known == context["digest"]:
        return Response(status_code=204)
    return page(request, "partials/_flags.html", {**context, "study": study, "with_alarms": True})


@router.post("/test")
def test(
    services: ServicesDep, actor: ActorDep, study: str, finding: Annotated[str | None, Form(max_length=32)] = None
) -> Response:
    """Has the full tests made that were cancelled or failed, or that nobody has asked for."""
    comparison = _comparison(services, study, actor)
    keys = [analysis.analysis_id for _, analysis in comparison.readings]
    owed = services.analyses.examinations.owed(keys)
    if owed:
        examine.request(services.jobs, owed)
    chosen = _known_finding(finding)
    return RedirectResponse(f"/studies/{study}{f'?finding={chosen}' if chosen else ''}#_flags", 303)


def flags_context(services: Services, comparison: Comparison, chosen: str) -> dict[str, Any]:
    """What `_flags.html` needs beside `study`. jobs: by analysis, the state of the job that its full test waits for."""
    jobs = services.analyses.examinations.jobs([one.analysis_id for _, one in comparison.readings])
    digest = comparison.flags_digest + "".join(state[:2] for state in jobs.values())
    return {"comparison": comparison, "chosen": chosen, "jobs": jobs, "digest": digest}


def _comparison(services: Services, study: str, actor: ActorDep) -> Comparison:
    """Raises NotFoundError, ConflictError `read_first`, and what reading raises."""
    instance = services.analyses.instance(study)
    services.read_first.refuse_image(instance.id, actor)
    pair = services.pair
    comparison = compare(services.analyses.analyse(instance.id, usable_pair(services.engine, pair)), pair)
    assert comparison is not None  # at least one of the pair has read it
    return comparison


def _known_finding(finding: str | None) -> str | None:
    if finding is not None and finding not in FINDINGS:
        raise NotFoundError("unknown_finding", f"“{finding}” is not one of the 14 findings.")
    return finding
