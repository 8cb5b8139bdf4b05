"""`/`: upload, and what was uploaded."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from app.actor import Actor, ActorDep
from app.actor import subjects as about
from app.context import Services, ServicesDep
from app.errors import status_of
from app.schemas import StudyInfo, UploadResult
from app.services.uploads import RETRY_S, receive_all, refusal
from app.services.worklist import Filters, FlagWord, Sort, StatusWord
from app.web.render import page, wants_fragment
from model.checkpoint import NOTICE

router = APIRouter(include_in_schema=False)
_COLUMNS = (
    "id", "title", "format", "instance_count", "study_instance_uid", "patient_id", "patient_name", "study_date",
    "description", "source", "received_at", "status", "claimed_by", "claimed_at", "reference_finding",
    "reference_probability", "reference_positives", "candidate_finding", "candidate_probability", "candidate_positives",
    "disagreement", "flag", "flag_by", "flag_finding", "read_first", "notice",
)  # fmt: skip


def _filters(
    flag: Annotated[FlagWord | Literal[""], Query()] = "",
    status: Annotated[StatusWord | Literal[""], Query()] = "",
    disagreement: Annotated[Literal["", "yes", "no"], Query()] = "",
    claimed: Annotated[str, Query(max_length=64)] = "",
    q: Annotated[str, Query(max_length=200)] = "",
    sort: Annotated[Sort, Query()] = Sort.RECEIVED,
) -> Filters:
    """From the address: what a form sends for a field that was left open is empty."""
    differ = None if not disagreement else disagreement == "yes"
    return Filters(flag or None, status or None, differ, claimed, q.strip(), sort)


FiltersDep = Annotated[Filters, Depends(_filters)]
Cursor = Annotated[str, Query(max_length=400)]


@router.get("/")
def worklist(
    request: Request, services: ServicesDep, filters: FiltersDep, actor: ActorDep, cursor: Cursor = ""
) -> Response:
    """The page, or for htmx the list alone."""
    return _page(request, services, filters, actor, cursor)


@router.get("/status")
def status(request: Request, services: ServicesDep) -> Response:
    """Whether the checkpoints are loaded; polls itself while they are not."""
    return page(request, "partials/_status.html", {"settled": services.engine.settled})


@router.get("/next")
def next_unread(
    services: ServicesDep, filters: FiltersDep, actor: ActorDep, after: Annotated[str, Query(max_length=32)] = ""
) -> Response:
    """To the next unread study of the list, or back to the list when there is none."""
    following = services.studies.worklist.next_unread(filters, actor, after or None)
    return RedirectResponse(f"/studies/{following}" if following else _address(filters), status_code=303)


@router.post("/studies")
def upload(
    request: Request, services: ServicesDep, actor: ActorDep, file: Annotated[list[UploadFile], File()]
) -> Response:
    """Takes radiographs and goes to the only one or to the list; where one was not new, says what became of each."""
    files = [(one.filename or "", one.file.read) for one in file]
    results = receive_all(services.studies, files, "upload", status_of, services.background.put)
    about(request, *(one.study_id for one in results if one.study_id))
    if all(one.status == 201 for one in results):
        return RedirectResponse((results[0].url or "/") if len(results) == 1 else "/", status_code=303)
    answer = _page(request, services, Filters(), actor, "", results, refusal(results) or 200)
    if answer.status_code == 503:
        answer.headers["Retry-After"] = str(RETRY_S)
    return answer


@router.post("/studies/{study_id}/claim")
def claim(
    request: Request, services: ServicesDep, study_id: str, actor: ActorDep, back: Annotated[str, Form()] = ""
) -> Response:
    """Says that one reads it."""
    return _row(request, services.studies.claim(study_id, actor), back)


@router.post("/studies/{study_id}/release")
def release(
    request: Request, services: ServicesDep, study_id: str, actor: ActorDep, back: Annotated[str, Form()] = ""
) -> Response:
    """Gives it back."""
    return _row(request, services.studies.release(study_id, actor), back)


@router.get("/worklist.csv")
def export_csv(services: ServicesDep, filters: FiltersDep, actor: ActorDep) -> Response:
    """The whole filtered list as a table."""
    return _download(_csv(services.studies.worklist.every(filters, actor)), "text/csv; charset=utf-8", "csv")


@router.get("/worklist.json")
def export_json(services: ServicesDep, filters: FiltersDep, actor: ActorDep) -> Response:
    """The whole filtered list as JSON."""
    return _download(_json(services.studies.worklist.every(filters, actor), filters), "application/json", "json")


def _page(
    request: Request,
    services: Services,
    filters: Filters,
    actor: Actor,
    cursor: str,
    results: list[UploadResult] | None = None,
    status: int = 200,
) -> Response:
    listed = services.studies.worklist.page(filters, actor, cursor or None)
    context = {
        "studies": listed.studies,
        "next_cursor": listed.next_cursor,
        "cursor": cursor,
        "filters": filters,
        "query": filters.query_string(),
        "results": results or [],
        "settled": services.engine.settled,
        "adding_samples": services.adding_samples,
        "pending": services.pending(actor),
    }
    template = "partials/_worklist.html" if wants_fragment(request) else "pages/worklist.html"
    return page(request, template, context, status=status)


def _row(request: Request, study: StudyInfo, back: str) -> Response:
    if wants_fragment(request):
        return page(request, "partials/_study_row.html", {"study": study, "query": back})
    return RedirectResponse(f"/?{back}#study-{study.id}" if back else f"/#study-{study.id}", status_code=303)


def _address(filters: Filters) -> str:
    query = filters.query_string()
    return f"/?{query}" if query else "/"


def _download(parts: Iterable[str], media_type: str, extension: str) -> Response:
    name = f"overread-worklist-{datetime.now(UTC):%Y%m%d-%H%M%S}.{extension}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(parts, media_type=media_type, headers=headers)


def _csv(studies: Iterable[StudyInfo]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(_COLUMNS)
    for study in studies:
        fields = study.model_dump(mode="json", exclude={"url", "reference", "candidate"})
        for role, called in (("reference", study.reference), ("candidate", study.candidate)):
            fields |= {f"{role}_{key}": value for key, value in called.model_dump().items()} if called else {}
        writer.writerow([_cell({**fields, "notice": NOTICE}.get(column)) for column in _COLUMNS])
        if buffer.tell() > 2**15:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _cell(value: object) -> object:
    """A name that begins like a formula must not become one in a spreadsheet."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return "" if value is None else value


def _json(studies: Iterable[StudyInfo], filters: Filters) -> Iterator[str]:
    head = {"notice": NOTICE, "exported_at": datetime.now(UTC).isoformat(), "filters": filters.query_string()}
    yield json.dumps(head)[:-1] + ', "studies": ['
    for i, study in enumerate(studies):
        yield (",\n" if i else "\n") + study.model_dump_json()
    yield "\n]}\n"
