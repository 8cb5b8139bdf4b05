"""`/`: upload, and what was uploaded."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, File, Request, UploadFile
from fastapi.responses import RedirectResponse, Response

from app.actor import subjects as about
from app.context import ServicesDep
from app.errors import status_of
from app.services.comparisons import compare
from app.services.errors import BusyError, UnavailableError
from app.web.render import page, wants_fragment
from model.errors import RadiographError

router = APIRouter(include_in_schema=False)
ROWS = 50


@router.get("/")
def worklist(request: Request, services: ServicesDep) -> Response:
    """The page, or for htmx the list alone."""
    return _page(request, services, [])


@router.get("/status")
def status(request: Request, services: ServicesDep) -> Response:
    """Whether the checkpoints are loaded; polls itself while they are not."""
    return page(request, "partials/_status.html", {"settled": services.engine.settled})


@router.post("/studies")
def upload(request: Request, services: ServicesDep, file: Annotated[list[UploadFile], File()]) -> Response:
    """Takes radiographs, and goes to the only one or back to the list. Each file answers for itself."""
    received, refused, refusal = [], [], 422
    for one in file:
        try:
            received.append(services.analyses.receive(one.file.read(), one.filename or "").id)
        except RadiographError as error:
            refused.append((one.filename or "A file without a name", str(error)))
            refusal = status_of(error)
    about(request, *received)
    for study in received:
        with suppress(BusyError, UnavailableError):  # then its page reads it when it is opened
            services.analyses.analyse(study)
    if refused:
        return _page(request, services, refused, status=200 if received else refusal)
    target = f"/studies/{received[0]}" if len(received) == 1 else "/"
    return RedirectResponse(target, status_code=303)


def _page(request: Request, services: ServicesDep, refused: list[tuple[str, str]], status: int = 200) -> Response:
    pair = services.settings.pair
    listings = services.analyses.worklist(ROWS)
    context = {
        "rows": [(one.instance, compare(list(one.analyses.values()), pair)) for one in listings],
        "refused": refused,
        "settled": services.engine.settled,
        "limit": ROWS,
        "adding_samples": services.adding_samples,
    }
    template = "partials/_worklist.html" if wants_fragment(request) else "pages/worklist.html"
    return page(request, template, context, status=status)
