"""What people say of readings, and what is exported of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from app.schemas.analyses import Analysis, Flag
from app.schemas.base import Schema
from model.checkpoint import NOTICE


class Verdict(StrEnum):
    """What a reader says of an analysis or of a flag."""

    AGREE = "agree"
    DISAGREE = "disagree"
    SUPPLEMENT = "supplement"
    UNSURE = "unsure"


class Reason(StrEnum):
    """Why, from a short list."""

    FINDING_ABSENT = "finding_absent"
    FINDING_MISSED = "finding_missed"
    WRONG_PLACE = "wrong_place"
    NOT_ANATOMY = "not_anatomy"
    IMAGE_QUALITY = "image_quality"
    NEEDS_CONTEXT = "needs_context"
    OTHER = "other"


class ReviewRequest(Schema):
    """A verdict to record. It cannot be changed afterwards; a new one by the same reader supersedes it.

    finding: the positive finding whose flag is judged; null judges the whole analysis. added_findings: what the reader
    sees beside, names of the 14 or own words. token: any word of the client's own; the same one again is the same
    review. comment: for colleagues; without names or patient data, because nothing recorded can be removed.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"verdict": "disagree", "reason": "not_anatomy", "comment": "The map sits on a dark square."},
                {"verdict": "supplement", "added_findings": ["Nodule"], "token": "6c1f-1"},
            ]
        }
    )

    verdict: Verdict
    finding: str | None = Field(default=None, max_length=32)
    reason: Reason | None = None
    comment: str = Field(default="", max_length=2000)
    added_findings: list[Annotated[str, StringConstraints(min_length=1, max_length=64)]] = Field(
        default_factory=list, max_length=20
    )
    token: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._:-]{1,64}$")


class Pins(Schema):
    """What exactly was judged. thresholds, probabilities: by finding. flag: the judged flag as it was then."""

    image_sha256: str
    checkpoint_id: str
    weights_sha256: str
    code_version: str
    thresholds: dict[str, float]
    probabilities: dict[str, float]
    flag: Flag | None


class Review(Schema):
    """A recorded verdict.

    airai: the same in the words of IHE's AI Result Assessment; null for `unsure`, which it has no word for. supersedes:
    the reader's earlier review of the same; superseded: whether there is a later one. hash: SHA-256 of previous_hash
    and the canonical JSON of what was recorded, see the study's export.
    """

    kind: Literal["review"] = "review"
    review_id: str
    sequence: int
    at: str
    reader: str
    instance_id: str
    analysis_id: str
    finding: str | None
    verdict: Verdict
    airai: Literal["accepted", "rejected", "supplemented"] | None
    reason: Reason | None
    comment: str
    added_findings: list[str]
    pins: Pins
    supersedes: str | None
    superseded: bool
    previous_hash: str
    hash: str
    notice: str = NOTICE


class ReviewList(Schema):
    """An analysis' reviews, the oldest first."""

    reviews: list[Review]
    notice: str = NOTICE


class UnaidedFinding(Schema):
    """One finding as the reader saw it before any prediction. confidence: null where it was left open."""

    name: str
    present: bool
    confidence: Literal["definite", "probable"] | None


class UnaidedRequest(Schema):
    """What a reader sees before any prediction is shown. findings: those that are said something of."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"findings": [{"name": "Mass", "present": True, "confidence": "probable"}]}]}
    )

    findings: list[UnaidedFinding] = Field(default_factory=list, max_length=14)
    comment: str = Field(default="", max_length=2000)


class UnaidedRead(Schema):
    """A reader's own reading of a radiograph, recorded before any prediction was shown."""

    kind: Literal["unaided"] = "unaided"
    review_id: str
    sequence: int
    at: str
    reader: str
    instance_id: str
    image_sha256: str
    code_version: str
    findings: list[UnaidedFinding]
    comment: str
    previous_hash: str
    hash: str


class ExportedImage(Schema):
    """The radiograph. name: as its sender called it."""

    sha256: str
    name: str
    format: str
    width_px: int
    height_px: int
    warnings: list[str]


class SealedRow(Schema):
    """A link of the reviews' chain, verbatim: hash = SHA-256(previous_hash + document), both as UTF-8."""

    document: str
    previous_hash: str
    hash: str


class ChainProof(Schema):
    """This study's links. length, head: of the whole chain when this was written, intact: whether all of it held.

    `overread audit verify --anchor HEAD` tells whether the chain still contains what it contained then.
    """

    rows: list[SealedRow]
    length: int
    head: str
    intact: bool


class StudyExport(Schema):
    """Everything that is needed to recompute a study's readings, and what readers said of them.

    checkpoints: the cards by id, with operating points, preprocessing and the weights' SHA-256. recompute: the command
    that gives the same numbers from the file.
    """

    exported_at: str
    exported_by: str
    code_version: str
    study_id: str
    image: ExportedImage
    checkpoints: dict[str, dict[str, Any]]
    analyses: list[Analysis]
    entries: list[Review | UnaidedRead]
    chain: ChainProof
    recompute: str
    notice: str = NOTICE
