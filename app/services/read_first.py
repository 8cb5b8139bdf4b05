"""The read-first lock: readers record what they see themselves before they are shown what checkpoints say.

A study is locked, not an image: what checkpoints say of one of its images tells what they say of the next. One unaided
reading of the study opens all of it, for its reader alone. Off the worklist an image stands for itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Select, and_, delete, exists, select
from sqlalchemy.orm import Session

from app.db import Database
from app.services.errors import ConflictError
from app.services.ids import is_id
from app.services.instances import Instance
from app.services.users import Actor
from app.tables import AnalysisRow, InstanceRow, ReadFirstRow, ReviewRow, StudyReaderRow, StudyRow


class ReadFirst:
    """Who owes an unaided reading of what: whoever shows predictions asks here first. always: every study is locked."""

    def __init__(self, db: Database, always: bool = False) -> None:
        self.db = db
        self.always = always

    def asked(self, session: Session, image: InstanceRow) -> bool:
        """Whether readers of this image's study are asked for an unaided reading."""
        if self.always and image.study_id is not None:
            return True
        query = select(ReadFirstRow).where(ReadFirstRow.instance_id.in_(images_of(image)))
        return session.scalars(query.limit(1)).first() is not None

    def owes(self, session: Session, image: InstanceRow, actor: Actor) -> bool:
        """Whoever has said anything of the study has either read it unaided or seen the predictions."""
        if not self.asked(session, image):
            return False
        query = select(ReviewRow.sequence).where(
            ReviewRow.instance_id.in_(images_of(image)), ReviewRow.reader_id == actor.id
        )
        return session.scalars(query.limit(1)).first() is None

    def owed(self, session: Session, actor: Actor) -> ColumnElement[bool] | None:
        """The condition on StudyRow that this reader owes a reading of it; None where no study is locked."""
        # Asked of each row as it comes, by its key: the list needs some dozens, and a reader may have said thousands.
        said = exists().where(StudyReaderRow.study_id == StudyRow.id, StudyReaderRow.reader_id == actor.id)
        if self.always:
            return ~said
        asked = select(InstanceRow.study_id).join(ReadFirstRow, ReadFirstRow.instance_id == InstanceRow.id)
        asked = asked.where(InstanceRow.study_id.is_not(None))
        return and_(StudyRow.id.in_(asked), ~said) if session.scalars(asked.limit(1)).first() else None

    def owes_any(self, actor: Actor) -> bool:
        """Whether there is any study that this reader owes a reading of."""
        with self.db.read() as session:
            owed = self.owed(session, actor)
            return owed is not None and session.scalars(select(StudyRow.id).where(owed).limit(1)).first() is not None

    def refuse(self, session: Session, image: InstanceRow, actor: Actor) -> None:
        """Raises ConflictError `read_first` for a reader who owes an unaided reading."""
        if self.owes(session, image, actor):
            raise ConflictError(
                "read_first", "Record your own reading of this study first; then you can see what the checkpoints say."
            )

    def refuse_image(self, instance_id: str, actor: Actor) -> None:
        """The same for an image by its id, if it is here."""
        with self.db.read() as session:
            image = session.get(InstanceRow, instance_id) if is_id(instance_id) else None
            if image is not None:
                self.refuse(session, image, actor)

    def refuse_analysis(self, analysis_id: str, actor: Actor) -> None:
        """The same for an analysis by its id, if it is here."""
        if not is_id(analysis_id):
            return
        query = select(InstanceRow).join(AnalysisRow.instance).where(AnalysisRow.id == analysis_id)
        with self.db.read() as session:
            image = session.scalars(query).first()
            if image is not None:
                self.refuse(session, image, actor)

    def set(self, session: Session, image: InstanceRow, wanted: bool, actor: Actor) -> bool:
        """Locks the study, or opens it to everybody; gives whether that changed anything.

        Raises ConflictError `read_first` for who would open it without having read it.
        """
        rows = ReadFirstRow.instance_id.in_(images_of(image))
        if wanted == (session.scalars(select(ReadFirstRow).where(rows).limit(1)).first() is not None):
            return False
        if wanted:
            session.add(ReadFirstRow(instance_id=image.id))
        else:
            self.refuse(session, image, actor)
            session.execute(delete(ReadFirstRow).where(rows).execution_options(synchronize_session=False))
        return True


def note_reader(session: Session, image: InstanceRow, reader_id: str) -> None:
    """Writes down that the reader has said something of the image's study, if it is in one."""
    if image.study_id is not None:
        session.merge(StudyReaderRow(study_id=image.study_id, reader_id=reader_id))


def note_joined(session: Session, image: InstanceRow) -> None:
    """The same for everybody who had said something of an image before it became part of a study."""
    said = select(ReviewRow.reader_id).where(ReviewRow.instance_id == image.id).distinct()
    for reader_id in session.scalars(said).all():
        note_reader(session, image, reader_id)


def images_of(image: InstanceRow | Instance) -> Select[str] | Sequence[str]:
    """Ids of the images of its study; of itself alone off the worklist."""
    if image.study_id is None:
        return [image.id]
    return select(InstanceRow.id).where(InstanceRow.study_id == image.study_id)
