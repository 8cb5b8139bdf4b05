"""What a job is about: the studies, the run or the checkpoint, as far as a reader may know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from app.db import Database
from app.jobs import Job
from app.services.read_first import ReadFirst
from app.services.users import Actor
from app.tables import AnalysisRow, InstanceRow, StudyRow

NAMED = 3  # studies of a job; the others are told by its progress
_LOOKED_AT = 8  # of a job's images: a list of jobs is asked for every two seconds


@dataclass(frozen=True)
class Concern:
    """One thing that a job is about. url: its page."""

    words: str
    url: str


@dataclass(frozen=True)
class Concerns:
    """Of one job. more: whether it is about others too, which are not named."""

    named: tuple[Concern, ...] = ()
    more: bool = False


def concerns(db: Database, read_first: ReadFirst, jobs: Sequence[Job], actor: Actor) -> dict[str, Concerns]:
    """By job. Studies that this reader owes an unaided reading of are not named."""
    found = {job.id: Concerns((_other(job),)) for job in jobs if job.kind in ("calibrate", "experiment")}
    images = {job.id: list(job.spec["instances"]) for job in jobs if job.kind == "reanalyse"}
    analyses = {job.id: list(job.spec["analyses"]) for job in jobs if job.kind == "examine"}
    if not images and not analyses:
        return found
    of_image = select(InstanceRow.id, StudyRow.id, StudyRow.title).join(InstanceRow.study)
    of_analysis = select(AnalysisRow.id, StudyRow.id, StudyRow.title).join(AnalysisRow.instance).join(InstanceRow.study)
    with db.read() as session:
        owed = read_first.owed(session, actor)
        for ids, query, key in ((images, of_image, InstanceRow.id), (analyses, of_analysis, AnalysisRow.id)):
            if owed is not None:
                query = query.where(~owed)
            wanted = {one for several in ids.values() for one in several[:_LOOKED_AT]}
            rows = session.execute(query.where(key.in_(wanted))).all() if wanted else []
            studies = {of: Concern(title, f"/studies/{study}") for of, study, title in rows}
            found |= {job: _studies(several, studies) for job, several in ids.items()}
    return found


def _studies(ids: Sequence[str], studies: Mapping[str, Concern]) -> Concerns:
    known = list(dict.fromkeys(studies[one] for one in ids[:_LOOKED_AT] if one in studies))
    named = tuple(known[:NAMED])
    return Concerns(named, bool(named) and any(studies.get(one) not in named for one in ids))


def _other(job: Job) -> Concern:
    if job.kind == "calibrate":
        checkpoint = job.spec["checkpoint"]
        return Concern(f"{checkpoint} on {job.spec['dataset'] or 'phantoms'}", f"/calibration?checkpoint={checkpoint}")
    config = job.spec["config"]
    return Concern(f"{config['name']}, seed {config['seed']}", f"/experiments/{job.spec['experiment']}")
