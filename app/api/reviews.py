"""Reviews of an analysis: record a verdict, read the history."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response

from app.actor import ActorDep
from app.api.problems import problems
from app.api.read_first import opened
from app.context import ServicesDep
from app.schemas import Review, ReviewList, ReviewRequest

router = APIRouter(prefix="/analyses", tags=["reviews"], dependencies=[Depends(opened)])


@router.post(
    "/{analysis_id}/reviews",
    status_code=201,
    responses={
        200: {"description": "Recorded before: the same token, or the reader's last word again.", "model": Review},
        **problems(401, 403, 404, 409, 413, 422),
    },
)
def record(
    services: ServicesDep,
    actor: ActorDep,
    response: Response,
    analysis_id: str,
    review: ReviewRequest,
    idempotency_key: Annotated[
        str | None,
        Header(pattern=r"^[A-Za-z0-9._:-]{1,64}$", description="The same as `token`, where a client prefers a header."),
    ] = None,
) -> Review:
    """Records a verdict on an analysis, or on the flag of one of its findings.

    Nothing recorded is ever changed: a new review by the same reader supersedes the earlier one. A request that is sent
    again, with its token or word for word, is recorded once.
    """
    if review.token is None and idempotency_key is not None:
        review = review.model_copy(update={"token": idempotency_key})
    recorded, new = services.reviews.record(actor, analysis_id, review)
    response.status_code = 201 if new else 200
    return recorded


@router.get("/{analysis_id}/reviews", responses=problems(401, 404, 409, 422))
def history(services: ServicesDep, analysis_id: str) -> ReviewList:
    """Everything that readers said of an analysis, the oldest first."""
    return ReviewList(reviews=services.reviews.history(analysis_id))
