"""Stored analyses with all that is known of their flags by now: the screen's word, a full test's, or that it runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.schemas import Analysis, Flag, ProofPicture
from app.services.flags import being_tested, with_flags
from app.tables import AnalysisRow, ExaminationRow, JobRow

RUNNING = ("queued", "running")


def load(session: Session, keys: Collection[str]) -> dict[str, Analysis]:
    """Analyses by id with all that is known of their flags by now; those that are not here are left out."""
    query = (
        select(AnalysisRow.id, AnalysisRow.document, AnalysisRow.owes_test, ExaminationRow, JobRow.state)
        .outerjoin(ExaminationRow, ExaminationRow.analysis_id == AnalysisRow.id)
        .outerjoin(JobRow, JobRow.id == AnalysisRow.test_job)
        .where(AnalysisRow.id.in_(keys))
    )
    return {
        key: completed(Analysis.model_validate_json(document), examination, owes and state in RUNNING)
        for key, document, owes, examination, state in session.execute(query)
    }


def completed(analysis: Analysis, examination: ExaminationRow | None, testing: bool) -> Analysis:
    """With the full test's flags, where there was one; else with the word that it is being made."""
    if examination is None:
        return being_tested(analysis) if testing else analysis
    return with_flags(analysis, kept_flags(examination))


def kept_flags(examination: ExaminationRow) -> dict[str, Flag]:
    """What a full test found, with the addresses of its pictures."""
    return {
        name: Flag.model_validate({**said, "proof": _pictures(examination, name)})
        for name, said in examination.flags.items()
    }


def flags_of(session: Session, keys: Collection[str]) -> dict[str, dict[str, Flag]]:
    """What full tests found, by analysis."""
    rows = session.scalars(select(ExaminationRow).where(ExaminationRow.analysis_id.in_(keys)))
    return {row.analysis_id: kept_flags(row) for row in rows}


def _pictures(examination: ExaminationRow, finding: str) -> list[ProofPicture] | None:
    shown: Sequence[Mapping[str, Any]] = examination.proofs.get(finding, [])
    base = f"/api/v1/analyses/{examination.analysis_id}/proofs/{finding}"
    return [
        ProofPicture(
            kind=one["kind"],
            of=one["of"],
            url=f"{base}/{one['kind']}.png",
            before=one["before"],
            after=one["after"],
        )
        for one in shown
    ] or None
