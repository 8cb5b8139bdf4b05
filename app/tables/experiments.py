"""Experiments and sweeps: what was asked for. How far each is, and what came of it, is its job's to say."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import DateTime

from app.tables.base import Base, now


class SweepRow(Base):
    """Experiments that differ in a few values. grid: the name of what varies → its values, in order."""

    __tablename__ = "sweeps"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    grid: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    created_by: Mapped[str] = mapped_column(String(64))

    __table_args__ = (Index("ix_sweeps_created", "created_at", "id"),)


class ExperimentRow(Base):
    """One run of one configuration; its files are in `experiments/ID` of the data folder.

    config: as `model.config.ExperimentConfig` dumps it. dataset: the name of a folder that the settings know, empty for
    phantoms alone. preset: what it was made from, for people. cell: of a sweep, what varies → this one's value.
    """

    __tablename__ = "experiments"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    dataset: Mapped[str] = mapped_column(String(64), default="")
    preset: Mapped[str] = mapped_column(String(64), default="")
    cell: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=now)
    created_by: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    sweep_id: Mapped[str | None] = mapped_column(ForeignKey("sweeps.id"), index=True)

    __table_args__ = (Index("ix_experiments_created", "created_at", "id"),)
