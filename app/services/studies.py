"""Receiving radiographs into studies, and who reads which.

The methods own their transactions. A received file is stored whole or not at all: what refuses it does so before a blob
is written, and the rows of study and instance come in one transaction after the blobs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.blobs import BlobStore
from app.db import Database
from app.decoding import Decoder
from app.schemas import AnalysisRef, InstanceInfo, StudyDetail, StudyInfo
from app.services.errors import ConflictError, NotFoundError
from app.services.ids import is_id
from app.services.images import THUMBNAIL_PX, grey8, png
from app.services.instances import LATERAL, Instance, ensure_row, of_row
from app.services.read_first import note_joined
from app.services.search import words_of
from app.services.summaries import LivePair, refresh, stale
from app.services.users import Actor
from app.services.wording import warning_text
from app.services.worklist import Worklist
from app.tables import AnalysisRow, InstanceRow, StudyRow, StudyWordRow, now
from model.radiograph import Identity, Radiograph

Source = Literal["upload", "sample", "api"]
_REFRESHED_AT_ONCE = 25


@dataclass(frozen=True)
class Received:
    """A file that was taken. duplicate: it was there already. predicted: whether checkpoints will read it.

    warnings: what was odd about the file, as stable words.
    """

    study_id: str
    instance_id: str
    title: str
    duplicate: bool
    predicted: bool
    warnings: tuple[str, ...]


class StudyService:
    """Everything that pages, API and samples do with studies."""

    def __init__(
        self,
        db: Database,
        blobs: BlobStore,
        pair: Callable[[], LivePair],
        max_pixels: int,
        decoder: Decoder,
        worklist: Worklist,
    ) -> None:
        """pair: gives the live pair. decoder: confined processes that read uploads. worklist: the studies as a list."""
        self.db = db
        self.worklist = worklist
        self.blobs = blobs
        self.pair = pair
        self.max_pixels = max_pixels
        self._decoder = decoder

    def receive(self, data: bytes, name: str, source: Source = "upload") -> Received:
        """Puts a file on the worklist, unread. The same file again is the same instance.

        DICOM files with one Study Instance UID join one study; a lateral view is kept there and not predicted.

        Raises RadiographError, and ConflictError `sop_instance_uid_conflict` for an image that calls itself by the UID
        of another one.
        """
        radiograph, identity = self._decode(data, name)
        with self.db.read() as session:
            _refuse_conflict(session, radiograph, identity)
        thumbnail = self.blobs.put(png(grey8(radiograph, THUMBNAIL_PX)))
        self.blobs.put(data)
        pair = self.pair()

        def write(session: Session) -> Received:
            _refuse_conflict(session, radiograph, identity)
            row = ensure_row(session, radiograph, len(data), thumbnail)
            duplicate = row.study_id is not None
            if not duplicate:
                _join(session, row, identity, source)
                refresh(session, [str(row.study_id)], pair)  # it may have been predicted before
            return Received(str(row.study_id), row.id, row.name, duplicate, row.predicted, tuple(radiograph.warnings))

        return self.db.write_again(write)

    def _decode(self, data: bytes, name: str) -> tuple[Radiograph, Identity]:
        decoded = self._decoder.decode(data, name, max_pixels=self.max_pixels, lateral=True)
        return decoded.radiograph, decoded.identity

    def is_empty(self) -> bool:
        """Whether no radiograph was ever received."""
        with self.db.read() as session:
            return session.scalars(select(InstanceRow.id).limit(1)).first() is None

    def study(self, study_id: str, actor: Actor) -> StudyDetail:
        """One study with its instances and their newest analyses. Raises NotFoundError `unknown_study`."""
        with self.db.read() as session:
            row = _study(session, study_id)
            instances = [_instance_info(session, one) for one in row.instances]
            return StudyDetail(**self.worklist.line(session, row, actor).info.model_dump(), instances=instances)

    def instances(self, study_id: str) -> list[Instance]:
        """A study's images, in the order in which they came. Raises NotFoundError `unknown_study`."""
        with self.db.read() as session:
            rows = sorted(_study(session, study_id).instances, key=lambda row: (row.received_at, row.id))
            return [of_row(row) for row in rows]

    def claim(self, study_id: str, actor: Actor) -> StudyInfo:
        """Marks a study as being read by somebody; again by the same changes nothing.

        Raises NotFoundError `unknown_study`, ConflictError `claimed_by_other`.
        """
        with self.db.write() as session:
            row = _study(session, study_id, lock=True)
            if row.claimed_by not in (None, actor.name):
                raise ConflictError("claimed_by_other", f"“{row.title}” is claimed by {row.claimed_by} already.")
            if row.claimed_by is None:
                row.claimed_by, row.claimed_at = actor.name, now()
                row.status = "in_progress" if row.status == "unread" else row.status
            return self.worklist.line(session, row, actor).info

    def release(self, study_id: str, actor: Actor) -> StudyInfo:
        """Gives a claimed study back; one that was read stays read.

        Raises NotFoundError `unknown_study`, ConflictError `claimed_by_other`.
        """
        with self.db.write() as session:
            row = _study(session, study_id, lock=True)
            if row.claimed_by not in (None, actor.name):
                raise ConflictError("claimed_by_other", f"Only {row.claimed_by} can release “{row.title}”.")
            row.claimed_by = row.claimed_at = None
            row.status = "unread" if row.status == "in_progress" else row.status
            return self.worklist.line(session, row, actor).info

    def refresh_summaries(self, study_ids: Sequence[str]) -> None:
        """Makes the worklist's summaries of these studies anew from the stored analyses of the live pair."""
        pair = self.pair()
        for start in range(0, len(study_ids), _REFRESHED_AT_ONCE):
            with self.db.write() as session:
                refresh(session, study_ids[start : start + _REFRESHED_AT_ONCE], pair)

    def stale_summaries(self, limit: int) -> list[str]:
        """Ids of studies whose summary is not of the live pair: `refresh_summaries` them, and ask again."""
        pair = self.pair()
        with self.db.read() as session:
            return stale(session, pair, limit)


