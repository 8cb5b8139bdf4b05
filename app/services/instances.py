"""Received radiographs as rows: written once, found by their own id or their study's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.services.errors import NotFoundError
from app.services.readings import instance_id
from app.tables import InstanceRow, StudyRow
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
    known = re.fullmatch(r"[0-9a-f]{32}", key)
    row = session.get(InstanceRow, key) if known else None
    if row is None and known and session.get(StudyRow, key) is not None:
        query = select(InstanceRow).where(InstanceRow.study_id == key)
        order = (InstanceRow.predicted.desc(), InstanceRow.received_at, InstanceRow.id)
        row = session.scalars(query.order_by(*order).limit(1)).first()
    if row is None:
        raise NotFoundError("unknown_study", "There is no such study here.")
    return row


def ensure_row(session: Session, radiograph: Radiograph, size_bytes: int, thumbnail_sha256: str) -> InstanceRow:
    """The radiograph's row, added where it is missing, without a study."""
    row = session.get(InstanceRow, instance_id(radiograph.sha256))
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
    return row
