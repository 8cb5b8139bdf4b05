"""POST /predictions: a radiograph in, both readings out."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Request, UploadFile

from app.actor import ActorDep, subjects
from app.api.problems import problems
from app.context import GoneDep, ServicesDep
from app.schemas import Prediction, TestLevel
from app.services.readings import instance_id

router = APIRouter(tags=["predictions"])


@router.post("/predictions", responses=problems(403, 404, 409, 413, 415, 422, 503))
def predict(
    request: Request,
    services: ServicesDep,
    actor: ActorDep,
    gone: GoneDep,
    file: Annotated[UploadFile, File(description="A chest radiograph: PNG, JPEG or DICOM.")],
    checkpoint: Annotated[
        list[str], Form(default_factory=list, description="Checkpoints that read; default: the pair.")
    ],
    checkpoint_query: Annotated[
        list[str],
        Query(default_factory=list, alias="checkpoint", description="The same as the form's."),
    ],
    test: Annotated[
        TestLevel,
        Query(description="How far to test positive findings; `full` may take minutes on a CPU."),
    ] = "screen",
) -> Prediction:
    """Reads a radiograph with each checkpoint: 14 probabilities, their operating points, saliency, flags.

    Synchronous. The image is kept, so that its analyses and maps can be fetched later, but is not put on the worklist.
    With `test=full` the full tests that the quick screen asks for are made at once, one request after the other; what
    takes longer than five minutes is answered by 503 `too_slow`, and the same request goes on where it stopped.
    One that is there already, in a study that asks you for your own reading first, is refused with 409 `read_first`.
    """
    data = file.file.read()
    services.read_first.refuse_image(instance_id(hashlib.sha256(data).hexdigest()), actor)
    prediction = services.analyses.predict(data, file.filename or "", [*checkpoint, *checkpoint_query], test, gone)
    subjects(request, *dict.fromkeys(one.instance_id for one in prediction.analyses))
    return prediction
