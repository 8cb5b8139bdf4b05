"""JSON in and out: DESIGN's contract. Every answer says what it is for."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model.checkpoint import NOTICE

TestLevel = Literal["none", "screen", "full"]


class Schema(BaseModel):
    """Values: frozen, and closed to keys that the contract does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckpointRef(Schema):
    """Which network read."""

    id: str
    weights_sha256: str


class ImageInfo(Schema):
    """The radiograph that was read, in its own pixels, and the network's view of it.

    input_map: source = input × scale + offset per axis, pixel edges to pixel edges; size_px is the input's side.
    """

    width_px: int
    height_px: int
    input_map: dict[str, float]


class LayerInfo(Schema):
    """A layer that was explained. grid: rows and columns of its saliency maps."""

    name: str
    grid: tuple[int, int]


class SaliencyRef(Schema):
    """Where a saliency map is. peak: its largest value, un-normalised, comparable within one layer."""

    url: str
    peak: float


class Evidence(Schema):
    """What the causal test found."""

    probability_erased: float
    erasure_p: float
    transplant_flip_rate: float
    transplant_p: float


class Flag(Schema):
    """The detector's word on one positive finding. verdict is null until decided; `score` is a conformal p-value."""

    state: Literal["not_calibrated", "screened", "testing", "final"] = "not_calibrated"
    verdict: Literal["no_evidence", "suspicious", "causal"] | None = None
    score: float | None = None
    alpha: float | None = None
    region_px: tuple[int, int, int, int] | None = None
    evidence: Evidence | None = None


class FindingReading(Schema):
    """One finding. positive: probability ≥ threshold, the checkpoint's operating point. flag: null if not positive."""

    name: str
    probability: float = Field(ge=0, le=1)
    threshold: float = Field(ge=0, le=1)
    positive: bool
    saliency: dict[Literal["middle", "last"], SaliencyRef]
    flag: Flag | None


class Analysis(Schema):
    """An instance read by one checkpoint."""

    analysis_id: str
    instance_id: str
    image_sha256: str
    image: ImageInfo
    checkpoint: CheckpointRef
    layers: dict[Literal["middle", "last"], LayerInfo]
    findings: list[FindingReading]
    code_version: str
    notice: str = NOTICE

    def finding(self, name: str) -> FindingReading:
        """One finding by name. Raises KeyError."""
        for finding in self.findings:
            if finding.name == name:
                return finding
        raise KeyError(name)


class Prediction(Schema):
    """The answer to a radiograph. warnings: what was odd about the file, as stable words for programs."""

    analyses: list[Analysis]
    warnings: list[str]
    notice: str = NOTICE


class StageInfo(Schema):
    """A convolutional stage of the network that can be explained.

    grid: rows and columns of its maps at the checkpoint's input size. channels: feature maps. depth: share of the
    network's weighted layers up to it. role: set for the two that Overread explains.
    """

    name: str
    grid: tuple[int, int]
    channels: int
    depth: float
    role: Literal["middle", "last"] | None


class CheckpointInfo(Schema):
    """An entry of the registry.

    card: the whole card.json, null when it cannot be read. error: why it failed. stages: of one checkpoint that was
    asked for alone, null in a list.
    """

    id: str
    state: Literal["loading", "ready", "failed"]
    role: Literal["reference", "candidate"] | None
    title: str | None
    weights_sha256: str | None
    error: str | None
    card: dict[str, Any] | None
    layers: dict[Literal["middle", "last"], str]
    stages: list[StageInfo] | None = None
    notice: str = NOTICE


class CheckpointList(Schema):
    """The registry."""

    checkpoints: list[CheckpointInfo]
    notice: str = NOTICE


class CalledInfo(Schema):
    """What one checkpoint reports of a study: how many findings, and the most probable of them; null when none."""

    finding: str | None
    probability: float | None
    positives: int


class StudyInfo(Schema):
    """A line of the worklist.

    url: the review page. reference, candidate: null while that checkpoint has not read it. disagreement: null while one
    of them has not. flag: the strongest word on any positive finding, null when there is none. received_at: UTC.
    """

    id: str
    url: str
    title: str
    format: str
    instance_count: int
    study_instance_uid: str | None
    patient_id: str
    patient_name: str
    study_date: date | None
    description: str
    source: str
    received_at: datetime
    status: str
    claimed_by: str | None
    claimed_at: datetime | None
    reference: CalledInfo | None
    candidate: CalledInfo | None
    disagreement: bool | None
    flag: str | None


class StudyList(Schema):
    """A page of the worklist. next_cursor: of the page that follows, null on the last."""

    studies: list[StudyInfo]
    next_cursor: str | None
    notice: str = NOTICE


class AnalysisRef(Schema):
    """An analysis of an instance, the newest of one checkpoint and its weights."""

    analysis_id: str
    checkpoint_id: str
    weights_sha256: str
    url: str
    reviews_url: str


class InstanceInfo(Schema):
    """An image of a study. view: as its file says. why_not_predicted: in words, for what no checkpoint reads."""

    id: str
    name: str
    format: str
    image_sha256: str
    width_px: int
    height_px: int
    series_instance_uid: str | None
    sop_instance_uid: str | None
    view: str
    warnings: list[str]
    predicted: bool
    why_not_predicted: str | None = None
    analyses: list[AnalysisRef]


class StudyDetail(StudyInfo):
    """One study with its images."""

    instances: list[InstanceInfo]
    notice: str = NOTICE


class UploadProblem(Schema):
    """Why a file was refused. code: a stable word for programs; detail: a sentence for people."""

    code: str
    detail: str


class UploadResult(Schema):
    """What became of one file. status: 201 taken, 200 there already, 4xx refused with a problem."""

    file: str
    status: int
    study_id: str | None = None
    instance_id: str | None = None
    url: str | None = None
    duplicate: bool | None = None
    predicted: bool | None = None
    warnings: list[str] | None = None
    problem: UploadProblem | None = None


class UploadResults(Schema):
    """Each file answers for itself, in the order in which they were sent."""

    results: list[UploadResult]
    notice: str = NOTICE


class Problem(BaseModel):
    """An error (RFC 9457). code: a stable word for programs; detail: a sentence for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[dict[str, Any]] | None = None