def _refuse_conflict(session: Session, radiograph: Radiograph, identity: Identity) -> None:
    """PS3.5 9: one UID names one image. Raises ConflictError `sop_instance_uid_conflict`."""
    if not identity.sop_instance_uid:
        return
    query = select(InstanceRow).where(InstanceRow.sop_instance_uid == identity.sop_instance_uid)
    other = session.scalars(query).first()
    if other is not None and other.sha256 != radiograph.sha256:
        raise ConflictError(
            "sop_instance_uid_conflict",
            f"This file and “{other.name}”, which is here already, have the same SOP Instance UID but different "
            "contents, so one of them was changed without a new UID. It was not taken; send the original.",
        )


def _join(session: Session, row: InstanceRow, identity: Identity, source: Source) -> None:
    """Makes the instance a part of its study, which begins with it where there is none yet.

    The study is locked, so that images that come at once are all counted.
    """
    study_id = _study_id(identity, row)
    study = session.get(StudyRow, study_id, with_for_update=True)
    if study is None:
        study = StudyRow(
            id=study_id,
            study_instance_uid=identity.study_instance_uid or None,
            patient_id=identity.patient_id,
            patient_name=identity.patient_name,
            study_date=identity.study_date,
            description=identity.description,
            title=row.name,
            format=row.format,
            thumbnail_sha256=row.thumbnail_sha256,
            instance_count=0,
            source=source,
            received_at=row.received_at or now(),
            status="unread",
            priority=0,
        )
        session.add(study)
        session.flush()
    elif row.predicted and not any(one.predicted for one in study.instances):  # a frontal view stands for the study
        study.title, study.thumbnail_sha256 = row.name, row.thumbnail_sha256
    row.study_id = study.id
    row.series_instance_uid = identity.series_instance_uid or None
    row.sop_instance_uid = identity.sop_instance_uid or None
    study.instance_count += 1
    note_joined(session, row)
    texts = (row.name, row.id, study.id, study.patient_id, study.patient_name, study.description)
    uids = (identity.study_instance_uid, identity.sop_instance_uid)
    words = words_of((*texts, *uids))
    there = session.scalars(
        select(StudyWordRow.word).where(StudyWordRow.study_id == study.id, StudyWordRow.word.in_(words))
    ).all()
    session.add_all(StudyWordRow(word=word, study_id=study.id) for word in words if word not in there)
    session.flush()


def _study_id(identity: Identity, row: InstanceRow) -> str:
    """The same study has the same address on every machine; a file without a Study Instance UID is one of its own."""
    if not identity.study_instance_uid:
        return row.id
    return hashlib.sha256(f"study {identity.study_instance_uid}".encode()).hexdigest()[:32]


def _study(session: Session, study_id: str, lock: bool = False) -> StudyRow:
    row = session.get(StudyRow, study_id, with_for_update=lock) if is_id(study_id) else None
    if row is None:
        raise NotFoundError("unknown_study", "There is no such study here.")
    return row


def _instance_info(session: Session, row: InstanceRow) -> InstanceInfo:
    columns = (AnalysisRow.id, AnalysisRow.checkpoint_id, AnalysisRow.weights_sha256)
    query = select(*columns).where(AnalysisRow.instance_id == row.id)
    newest = {
        (checkpoint, weights): key
        for key, checkpoint, weights in session.execute(query.order_by(AnalysisRow.created_at, AnalysisRow.id))
    }
    return InstanceInfo(
        id=row.id,
        name=row.name,
        format=row.format,
        image_sha256=row.sha256,
        width_px=row.width_px,
        height_px=row.height_px,
        series_instance_uid=row.series_instance_uid,
        sop_instance_uid=row.sop_instance_uid,
        view=row.view,
        warnings=row.warnings,
        predicted=row.predicted,
        why_not_predicted=None if row.predicted else warning_text(LATERAL),
        analyses=[
            AnalysisRef(
                analysis_id=key,
                checkpoint_id=checkpoint,
                weights_sha256=weights,
                url=f"/api/v1/analyses/{key}",
                reviews_url=f"/api/v1/analyses/{key}/reviews",
            )
            for (checkpoint, weights), key in newest.items()
        ],
    )
