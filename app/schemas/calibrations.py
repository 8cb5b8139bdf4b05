"""Calibrations of the detector, and what they promise."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.schemas.base import Schema
from model.checkpoint import NOTICE


class AlphaPreview(Schema):
    """What a threshold alpha would do with this calibration.

    decides: whether so many radiographs allow a flag at alpha at all; least: how many it takes. score_threshold: what
    the score of a full test must exceed, null where nothing can be flagged or every tested radiograph would be;
    causal_threshold: to be called causal too, null where that is no more. expected_rate: of alerts among clean
    radiographs, at most; realised_rate: where the true rate lies, 95 %, with so many calibration radiographs. recent,
    recent_flagged: of the worklist's last radiographs, how many would be flagged; stamped, stamped_flagged: the same of
    its stamped samples.
    """

    alpha: float
    decides: bool
    least: int
    score_threshold: float | None
    causal_threshold: float | None
    expected_rate: float
    realised_rate: tuple[float, float]
    recent: int
    recent_flagged: int
    stamped: int
    stamped_flagged: int


class DriftInfo(Schema):
    """Whether the worklist's last p-values are still like those of clean radiographs.

    radiographs: how many were looked at, without samples. waiting: those whose full test is still to come, which are
    not among them. observed: p-values of at most `at`; expected: how many there should be on average. p: chance of so
    many or more. warns: they are too many; either the radiographs have changed or somebody attacks.
    """

    radiographs: int
    waiting: int
    at: float
    observed: int
    expected: float
    p: float
    warns: bool


class CalibrationInfo(Schema):
    """The detector's calibration for one checkpoint.

    state: `calibrated`; `too_few` radiographs for a flag at its alpha; `not_calibrated` for these weights; `unusable`,
    with the reason in `error`. version: changes with everything that decides a flag. current, history: who calibrated,
    when, on which data, with which code; the newest first. tested: scores of the clean radiographs that were tested in
    full, ascending; hard: those of phantoms with true lesions (`current` has their number); screened: falls of the
    logit of clean ones with a positive finding that the screen stopped, ascending; occluded: the largest falls by
    occlusion of those that it handed on and that occlusion stopped. screen_threshold, occlusion_threshold: of those
    falls, null where there is none. Scores are in logits; falls are over the root of the logit's standard deviation
    over clean radiographs. reliability: finding → bins of (mean probability, share that shows it, radiographs).
    stamped_scores, stamped_p: of stamped samples on the worklist, of which stamped_waiting are still to be tested.
    command: calibrates anew.
    """

    checkpoint_id: str
    weights_sha256: str | None
    role: Literal["reference", "candidate"] | None
    state: Literal["calibrated", "too_few", "not_calibrated", "unusable"]
    error: str | None = None
    version: str | None = None
    radiographs: int = 0
    current: dict[str, Any] | None = None
    history: list[dict[str, Any]] = Field(default_factory=list)
    screen_threshold: float | None = None
    occlusion_threshold: float | None = None
    tested: list[float] = Field(default_factory=list)
    hard: list[float] = Field(default_factory=list)
    screened: list[float] = Field(default_factory=list)
    occluded: list[float] = Field(default_factory=list)
    reliability: dict[str, list[tuple[float, float, int]]] = Field(default_factory=dict)
    preview: AlphaPreview | None = None
    drift: DriftInfo | None = None
    stamped_scores: list[float] = Field(default_factory=list)
    stamped_p: list[float] = Field(default_factory=list)
    stamped_waiting: int = 0
    command: str
    notice: str = NOTICE


class CalibrationRequest(Schema):
    """What to calibrate on. dataset: a name of `GET /datasets`, of patients whom the checkpoint was not trained on;
    empty for phantoms, which are right for a checkpoint that was trained on phantoms. images: at most so many, evenly
    spread; flags at 1 % take 99. donors: whom suspicious spots are put onto, `own` patients of the data set or
    `phantoms`; `automatic` takes own ones, if 99 radiographs of others remain.
    """

    dataset: str = Field(default="", max_length=64)
    images: int = Field(default=250, ge=1, le=5000)
    donors: Literal["automatic", "own", "phantoms"] = "automatic"


class CalibrationList(Schema):
    """Every checkpoint's calibration, the pair first; with the figures of each at its own alpha."""

    calibrations: list[CalibrationInfo]
    notice: str = NOTICE
