"""Who did what: append-only and hash-chained, guarded by triggers (migration 0004)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base


class AuditRow(Base):
    """A link of the audit's chain. hash, at: as in ReviewRow.

    actor: the name that was signed in. action: a stable word such as `study.read`. subject: an id, or empty. Nothing
    of a patient is in here: ids are content hashes, names and file names stay in the studies' own tables.
    """

    __tablename__ = "audit_events"

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[str] = mapped_column(String(32))
    actor: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(64))
    document: Mapped[str] = mapped_column(Text)
    previous_hash: Mapped[str] = mapped_column(String(64), unique=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)

    __table_args__ = (
        Index("ix_audit_events_at", "at"),
        Index("ix_audit_events_actor", "actor", "sequence"),
        Index("ix_audit_events_action", "action", "sequence"),
    )

    @staticmethod
    def repeated(document: Mapping[str, Any]) -> dict[str, Any]:
        """The columns that a sealed document must have beside it."""
        return {name: document[name] for name in ("at", "actor", "action", "subject")}
