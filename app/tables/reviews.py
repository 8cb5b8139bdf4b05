"""What readers said: append-only and hash-chained, guarded by triggers (migration 0004)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base


class ReviewRow(Base):
    """A link of the reviews' chain: a verdict, or an unaided read. `document` is what the hash covers, verbatim.

    hash: SHA-256 of `previous_hash` and `document`. The other columns repeat the document for queries; verification
    compares them. at: ISO 8601 in UTC with microseconds, so that it sorts as text and hashes alike everywhere. subject:
    the analysis' id, with `/FINDING` behind it when the flag of one finding is judged; the instance's id for an unaided
    read. token: the client's own, unique for each reader, so that a repeated request is recorded once.
    """

    __tablename__ = "reviews"

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[str] = mapped_column(String(32), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id"))
    analysis_id: Mapped[str | None] = mapped_column(ForeignKey("analyses.id"))
    subject: Mapped[str] = mapped_column(String(64))
    reader_id: Mapped[str] = mapped_column(String(32))
    verdict: Mapped[str | None] = mapped_column(String(16))
    token: Mapped[str | None] = mapped_column(String(64))
    at: Mapped[str] = mapped_column(String(32))
    document: Mapped[str] = mapped_column(Text)
    previous_hash: Mapped[str] = mapped_column(String(64), unique=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)

    __table_args__ = (
        Index("ix_reviews_instance", "instance_id", "sequence"),
        Index("ix_reviews_subject", "subject", "sequence"),
        UniqueConstraint("reader_id", "token", name="uq_reviews_token"),
    )

    @staticmethod
    def repeated(document: Mapping[str, Any]) -> dict[str, Any]:
        """The columns that a sealed document must have beside it."""
        same = ("id", "kind", "instance_id", "analysis_id", "subject", "verdict", "token", "at")
        return {"reader_id": document["reader"]["id"], **{name: document[name] for name in same}}


class StudyReaderRow(Base):
    """Somebody has said something of an image of a study: what the reviews say, where a list can ask it of each row."""

    __tablename__ = "study_readers"

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id"), primary_key=True)
    reader_id: Mapped[str] = mapped_column(String(32), primary_key=True)

    __table_args__ = ({"sqlite_with_rowid": False},)


class ReadFirstRow(Base):
    """The image on whose page an unaided read was asked for: of every reader, before any prediction of its study."""

    __tablename__ = "read_first"

    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.id"), primary_key=True)
