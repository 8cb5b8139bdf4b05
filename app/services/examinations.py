"""Full tests: what waits for one, making it, and keeping what it found.

A test's outcome is written once: by whoever is first, the worker's job or a request that asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import Any

import numpy as np
from sqlalchemy import CursorResult, select, update
from sqlalchemy.orm import Session

from app.blobs import BlobStore
from app.db import Database
from app.inference import Examination, InferenceEngine
from app.schemas import Analysis, Flag
from app.services.errors import NotFoundError, UnavailableError
from app.services.flags import smallest_p, with_flags
from app.services.ids import is_id
from app.services.images import png
from app.services.readings import final_flags
from app.services.summaries import LivePair, refresh
from app.tables import AnalysisRow, ExaminationRow, InstanceRow, JobRow, now
from model.detector import Proof
from model.errors import CheckpointError

SEEN, ERASED = "seen", "erased"


def waiting(db: Database, fingerprints: Collection[str], limit: int) -> list[str]:
    """Ids of the worklist's analyses by these fingerprints that no job was ever asked to test, the newest first."""
    query = (
        select(AnalysisRow.id)
        .join(AnalysisRow.instance)
        .where(
            AnalysisRow.owes_test,
            AnalysisRow.fingerprint.in_(fingerprints),
            AnalysisRow.test_job.is_(None),
            InstanceRow.study_id.is_not(None),
        )
        .order_by(AnalysisRow.created_at.desc(), AnalysisRow.id)
        .limit(limit)
    )
    with db.read() as session:
        return list(session.scalars(query))


def strongest_first(db: Database, keys: Sequence[str]) -> list[str]:
    """The same ids, those first whose calls fell furthest in the quick screen, so that the likeliest flag is seen
    first; then those that are not known, which are none's."""

    def fall(document: str) -> float:
        try:
            flags = [one.flag for one in Analysis.model_validate_json(document).findings if one.flag is not None]
        except ValueError:  # its own test says what is wrong with it
            return 0.0
        return max((flag.screen_fall or 0.0 for flag in flags if flag.state == "screened"), default=0.0)

    with db.read() as session:
        query = select(AnalysisRow.id, AnalysisRow.document).where(AnalysisRow.id.in_(keys))
        falls = {row.id: fall(row.document) for row in session.execute(query)}
    return sorted(keys, key=lambda key: -falls.get(key, -inf))


class ExaminationService:
    """Makes full tests with an engine, and keeps what they find. pair: gives the live pair, for the worklist."""

    def __init__(self, db: Database, blobs: BlobStore, engine: InferenceEngine, pair: Callable[[], LivePair]) -> None:
        self.db = db
        self.blobs = blobs
        self.engine = engine
        self.pair = pair

    def owed(self, keys: Sequence[str]) -> list[str]:
        """Which of these analyses wait for a full test, in their order."""
        with self.db.read() as session:
            query = select(AnalysisRow.id).where(AnalysisRow.id.in_(keys), AnalysisRow.owes_test)
            found = set(session.scalars(query))
        return [key for key in keys if key in found]

    def jobs(self, keys: Sequence[str]) -> dict[str, str]:
        """By analysis that waits for a full test, the state of the job that was last asked to make it."""
        query = select(AnalysisRow.id, JobRow.state).join(JobRow, JobRow.id == AnalysisRow.test_job)
        with self.db.read() as session:
            rows = session.execute(query.where(AnalysisRow.id.in_(keys), AnalysisRow.owes_test))
            return {row.id: row.state for row in rows}

    def examine(self, analysis: Analysis, grey: np.ndarray, meanwhile: Callable[[], None], wait_s: float) -> bool:
        """Tests an analysis in full and keeps the outcome; False where somebody else was first.

        grey: H×W float32 in 0..1. meanwhile: as for `InferenceEngine.examine`, whose errors this raises,
        UnavailableError `bad_calibration`, and what `keep` raises.
        """
        try:
            found = self.engine.examine(analysis.checkpoint.id, grey, meanwhile, wait_s)
        except CheckpointError as error:  # the donors that its calibration names are gone
            raise UnavailableError(error.code, str(error)) from error
        return self.keep(analysis, found)

    def keep(self, analysis: Analysis, found: Examination) -> bool:
        """Blobs first, then the row that names them, once; False where somebody else was first.

        Raises BusyError `recalibrated` for a test that was made with another calibration than the analysis.
        """
        flags = final_flags(analysis, found)
        proofs = {name: self._store(proof, found, flags[name]) for name, proof in found.proofs.items()}
        p_value = smallest_p(with_flags(analysis, flags))
        pair = self.pair()

        def write(session: Session) -> bool:
            key = analysis.analysis_id
            change = update(AnalysisRow).where(AnalysisRow.id == key, AnalysisRow.owes_test)
            values = {"owes_test": False, "p_value": p_value}
            done = session.execute(change.values(values).execution_options(synchronize_session=False))
            assert isinstance(done, CursorResult)
            if done.rowcount != 1:
                return False
            kept = {name: flag.model_dump(mode="json", exclude={"proof"}) for name, flag in flags.items()}
            session.add(ExaminationRow(analysis_id=key, flags=kept, proofs=proofs, examined_at=now()))
            session.flush()
            instance = session.get(InstanceRow, analysis.instance_id)
            if instance is not None and instance.study_id is not None:
                refresh(session, [instance.study_id], pair)
            return True

        return self.db.write_again(write)

    def picture(self, analysis_id: str, finding: str, kind: str) -> bytes:
        """A proof's PNG. Raises NotFoundError `unknown_analysis`, `no_proof`, `blob_missing`."""
        with self.db.read() as session:
            if not is_id(analysis_id) or session.get(AnalysisRow, analysis_id) is None:
                raise NotFoundError("unknown_analysis", "There is no such analysis here.")
            row = session.get(ExaminationRow, analysis_id)
            pictures = row.proofs.get(finding, []) if row else []
        for one in pictures:
            if one["kind"] == kind:
                return self.blobs.get(one["sha256"])
        raise NotFoundError("no_proof", "No full test of this finding has left such a picture.")

    def _store(self, proof: Proof, found: Examination, flag: Flag) -> list[dict[str, Any]]:
        assert flag.evidence is not None and flag.details is not None  # there is no proof without a full test
        probability = flag.details["probability"]
        somebody = "phantom" if proof.phantoms else "patient"
        images = [
            (SEEN, "this", np.rint(found.seen * 255).astype(np.uint8), probability, probability),
            (ERASED, "this", proof.erased, probability, flag.evidence.probability_erased),
            *(
                (f"donor-{i + 1}", somebody, image, proof.before[i], proof.after[i])
                for i, image in enumerate(proof.transplanted)
            ),
        ]
        return [
            {"kind": kind, "of": whose, "sha256": self.blobs.put(png(image)), "before": before, "after": after}
            for kind, whose, image, before, after in images
        ]
