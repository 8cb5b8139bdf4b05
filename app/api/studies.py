"""/studies: radiographs in, the worklist out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, File, Query, Request, Response, UploadFile

from app.actor import ActorDep
from app.api.problems import problems
from app.context import ServicesDep
from app.errors import error_response, status_of
from app.schemas import StudyDetail, StudyList, UnaidedRead, UnaidedRequest, UploadResults
from app.services.uploads import RETRY_S, receive_all, refusal
from app.services.worklist import PAGE_ROWS, Filters, FlagWord, Sort, StatusWord

router = APIRouter(prefix="/studies", tags=["studies"])

_STUDY: dict[str, Any] = {
    "id": "5b0c1f6a3d2e4b7f9a8c7d6e5f4a3b2c",
    "url": "/studies/5b0c1f6a3d2e4b7f9a8c7d6e5f4a3b2c",
    "title": "chest.dcm",
    "format": "DICOM",
    "instance_count": 1,
    "study_instance_uid": "1.2.826.0.1.3680043.8.498.1",
    "patient_id": "SYNTHETIC-004",
    "patient_name": "Synthetic Sample 4",
    "study_date": "2026-01-01",
    "description": "Chest PA",
    "source": "api",
    "received_at": "2026-11-25T20:00:00Z",
    "status": "in_progress",
    "claimed_by": "ada",
    "claimed_at": "2026-11-25T20:05:00Z",
    "reference": {"finding": "Effusion", "probability": 0.61, "positives": 1},
    "candidate": {"finding": "Atelectasis", "probability": 0.98, "positives": 1},
    "disagreement": True,
    "flag": "suspicious",
    "flag_by": "candidate",
    "flag_finding": "Atelectasis",
    "read_first": False,
}
_NOTICE = "Research use, not for diagnosis."
_CURSOR = "WyJyZWNlaXZlZCIsICIyMDI2LTExLTI1VDIwOjAwOjAwKzAwOjAwIiwgIjViMGMiXQ"
_ANALYSIS = "0123456789abcdef0123456789abcdef"
_DETAIL: dict[str, Any] = {
    **_STUDY,
    "instances": [
        {
            "id": "0c9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f",
            "name": "chest.dcm",
            "format": "DICOM",
            "image_sha256": "0c9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f" * 2,
            "width_px": 2022,
            "height_px": 2022,
            "series_instance_uid": "1.2.826.0.1.3680043.8.498.2",
            "sop_instance_uid": "1.2.826.0.1.3680043.8.498.3",
            "view": "PA",
            "warnings": [],
            "predicted": True,
            "analyses": [
                {
                    "analysis_id": _ANALYSIS,
                    "checkpoint_id": "backdoored",
                    "weights_sha256": "30712f1bb536536429d80fc03eda75293427bffbe9192b254c157268dcb41a1f",
                    "url": f"/api/v1/analyses/{_ANALYSIS}",
                    "reviews_url": f"/api/v1/analyses/{_ANALYSIS}/reviews",
                }
            ],
        }
    ],
    "notice": _NOTICE,
}
_UPLOADED: dict[str, Any] = {
    "results": [
        {
            "file": "chest.dcm",
            "status": 201,
            "study_id": _STUDY["id"],
            "instance_id": "0c9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f",
            "url": _STUDY["url"],
            "duplicate": False,
            "predicted": True,
            "warnings": [],
        },
        {
            "file": "notes.txt",
            "status": 415,
            "problem": {"code": "unknown_format", "detail": "This file is neither PNG nor JPEG nor DICOM."},
        },
    ],
    "notice": _NOTICE,
}


def _example(status: int, description: str, value: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": description, "content": {"application/json": {"example": value}}}}


@router.post(
    "",
    status_code=201,
    response_model=UploadResults,
    response_model_exclude_none=True,
    responses={
        **_example(201, "At least one file was taken, or is here already", _UPLOADED),
        **problems(403, 409, 413, 415, 422),
    },
)
def create(
    request: Request,
    services: ServicesDep,
    file: Annotated[list[UploadFile], File(description="Chest radiographs: PNG, JPEG or DICOM; may be repeated.")],
) -> UploadResults | Response:
    """Puts radiographs on the worklist; each file answers for itself, in the order of the request.

    DICOM files with one Study Instance UID join one study; a lateral view is kept there and not read. The same file
    again is recognised: status 200, `duplicate` true, and the study that it belongs to. A file whose SOP Instance UID
    is here already with other contents is refused with 409 `sop_instance_uid_conflict`; one that the server has no room
    for now has status 503: send it again in a while. When every file was refused the
    answer is a problem, with each file's reason in `errors`. Reading follows in the background: ask
    `GET /studies/{study_id}` until `reference` and `candidate` are there.
    """
    files = [(one.filename or "", one.file.read) for one in file]
    results = receive_all(services.studies, files, "api", status_of, services.background.put)
    refused = refusal(results)
    if refused is None:
        return UploadResults(results=results)
    found = [(one.file, one.status, one.problem) for one in results if one.problem]
    errors = [{"file": name, "status": status, **problem.model_dump()} for name, status, problem in found]
    codes = {problem.code for _, _, problem in found}
    code = codes.pop() if len(codes) == 1 else "all_refused"
    detail = found[0][2].detail if len(found) == 1 else f"None of the {len(found)} files was taken."
    headers = {"Retry-After": str(RETRY_S)} if refused == 503 else None
    return error_response(request, refused, code, detail, errors=errors, headers=headers)


@router.get(
    "",
    responses={
        **_example(200, "A page", {"studies": [_STUDY], "next_cursor": _CURSOR, "notice": _NOTICE}),
        **problems(422),
    },
)
def index(
    services: ServicesDep,
    actor: ActorDep,
    flag: Annotated[FlagWord | None, Query(description="The strongest word on any positive finding.")] = None,
    status: Annotated[StatusWord | None, Query()] = None,
    disagreement: Annotated[bool | None, Query(description="Whether the pair's checkpoints differ.")] = None,
    claimed: Annotated[str, Query(max_length=64, description="Who claimed or read it; `me`, `nobody`.")] = "",
    q: Annotated[
        str, Query(max_length=200, description="Beginnings of words, all to be found: file, patient, ids.")
    ] = "",
    sort: Annotated[Sort, Query(description="Newest first, or flags and disagreements first.")] = Sort.RECEIVED,
    cursor: Annotated[str | None, Query(max_length=400, description="`next_cursor` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = PAGE_ROWS,
) -> StudyList:
    """The worklist, a page at a time."""
    filters = Filters(flag, status, disagreement, claimed, q, sort)
    page = services.studies.worklist.page(filters, actor, cursor, limit)
    return StudyList(studies=page.studies, next_cursor=page.next_cursor)


@router.get("/{study_id}", responses={**_example(200, "The study", _DETAIL), **problems(404, 422)})
def show(services: ServicesDep, actor: ActorDep, study_id: str) -> StudyDetail:
    """One study with its images, and for each image its analyses and where their reviews are."""
    return services.studies.study(study_id, actor)


@router.post("/{study_id}/unaided", status_code=201, responses=problems(403, 404, 409, 422))
def unaided(services: ServicesDep, actor: ActorDep, study_id: str, reading: UnaidedRequest) -> UnaidedRead:
    """Records what you see yourself, where the study asks for it before it shows what checkpoints say.

    Until then its `reference`, `candidate`, `disagreement` and `flag*` are null, and its analyses, their maps and
    reviews answer 409 `read_first`. It is recorded once and cannot be changed; what is left out counts as absent.
    """
    return services.reviews.record_unaided(actor, study_id, reading.findings, reading.comment)
