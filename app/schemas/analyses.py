"""A radiograph read by a checkpoint."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from app.schemas.base import Schema
from model.checkpoint import NOTICE

TestLevel = Literal["none", "screen", "full"]


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
