"""POST /predictions: a radiograph in, both readings out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Request, UploadFile

from app.actor import subjects
from app.api.problems import problems
from app.context import ServicesDep
from app.schemas import Prediction, TestLevel

router = APIRouter(tags=["predictions"])


@router.post("/predictions", responses=problems(403, 404, 413, 415, 422, 503))
def predict(
    request: Request,
    services: ServicesDep,
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
        Query(description="How far to test positive findings; alike until a detector is calibrated."),
    ] = "screen",
) -> Prediction:
    """Reads a radiograph with each checkpoint: 14 probabilities, their operating points, saliency, flags.

    Synchronous. The image is kept, so that its analyses and maps can be fetched later, but is not put on the worklist.
    """
    prediction = services.analyses.predict(file.file.read(), file.filename or "", [*checkpoint, *checkpoint_query])
    subjects(request, *dict.fromkeys(one.instance_id for one in prediction.analyses))
    return prediction
