"""A study as a file: everything that is needed to recompute it, and what readers said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.schemas import Analysis, ChainProof, ExportedImage, SealedRow, StudyExport
from app.services.analyses import AnalysisService
from app.services.chain import timestamp, verify
from app.services.checkpoints import usable_pair
from app.services.comparisons import Comparison, compare
from app.services.errors import NotFoundError
from app.services.instances import Instance
from app.services.readings import code_version
from app.services.reviews import Entry, ReviewService, rows_of
from app.services.users import Actor
from app.tables import ReviewRow
from model.findings import FINDINGS


@dataclass(frozen=True)
class Printout:
    """What the printable page shows. finding: whose heatmaps. entries: what readers said, the oldest first."""

    instance: Instance
    comparison: Comparison
    finding: str
    entries: tuple[Entry, ...]
    exported_at: str
    exported_by: str
    code_version: str
    findings: tuple[str, ...] = FINDINGS

    @property
    def analyses(self) -> list[tuple[str, Analysis]]:
        """The pair's analyses with their roles."""
        both = (("reference", self.comparison.reference), ("candidate", self.comparison.candidate))
        return [(role, analysis) for role, analysis in both if analysis]


class ExportService:
    """Both forms of an export. A reader who owes an unaided read gets neither: ConflictError `read_first`."""

    def __init__(self, analyses: AnalysisService, reviews: ReviewService) -> None:
        self.db = analyses.db
        self.engine = analyses.engine
        self.analyses = analyses
        self.reviews = reviews

    def printout(self, study: str, finding: str | None, actor: Actor) -> Printout:
        """Raises NotFoundError, ConflictError `read_first`, and what reading raises."""
        if finding is not None and finding not in FINDINGS:
            raise NotFoundError("unknown_finding", f"“{finding}” is not one of the 14 findings.")
        instance, analyses = self._read(study, actor)
        comparison = compare(analyses, self.analyses.pair)
        assert comparison is not None  # at least one of the pair has read it
        entries = tuple(self.reviews.of_study(study))
        shown = finding or comparison.default_finding
        return Printout(instance, comparison, shown, entries, timestamp()[:16], actor.name, code_version())

    def document(self, study: str, actor: Actor) -> StudyExport:
        """The same as JSON. Raises as `printout`."""
        instance, analyses = self._read(study, actor)
        with self.db.read() as session:
            report = verify(session, ReviewRow)
            rows = rows_of(session, instance)
            sealed = [SealedRow(document=row.document, previous_hash=row.previous_hash, hash=row.hash) for row in rows]
        cards = {listed.id: listed.card.to_json() for listed in self.engine.checkpoints() if listed.card}
        read_by = dict.fromkeys(one.checkpoint.id for one in analyses)
        return StudyExport(
            exported_at=timestamp(),
            exported_by=actor.name,
            code_version=code_version(),
            study_id=study,
            image=ExportedImage(
                sha256=instance.sha256,
                name=instance.name,
                format=instance.format,
                width_px=instance.width_px,
                height_px=instance.height_px,
                warnings=list(instance.warnings),
            ),
            checkpoints={one: cards[one] for one in read_by if one in cards},
            analyses=list(analyses),
            entries=self.reviews.of_study(study),
            chain=ChainProof(rows=sealed, length=report.length, head=report.head, intact=report.broken is None),
            recompute="overread predict FILE "
            + " ".join(f"--checkpoint {one}" for one in read_by)
            + " --test full --json",
        )

    def _read(self, study: str, actor: Actor) -> tuple[Instance, Sequence[Analysis]]:
        instance = self.analyses.instance(study)
        self.reviews.read_first.refuse_image(instance.id, actor)
        return instance, self.analyses.analyse(instance.id, usable_pair(self.engine, self.analyses.pair))
