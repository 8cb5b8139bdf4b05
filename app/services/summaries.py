"""What the worklist says of a study without opening its analyses: kept in its row, made again when they change."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.inference import InferenceEngine
from app.schemas import Analysis
from app.services.comparisons import compare
from app.services.errors import NotFoundError
from app.services.readings import fingerprint_of
from app.services.stored import load
from app.tables import AnalysisRow, InstanceRow, StudyRow

FLAGS = ("not_calibrated", "no_evidence", "screened", "suspicious", "causal")  # the stronger the later
_PRIORITY = {"no_evidence": 1, "screened": 1, "suspicious": 2, "causal": 3}  # what waits is decided within minutes
_UNDECIDED = {"not_calibrated": "not_calibrated", "screened": "screened", "testing": "screened"}


@dataclass(frozen=True)
class LivePair:
    """The two checkpoints that are compared, with their fingerprints: the same ids may come to mean other readings.

    fingerprints: empty where there is no card.
    """

    reference: str
    candidate: str
    fingerprints: tuple[str, str]

    @property
    def ids(self) -> tuple[str, str]:
        """Reference and candidate, in that order."""
        return self.reference, self.candidate

    @property
    def key(self) -> str:
        """Names the pair in a row."""
        parts = "\0".join([*self.ids, *self.fingerprints])
        return hashlib.sha256(parts.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Called:
    """What one checkpoint reports. finding, probability: the most probable of its positive findings, or None."""

    positives: int
    finding: str | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Summary:
    """Of one study. A checkpoint that has not read it is None; disagreement is None while one of them is. flag_by,
    flag_finding: whose flag it is, `reference` or `candidate`, and on which finding, where it is suspicious or causal:
    the one that the page opens with.
    """

    reference: Called | None = None
    candidate: Called | None = None
    disagreement: bool | None = None
    flag: str | None = None
    flag_by: str | None = None
    flag_finding: str | None = None

    @property
    def priority(self) -> int:
        """What to look at first: the flag, and for equal flags a disagreement of the pair."""
        return 2 * _PRIORITY.get(self.flag or "", 0) + bool(self.disagreement)


def live_pair(engine: InferenceEngine, pair: tuple[str, str]) -> LivePair:
    """The pair with the fingerprints of its present cards."""
    reference, candidate = (_fingerprint(engine, one) for one in pair)
    return LivePair(*pair, (reference, candidate))


def summarise(analyses: Sequence[Analysis], pair: tuple[str, str]) -> Summary:
    """Of the pair's analyses of one study's instances: for each instance and checkpoint the last one counts."""
    instances: dict[str, dict[str, Analysis]] = defaultdict(dict)
    for one in analyses:
        instances[one.instance_id][one.checkpoint.id] = one
    compared = [found for of in instances.values() if (found := compare(list(of.values()), pair))]
    references = [one.reference for one in compared if one.reference]
    candidates = [one.candidate for one in compared if one.candidate]
    both = [one for one in compared if one.reference and one.candidate]
    alarms = [one.first_alarm for one in compared if one.first_alarm]
    by, finding, _ = max(alarms, key=lambda alarm: FLAGS.index(alarm[2]), default=(None, None, None))
    return Summary(
        reference=_called(references),
        candidate=_called(candidates),
        disagreement=any(one.disagreements for one in both) if both else None,
        flag=_strongest([*references, *candidates]),
        flag_by=by,
        flag_finding=finding,
    )


def refresh(session: Session, study_ids: Sequence[str], pair: LivePair) -> None:
    """Writes the studies' summaries from what is stored. For some dozens of ids at a time.

    The studies are locked first, in one order for all: what others store meanwhile is in their summary or in ours.
    """
    locked = select(StudyRow).where(StudyRow.id.in_(study_ids)).order_by(StudyRow.id).with_for_update()
    studies = session.scalars(locked.execution_options(populate_existing=True)).all()
    rows = session.execute(
        select(InstanceRow.study_id, AnalysisRow.id)
        .join(AnalysisRow.instance)
        .where(
            InstanceRow.study_id.in_(study_ids),
            InstanceRow.predicted,
            AnalysisRow.fingerprint.in_([one for one in pair.fingerprints if one]),
        )
        .order_by(AnalysisRow.created_at, AnalysisRow.id)
    )
    keys = [(str(study_id), key) for study_id, key in rows]
    known = load(session, [key for _, key in keys])
    analyses: dict[str, list[Analysis]] = defaultdict(list)
    for study_id, key in keys:
        analyses[study_id].append(known[key])
    for study in studies:
        _apply(study, summarise(analyses[study.id], pair.ids), pair)


def stale(session: Session, pair: LivePair, limit: int) -> list[str]:
    """Ids of studies whose summary is of another pair, or of none."""
    column = StudyRow.summary_pair  # two ranges, because an inequality alone would not use the index
    query = select(StudyRow.id).where(or_(column.is_(None), column < pair.key, column > pair.key))
    return list(session.scalars(query.limit(limit)))


def _apply(study: StudyRow, summary: Summary, pair: LivePair) -> None:
    reference, candidate = summary.reference, summary.candidate
    study.summary_pair = pair.key
    study.reference_positives = reference.positives if reference else None
    study.reference_finding = reference.finding if reference else None
    study.reference_probability = reference.probability if reference else None
    study.candidate_positives = candidate.positives if candidate else None
    study.candidate_finding = candidate.finding if candidate else None
    study.candidate_probability = candidate.probability if candidate else None
    study.disagreement = summary.disagreement
    study.flag, study.flag_by, study.flag_finding = summary.flag, summary.flag_by, summary.flag_finding
    study.priority = summary.priority


def _called(analyses: Sequence[Analysis]) -> Called | None:
    if not analyses:
        return None
    positive: dict[str, float] = {}
    for one in analyses:
        for finding in one.findings:
            if finding.positive:
                positive[finding.name] = max(finding.probability, positive.get(finding.name, 0.0))
    if not positive:
        return Called(0)
    top = max(positive, key=lambda name: positive[name])
    return Called(len(positive), top, positive[top])


def _strongest(analyses: Sequence[Analysis]) -> str | None:
    """A verdict counts over its absence. What waits for a full test is stronger than what needs none; a flag that
    nobody could decide is weaker than any that was decided."""
    flags = [one.flag for of in analyses for one in of.findings if one.flag]
    found = {flag.verdict or _UNDECIDED[flag.state] for flag in flags if flag.state != "not_tested"}
    return max(found, key=FLAGS.index) if found else None


def _fingerprint(engine: InferenceEngine, checkpoint_id: str) -> str:
    try:
        return fingerprint_of(engine.find(checkpoint_id))
    except NotFoundError:
        return ""
