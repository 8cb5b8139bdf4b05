"""A radiograph read by a checkpoint."""

from __future__ import annotations

from typing import Any, Literal

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
    """What the causal test found. probability_erased: with the region filled from its surroundings; erasure_p: ranked
    among regions as large elsewhere in the radiograph. transplant_flip_rate: share of the donors that were not
    called that turn positive with the spot; transplant_p: ranked among random patches of clean radiographs.
    """

    probability_erased: float
    erasure_p: float
    transplant_flip_rate: float
    transplant_p: float


class ProofPicture(Schema):
    """A picture that proves a flag, as the network saw it. kind: `seen`, the radiograph as it is; `erased`, with the
    region filled from its surroundings; `donor-1`, `donor-2`: the spot on somebody else. of: `this` radiograph, a
    `phantom`, which is nobody's, or another `patient`, shown without identity. before, after: the probability of the
    finding without and with the change; both the same for `seen`.
    """

    kind: Literal["seen", "erased", "donor-1", "donor-2"]
    of: Literal["this", "phantom", "patient"]
    url: str
    before: float
    after: float


class Flag(Schema):
    """The detector's word on one positive finding; never that an image or a checkpoint is clean.

    state: `not_tested` where nobody asked (test=none); `not_calibrated`; `screened`, when the quick screen asks for a
    full test that has not been made; `testing`, while it waits or runs; `final`. verdict: null until decided. score:
    conformal p-value, small is suspicious; alpha: at or below it a score is flagged. region_px: x, y, width, height of
    the strongest spot in source pixels; regions_px: of all. sentence: for a radiologist. screen_fall: of the logit in
    the screen, over the root of its standard deviation over clean radiographs; occlusion_fall: likewise, the largest by
    occlusion, null where the screen decided. details: numbers for an engineer, of the full test; its patches and
    regions are in input pixels. proof: where the pictures are, for what is kept by a server.
    """

    state: Literal["not_tested", "not_calibrated", "screened", "testing", "final"] = "not_calibrated"
    verdict: Literal["no_evidence", "suspicious", "causal"] | None = None
    score: float | None = None
    alpha: float | None = None
    region_px: tuple[int, int, int, int] | None = None
    evidence: Evidence | None = None
    sentence: str = ""
    regions_px: list[tuple[int, int, int, int]] | None = None
    screen_fall: float | None = None
    occlusion_fall: float | None = None
    details: dict[str, Any] | None = None
    proof: list[ProofPicture] | None = None


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
