"""Received radiographs, and what checkpoints said of them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.types import DateTime

from app.tables.base import Base, now


class InstanceRow(Base):
    """A received radiograph. The id is the start of the file's SHA-256: the same file is the same instance."""

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
    on_worklist: Mapped[bool] = mapped_column(default=False)
    analyses: Mapped[list[AnalysisRow]] = relationship(back_populates="instance", order_by="AnalysisRow.created_at")

    __table_args__ = (Index("ix_instances_worklist", "on_worklist", "received_at", "id"),)


class AnalysisRow(Base):
    """An instance read by one checkpoint. `document` is the JSON answer; `saliency` the raw grids behind it.

    saliency: float32 little-endian, the middle layer's 14×h×w and then the last layer's, un-normalised.
    """

    __tablename__ = "analyses"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id"))
    checkpoint_id: Mapped[str] = mapped_column(String(64))
    weights_sha256: Mapped[str] = mapped_column(String(64))
    code_version: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    document: Mapped[str] = mapped_column(Text)
    saliency: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    instance: Mapped[InstanceRow] = relationship(back_populates="analyses")

    __table_args__ = (Index("ix_analyses_instance", "instance_id", "checkpoint_id"),)
