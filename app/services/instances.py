"""Received radiographs as rows: written once, found by their own id or their study's."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.services.errors import NotFoundError
from app.services.ids import is_id
from app.services.readings import instance_id
from app.tables import InstanceRow, StudyRow, now
from model.radiograph import Radiograph

LATERAL = "lateral_view"


@dataclass(frozen=True)
class Instance:
    """A received radiograph. name: as its sender called it, may hold anything: escape it.

    study_id: None for what was only predicted. predicted: whether the checkpoints read it.
    """

    id: str
    sha256: str
    name: str
    format: str
    width_px: int
    height_px: int
    warnings: tuple[str, ...]
    received_at: str
    thumbnail_sha256: str
    study_id: str | None = None
    view: str = ""
    predicted: bool = True


def of_row(row: InstanceRow) -> Instance:
    """The value of a row."""
    return Instance(
        id=row.id,
        sha256=row.sha256,
        name=row.name,
        format=row.format,
        width_px=row.width_px,
        height_px=row.height_px,
        warnings=tuple(row.warnings),
        received_at=row.received_at.strftime("%Y-%m-%d %H:%M"),
        thumbnail_sha256=row.thumbnail_sha256,
        study_id=row.study_id,
        view=row.view,
        predicted=row.predicted,
    )


def find_row(session: Session, key: str) -> InstanceRow:
    """By an instance's id, or by a study's: then the instance that stands for it, the first that is predicted.

    Raises NotFoundError `unknown_study`.
    """
    known = is_id(key)
    row = session.get(InstanceRow, key) if known else None
    if row is None and known and session.get(StudyRow, key) is not None:
        query = select(InstanceRow).where(InstanceRow.study_id == key)
        order = (InstanceRow.predicted.desc(), InstanceRow.received_at, InstanceRow.id)
        row = session.scalars(query.order_by(*order).limit(1)).first()
    if row is None:
        raise NotFoundError("unknown_study", "There is no such study here.")
    return row


def mark_read(session: Session, key: str, reader: str) -> None:
    """The study of an instance is read, by this person."""
    row = session.get(InstanceRow, key)
    study = session.get(StudyRow, row.study_id, with_for_update=True) if row and row.study_id else None
    if study is not None:
        study.status, study.claimed_by, study.claimed_at = "read", reader, now()


def ensure_row(session: Session, radiograph: Radiograph, size_bytes: int, thumbnail_sha256: str) -> InstanceRow:
    """The radiograph's row, added where it is missing, without a study.

    It is locked: who reads a radiograph and who puts it on the worklist see each other's work. Instances are locked
    before studies.
    """
    row = session.get(InstanceRow, instance_id(radiograph.sha256), with_for_update=True)
    if row is None:
        height, width = radiograph.pixels.shape
        row = InstanceRow(
            id=instance_id(radiograph.sha256),
            sha256=radiograph.sha256,
            name=radiograph.name or "unnamed",
            format=radiograph.format,
            size_bytes=size_bytes,
            width_px=width,
            height_px=height,
            warnings=list(radiograph.warnings),
            thumbnail_sha256=thumbnail_sha256,
            view=radiograph.metadata.get("view", ""),
            predicted=LATERAL not in radiograph.warnings,
        )
        session.add(row)
        session.flush()
    return row
