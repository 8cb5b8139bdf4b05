"""What is on the worklist and not read: one idea of it, for the server's own thread and for the job."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

from sqlalchemy import exists, or_, select

from app.db import Database
from app.inference import InferenceEngine, State
from app.services.readings import default_checkpoints, fingerprint_of
from app.tables import AnalysisRow, InstanceRow


def readers(engine: InferenceEngine, pair: tuple[str, str]) -> dict[str, str]:
    """What reads when nobody chooses, by id, with the fingerprints of its readings; without what has failed."""
    listed = [engine.find(one) for one in default_checkpoints(engine, pair)]
    return {one.id: fingerprint_of(one) for one in listed if one.card and one.state is not State.FAILED}


def unread(
    db: Database,
    fingerprints: Collection[str],
    *,
    seen: bool | None = None,
    without: Collection[str] = (),
    limit: int | None = None,
) -> list[str]:
    """Ids of the worklist's images that lack a reading by one of these, the newest first; none where nothing reads.

    seen: True for those alone that something has read before, False for those that nothing ever has. without: ids to
    leave out.
    """
    if not fingerprints:
        return []
    any_reading = exists().where(AnalysisRow.instance_id == InstanceRow.id)
    query = select(InstanceRow.id).where(
        InstanceRow.study_id.is_not(None),
        InstanceRow.predicted,
        or_(*(~any_reading.where(AnalysisRow.fingerprint == one, AnalysisRow.screened) for one in fingerprints)),
    )
    if seen is not None:
        query = query.where(any_reading if seen else ~any_reading)
    query = query.order_by(InstanceRow.received_at.desc(), InstanceRow.id)
    with db.read() as session:
        ids = session.scalars(query.execution_options(yield_per=500))
        return list(islice((one for one in ids if one not in without), limit))
