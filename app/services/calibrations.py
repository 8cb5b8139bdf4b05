"""What is known of the detector's calibrations, and how the radiographs of this worklist compare with them."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import Database
from app.inference import InferenceEngine, Listed, calibration_version
from app.schemas import AlphaPreview, CalibrationInfo, DriftInfo
from app.services.read_first import ReadFirst
from app.services.readings import fingerprint_of
from app.services.users import Actor
from app.tables import AnalysisRow, ExaminationRow, InstanceRow, StudyRow
from model.detector import Calibration, drift, realised_rate_interval
from model.detector.calibration import finite_or_none
from model.detector.conformal import DRIFT_AT, allowed

LAST = 500  # radiographs that drift is looked for in
_STAMPED = "%stamped%"  # the samples' own names
State = Literal["calibrated", "too_few", "not_calibrated", "unusable"]


@dataclass(frozen=True)
class _Seen:
    """What one checkpoint made of this worklist. p_values: of the last radiographs, newest first, without samples.

    waiting: radiographs whose full test is still to come. stamped: (p, score of the full test or None) of the stamped
    samples, where the checkpoint knows the trigger; stamped_waiting: how many of them are still to be tested.
    """

    p_values: tuple[float, ...]
    waiting: int
    stamped: tuple[tuple[float, float | None], ...]
    stamped_waiting: int


class CalibrationService:
    """Reads only: `overread calibrate` writes, and the engine takes up what it wrote.

    Studies that a reader owes an unaided reading of count as if they were not there: a count may tell of the only one.
    """

    def __init__(self, db: Database, engine: InferenceEngine, read_first: ReadFirst) -> None:
        self.db = db
        self.engine = engine
        self.read_first = read_first

    def every(self, pair: tuple[str, str], actor: Actor) -> list[CalibrationInfo]:
        """Of all checkpoints, the pair first."""
        ids = list(dict.fromkeys(listed.id for listed in self.engine.checkpoints()))
        order = {one: i for i, one in enumerate(pair)}
        return [self.one(key, pair, actor) for key in sorted(ids, key=lambda key: order.get(key, len(order)))]

    def one(
        self, checkpoint_id: str, pair: tuple[str, str], actor: Actor, alpha: float | None = None
    ) -> CalibrationInfo:
        """Of one checkpoint. alpha: to preview, its own by default. Raises NotFoundError `unknown_checkpoint`."""
        listed = self.engine.find(checkpoint_id)
        role: Literal["reference", "candidate"] | None = (
            "reference" if listed.id == pair[0] else "candidate" if listed.id == pair[1] else None
        )
        info = CalibrationInfo(
            checkpoint_id=listed.id,
            weights_sha256=listed.card.weights_sha256 if listed.card else None,
            role=role,
            state=_state(listed),
            error=listed.calibration_error or listed.error or None,
            command=f"overread calibrate --checkpoint {listed.id} --data FOLDER --by NAME",
        )
        calibration = listed.calibration
        if calibration is None:
            return info
        reference = calibration.reference
        seen = self._seen(
            fingerprint_of(listed), actor, attacked=listed.card is not None and listed.card.trigger is not None
        )
        stamped = [p for p, _ in seen.stamped]
        return info.model_copy(
            update={
                "version": calibration_version(calibration),
                "radiographs": reference.n,
                "current": calibration.summary(),
                "history": [dict(one) for one in calibration.history],
                "screen_threshold": finite_or_none(reference.threshold),
                "occlusion_threshold": finite_or_none(reference.occlusion_threshold),
                "tested": list(reference.tested),
                "hard": list(reference.hard),
                "screened": list(reference.screened),
                "occluded": list(reference.occluded),
                "reliability": {name: list(bins) for name, bins in calibration.reliability.items()},
                "preview": preview(
                    calibration, alpha or calibration.alpha, seen.p_values, [p for p, _ in seen.stamped]
                ),
                "drift": _drift(calibration, seen),
                "stamped_scores": sorted(score for _, score in seen.stamped if score is not None),
                "stamped_p": sorted(stamped),
                "stamped_waiting": seen.stamped_waiting,
            }
        )

    def _seen(self, fingerprint: str, actor: Actor, attacked: bool) -> _Seen:
        with self.db.read() as session:
            return self._of(session, fingerprint, actor, attacked)

    def _of(self, session: Session, fingerprint: str, actor: Actor, attacked: bool) -> _Seen:
        owed = self.read_first.owed(session, actor)
        mine = (
            select(AnalysisRow.id)
            .join(AnalysisRow.instance)
            .join(InstanceRow.study)
            .where(AnalysisRow.fingerprint == fingerprint)
        )
        if owed is not None:
            mine = mine.where(~owed)
        own = mine.where(StudyRow.source != "sample")
        decided = own.with_only_columns(AnalysisRow.p_value).where(AnalysisRow.p_value.is_not(None))
        newest = decided.order_by(AnalysisRow.created_at.desc()).limit(LAST)
        waiting = own.with_only_columns(func.count(), maintain_column_froms=True).where(AnalysisRow.owes_test)
        samples = (
            mine.with_only_columns(
                AnalysisRow.p_value, ExaminationRow.flags, AnalysisRow.owes_test, maintain_column_froms=True
            )
            .outerjoin(ExaminationRow, ExaminationRow.analysis_id == AnalysisRow.id)
            .where(StudyRow.source == "sample", InstanceRow.name.like(_STAMPED))
        )
        stamped = list(session.execute(samples)) if attacked else []
        return _Seen(
            tuple(p for p in session.scalars(newest) if p is not None),
            session.scalar(waiting) or 0,
            tuple((p, _score(flags)) for p, flags, _ in stamped if p is not None),
            sum(owes for _, _, owes in stamped),
        )


def preview(calibration: Calibration, alpha: float, recent: Sequence[float], stamped: Sequence[float]) -> AlphaPreview:
    """What alpha would do. recent, stamped: p-values of radiographs of this worklist."""
    n = calibration.reference.n
    at = replace(calibration, alpha=alpha)
    return AlphaPreview(
        alpha=alpha,
        decides=at.decides,
        least=max(1, math.ceil(1 / alpha - 1e-9) - 1),
        score_threshold=at.score_threshold,
        causal_threshold=at.causal_threshold,
        expected_rate=allowed(n, alpha) / (n + 1),
        realised_rate=realised_rate_interval(n, alpha),
        recent=len(recent),
        recent_flagged=_flagged(recent, calibration, alpha),
        stamped=len(stamped),
        stamped_flagged=_flagged(stamped, calibration, alpha),
    )


def _flagged(p_values: Sequence[float], calibration: Calibration, alpha: float) -> int:
    """How many would be flagged at alpha: of those alone whose score is positive, as the detector does."""
    most = min(alpha, calibration.reference.p_tested(sys.float_info.min))
    return sum(p <= most + 1e-9 for p in p_values)


def _drift(calibration: Calibration, seen: _Seen) -> DriftInfo:
    found = drift(seen.p_values, calibration.reference.n, min(DRIFT_AT, calibration.share_tested))
    return DriftInfo(
        radiographs=found.n,
        waiting=seen.waiting,
        at=found.at,
        observed=found.observed,
        expected=found.expected,
        p=found.p,
        warns=found.warns,
    )


def _score(flags: dict[str, dict[str, object]] | None) -> float | None:
    """The largest score of a full test's findings."""
    details = [one.get("details") for one in (flags or {}).values()]
    return max((float(one["score"]) for one in details if isinstance(one, dict) and "score" in one), default=None)


def _state(listed: Listed) -> State:
    if listed.calibration is not None:
        return "calibrated" if listed.calibration.decides else "too_few"
    return "unusable" if listed.calibration_error or listed.card is None else "not_calibrated"
