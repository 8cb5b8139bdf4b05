"""What is stored. Files' bytes are blobs (app/blobs.py); the rows hold their SHA-256."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import DateTime


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Constraints have names, so that migrations can change them on every database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


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
