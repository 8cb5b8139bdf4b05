"""Study ⊃ series ⊃ instance, and what checkpoints said of the instances."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.types import DateTime

from app.tables.base import Base, now

_BYTEWISE = String(64).with_variant(String(64, collation="C"), "postgresql")


class StudyRow(Base):
    """A line of the worklist. A PNG is a study with one instance, and has that instance's id.

    format, thumbnail_sha256, title: of the instance that stands for the study. source: upload, sample, api. status:
    unread, in_progress, read.

    The summary repeats the analyses of the live pair, so that a list opens no analysis: summary_pair names the pair
    and its fingerprints (null: not summarised yet); *_positives counts the positive findings and is null while that
    checkpoint has not read; *_finding and *_probability are the most probable of them. disagreement is null while one
    of the two is missing. flag is the strongest of both, flag_by and flag_finding whose verdict it is and on which
    finding. priority orders a list by flag and disagreement.
    """

    __tablename__ = "studies"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    study_instance_uid: Mapped[str | None] = mapped_column(String(64), unique=True)
    patient_id: Mapped[str] = mapped_column(String(64), default="")
    patient_name: Mapped[str] = mapped_column(String(64), default="")
    study_date: Mapped[date | None]
    description: Mapped[str] = mapped_column(String(64), default="")
    title: Mapped[str] = mapped_column(String(255))
    format: Mapped[str] = mapped_column(String(16))
    thumbnail_sha256: Mapped[str] = mapped_column(String(64))
    instance_count: Mapped[int] = mapped_column(default=0)
    source: Mapped[str] = mapped_column(String(16))
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    status: Mapped[str] = mapped_column(String(16), default="unread")
    claimed_by: Mapped[str | None] = mapped_column(String(64))
    claimed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    summary_pair: Mapped[str | None] = mapped_column(String(32))
    reference_finding: Mapped[str | None] = mapped_column(String(32))
    reference_probability: Mapped[float | None]
    reference_positives: Mapped[int | None]
    candidate_finding: Mapped[str | None] = mapped_column(String(32))
    candidate_probability: Mapped[float | None]
    candidate_positives: Mapped[int | None]
    disagreement: Mapped[bool | None]
    flag: Mapped[str | None] = mapped_column(String(16))
    flag_by: Mapped[str | None] = mapped_column(String(16))
    flag_finding: Mapped[str | None] = mapped_column(String(32))
    priority: Mapped[int] = mapped_column(default=0)
    instances: Mapped[list[InstanceRow]] = relationship(
        back_populates="study", order_by="InstanceRow.received_at, InstanceRow.id"
    )

    __table_args__ = (
        Index("ix_studies_received", "received_at", "id"),
        Index("ix_studies_priority", "priority", "received_at", "id"),
        Index("ix_studies_status", "status", "received_at", "id"),
        Index("ix_studies_status_priority", "status", "priority", "received_at", "id"),
        Index("ix_studies_flag", "flag", "received_at", "id"),
        Index("ix_studies_disagreement", "disagreement", "received_at", "id"),
        Index("ix_studies_claimed_by", "claimed_by", "received_at", "id"),
        Index("ix_studies_claimed_by_priority", "claimed_by", "priority", "received_at", "id"),
        Index("ix_studies_summary_pair", "summary_pair"),
    )


class StudyWordRow(Base):
    """A word under which a search finds a study, in lower case. Compared byte by byte, so that a range is a prefix."""

    __tablename__ = "study_words"

    word: Mapped[str] = mapped_column(_BYTEWISE, primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"), primary_key=True)

    __table_args__ = (Index("ix_study_words_study", "study_id", "word"),)


class InstanceRow(Base):
    """A received radiograph. The id is the start of the file's SHA-256: the same file is the same instance.

    study_id is null for what was only predicted, off the worklist; so is sop_instance_uid then, because only within the
    worklist must one UID mean one image. predicted: whether checkpoints read it; a lateral view is kept and shown.
    """

    __tablename__ = "instances"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(255))
    format: Mapped[str] = mapped_column(String(16))
    size_bytes: Mapped[int]
    width_px: Mapped[int]
    height_px: Mapped[int]
    warnings: Mapped[list[str]] = mapped_column(JSON)
    thumbnail_sha256: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    study_id: Mapped[str | None] = mapped_column(ForeignKey("studies.id"))
    series_instance_uid: Mapped[str | None] = mapped_column(String(64))
    sop_instance_uid: Mapped[str | None] = mapped_column(String(64), unique=True)
    view: Mapped[str] = mapped_column(String(64), default="")
    predicted: Mapped[bool] = mapped_column(default=True)
    study: Mapped[StudyRow | None] = relationship(back_populates="instances")
    analyses: Mapped[list[AnalysisRow]] = relationship(back_populates="instance", order_by="AnalysisRow.created_at")

    __table_args__ = (Index("ix_instances_study", "study_id", "received_at", "id"),)


class AnalysisRow(Base):
    """An instance read by one checkpoint. `document` is the JSON answer; `saliency` the raw grids behind it.

    fingerprint: of the card, the calibration and the code that read, app.services.readings; empty for what was read
    before it was kept. saliency: float32 little-endian, the middle layer's 14×h×w and then the last layer's,
    un-normalised.

    screened: whether the document has the detector's quick word; it never has more: what a full test finds is an
    ExaminationRow. owes_test: the screen asked for a full test that has not been made. test_job: the job that was last
    asked to make it. p_value: the smallest of its findings, 1 without a positive one, null until all are decided.
    """

    __tablename__ = "analyses"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id"))
    checkpoint_id: Mapped[str] = mapped_column(String(64))
    weights_sha256: Mapped[str] = mapped_column(String(64))
    fingerprint: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    document: Mapped[str] = mapped_column(Text)
    saliency: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    screened: Mapped[bool] = mapped_column(default=False)
    owes_test: Mapped[bool] = mapped_column(default=False)
    test_job: Mapped[str | None] = mapped_column(String(32))
    p_value: Mapped[float | None]
    instance: Mapped[InstanceRow] = relationship(back_populates="analyses")

    __table_args__ = (
        Index("ix_analyses_instance", "instance_id", "fingerprint"),
        Index("ix_analyses_newest", "fingerprint", "created_at", "p_value"),
        Index("ix_analyses_owes_test", "owes_test", "fingerprint"),
    )


class ExaminationRow(Base):
    """What a full test found in one analysis; written once. flags: by finding, the flags as the answer has them.

    proofs: by finding, the pictures' kinds, whose they are, their SHA-256, and the probabilities before and after.
    """

    __tablename__ = "examinations"

    analysis_id: Mapped[str] = mapped_column(ForeignKey("analyses.id"), primary_key=True)
    examined_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    flags: Mapped[dict[str, Any]] = mapped_column(JSON)
    proofs: Mapped[dict[str, list[dict[str, Any]]]] = mapped_column(JSON)
