"""The worklist, and what became of uploads."""

from __future__ import annotations

from datetime import date, datetime

from app.schemas.base import Schema
from model.checkpoint import NOTICE


class CalledInfo(Schema):
    """What one checkpoint reports of a study: how many findings, and the most probable of them; null when none."""

    finding: str | None
    probability: float | None
    positives: int


class StudyInfo(Schema):
    """A line of the worklist.

    url: the review page. reference, candidate: null while that checkpoint has not read it. disagreement: null while one
    of them has not. flag: the strongest word on any positive finding, null when there is none; flag_by, flag_finding:
    whose it is, `reference` or `candidate`, and on which finding, where it is suspicious or causal. read_first: these
    six are left out, because the study asks you for your own reading first. received_at: UTC.
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
    flag_by: str | None
    flag_finding: str | None
    read_first: bool = False


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
