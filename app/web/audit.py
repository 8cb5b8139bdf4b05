"""`/audit`: who read and wrote what, and whether the record still holds."""

from __future__ import annotations

from datetime import date
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse

from app.actor import ActorDep
from app.context import ServicesDep
from app.services.audit import Filter
from app.web.render import page, wants_fragment
from model.errors import DataError

router = APIRouter(include_in_schema=False)
ROWS = 50
_WORD = r"^[^\x00]*$"  # PostgreSQL cannot be asked for a zero byte


def wanted(
    actor: Annotated[str, Query(max_length=64, pattern=_WORD)] = "",
    action: Annotated[str, Query(max_length=64, pattern=_WORD)] = "",
    day: Annotated[str, Query(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$")] = "",
) -> Filter:
    """The filter; an empty field of the form means all. Raises DataError `bad_day`."""
    try:
        return Filter(actor, action, date.fromisoformat(day) if day else None)
    except ValueError:
        raise DataError("bad_day", f"There is no day {day}.") from None


FilterDep = Annotated[Filter, Depends(wanted)]


@router.get("/audit")
def listing(
    request: Request,
    services: ServicesDep,
    filter: FilterDep,
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> Response:
    """The page, the newest events first."""
    found = services.audit.page(filter, before, ROWS)
    fields = {"actor": filter.actor, "action": filter.action, "day": filter.day.isoformat() if filter.day else ""}
    context = {
        "events": found.events,
        "filter": fields,
        "query": urlencode(fields),
        "older": found.older,
        "newest": before is None,
        "actors": services.audit.actors(),
        "actions": services.audit.actions(),
    }
    return page(request, "pages/audit.html", context)


@router.get("/audit/verification")
def verification(request: Request, services: ServicesDep) -> Response:
    """Recomputes both chains; the list fetches it by itself."""
    template = "partials/_verification.html" if wants_fragment(request) else "pages/verification.html"
    return page(request, template, {"reports": services.audit.verify()})


@router.get("/audit.csv")
def as_csv(services: ServicesDep, actor: ActorDep, filter: FilterDep) -> Response:
    """The filtered list for a spreadsheet."""
    services.audit.note(actor, "audit.export", detail={"format": "csv"})
    return _file(StreamingResponse(services.audit.csv(filter), media_type="text/csv; charset=utf-8"), "csv")


@router.get("/audit.json")
def as_json(services: ServicesDep, actor: ActorDep, filter: FilterDep) -> Response:
    """The filtered list with its hashes, as it was sealed."""
    services.audit.note(actor, "audit.export", detail={"format": "json"})
    return _file(StreamingResponse(services.audit.json(filter), media_type="application/json"), "json")


def _file(response: Response, ending: str) -> Response:
    response.headers["Content-Disposition"] = f'attachment; filename="overread-audit.{ending}"'
    return response
