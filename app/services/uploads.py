"""Several files at once, each answering for itself: the same for the page and the API."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from app.schemas import UploadProblem, UploadResult
from app.services.studies import Received, Source, StudyService
from model.errors import OverreadError
from model.radiograph.image import base_name

log = logging.getLogger("overread")
RETRY_S = 5  # after which a file for which there was no room may come again


def receive_all(
    studies: StudyService,
    files: Sequence[tuple[str, Callable[[], bytes]]],
    source: Source,
    status_of: Callable[[OverreadError], int],
    read: Callable[[str], None],
) -> list[UploadResult]:
    """Takes what can be taken. One file's bytes are in memory at a time; whatever happens over one, the others answer.

    files: names and readers. status_of: what a refusal is called in the answer. read: has a new image read, by its id.
    """
    results = []
    for name, content in files:
        shown = base_name(name) or "unnamed"
        try:
            received = studies.receive(content(), name, source)
        except OverreadError as error:
            problem = UploadProblem(code=error.code, detail=str(error))
            results.append(UploadResult(file=shown, status=status_of(error), problem=problem))
            continue
        except Exception:  # a full disk, a database that is away
            log.exception("An upload could not be stored")
            problem = UploadProblem(code="not_stored", detail="The server could not store this file; its log says why.")
            results.append(UploadResult(file=shown, status=503, problem=problem))
            continue
        if not received.duplicate and received.predicted:
            read(received.instance_id)
        results.append(_taken(shown, received))
    return results


def refusal(results: Sequence[UploadResult]) -> int | None:
    """The status when every file was refused: theirs where they agree, else 422; None when one was taken."""
    statuses = {one.status for one in results}
    if any(one.problem is None for one in results):
        return None
    return statuses.pop() if len(statuses) == 1 else 422


def _taken(shown: str, received: Received) -> UploadResult:
    return UploadResult(
        file=shown,
        status=200 if received.duplicate else 201,
        study_id=received.study_id,
        instance_id=received.instance_id,
        # The page of this very image: a study that it joins opens with the image that came first.
        url=f"/studies/{received.instance_id if received.predicted else received.study_id}",
        duplicate=received.duplicate,
        predicted=received.predicted,
        warnings=list(received.warnings),
    )
