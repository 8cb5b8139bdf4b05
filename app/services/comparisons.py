"""What the review page shows of the pair's two analyses, put into words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from app.schemas import Analysis, FindingReading
from app.services.wording import finding_text
from model.findings import FINDINGS
from model.words import number

SENTENCES = 3
_STRENGTH = {"suspicious": 1, "causal": 2}
FAR_APART = 0.5  # two probabilities of one finding that say different things, whatever the operating points


@dataclass(frozen=True)
class Row:
    """One finding in both readings; a reading is None when its checkpoint did not read."""

    name: str
    reference: FindingReading | None
    candidate: FindingReading | None

    @property
    def difference(self) -> float | None:
        """Candidate minus reference."""
        if self.reference is None or self.candidate is None:
            return None
        return self.candidate.probability - self.reference.probability

    @property
    def distance(self) -> float:
        """How far the two probabilities lie apart; 0 when only one has read."""
        return abs(self.difference or 0)

    @property
    def differ(self) -> bool:
        """Whether one calls it and the other does not, or both probabilities lie far apart."""
        if self.reference is None or self.candidate is None:
            return False
        return self.reference.positive != self.candidate.positive or self.distance >= FAR_APART

    @property
    def margin(self) -> float:
        """The larger distance of a probability over its operating point."""
        return max(one.probability - one.threshold for one in (self.reference, self.candidate) if one)


@dataclass(frozen=True)
class Comparison:
    """The two readings of one radiograph, and what to say of them first. Either may be missing, not both."""

    reference: Analysis | None
    candidate: Analysis | None
    rows: list[Row]

    @property
    def readings(self) -> list[tuple[str, Analysis]]:
        """Those that have read, by role."""
        pair = (("reference", self.reference), ("candidate", self.candidate))
        return [(role, analysis) for role, analysis in pair if analysis]

    @property
    def flagged(self) -> list[Row]:
        """The findings that the detector has a word on: those that either reading reports."""
        return [row for row in self.rows if any(one.flag for one in (row.reference, row.candidate) if one)]

    @property
    def alarms(self) -> list[tuple[str, str, str]]:
        """Role, finding and verdict of what is suspicious or causal: the strongest first, the candidate before the
        reference."""
        found = [
            (role, one.name, one.flag.verdict)
            for role, analysis in reversed(self.readings)
            for one in analysis.findings
            if one.flag is not None and one.flag.verdict in ("suspicious", "causal")
        ]
        return sorted(found, key=lambda alarm: -_STRENGTH[alarm[2]])

    @property
    def first_alarm(self) -> tuple[str, str, str] | None:
        """Role, finding and verdict of the one that the page opens with, where it is suspicious or causal."""
        return next((alarm for alarm in self.alarms if alarm[1] == self.default_finding), None)

    def words(self, finding: str) -> list[tuple[str, Analysis, FindingReading]]:
        """Role, analysis and reading of those with a word on the finding: the strongest verdict first, the candidate
        where they are alike, since it is the one under suspicion."""
        found = [(role, analysis, analysis.finding(finding)) for role, analysis in reversed(self.readings)]
        said = [(role, analysis, one) for role, analysis, one in found if one.flag is not None]
        return sorted(said, key=lambda word: -_strength(word[2]))

    @property
    def testing(self) -> bool:
        """Whether a full test is still to come by itself."""
        return any(one.flag is not None and one.flag.state == "testing" for one in self._findings)

    @property
    def spots(self) -> dict[str, dict[str, list[tuple[int, int, int, int]]]]:
        """What flags point at, by finding and role: x, y, width, height in source pixels."""
        found: dict[str, dict[str, list[tuple[int, int, int, int]]]] = {}
        for role, analysis in self.readings:
            for one in analysis.findings:
                if one.flag is not None and one.flag.regions_px:
                    found.setdefault(one.name, {})[role] = one.flag.regions_px
        return found

    @property
    def flags_digest(self) -> str:
        """Changes whenever a flag says something else."""
        said = [one.flag.model_dump_json() for one in self._findings if one.flag is not None]
        return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]

    @property
    def _findings(self) -> list[FindingReading]:
        return [one for _, analysis in self.readings for one in analysis.findings]

    @property
    def default_finding(self) -> str:
        """The one with the strongest verdict, that they read most differently, or that stands out most in either."""

        def rank(row: Row) -> tuple[int, float, float]:
            strongest = max(_strength(one) for one in (row.reference, row.candidate) if one)
            return strongest, row.distance if row.distance >= FAR_APART else 0, row.margin

        return max(self.rows, key=rank).name

    @property
    def disagreements(self) -> list[Row]:
        """What they read differently, the largest difference first."""
        return sorted((row for row in self.rows if row.differ), key=lambda row: -row.distance)

    @property
    def sentences(self) -> list[str]:
        """The comparison in words."""
        if self.reference is None or self.candidate is None:
            who = "reference" if self.candidate is None else "candidate"
            return [f"Only the {who} has read this radiograph; there is nothing to compare it with."]
        differing = self.disagreements
        if differing:
            said = [_disagreement(row) for row in differing[:SENTENCES]]
            rest = len(differing) - SENTENCES
            return said + ([f"They differ on {rest} more finding{'s' if rest > 1 else ''}."] if rest > 0 else [])
        both = [row for row in self.rows if row.reference and row.reference.positive]
        if not both:
            return ["Both checkpoints agree: no finding reaches its operating point."]
        named = ", ".join(
            f"{finding_text(row.name)} ({number(row.reference.probability)} and {number(row.candidate.probability)})"
            for row in sorted(both, key=lambda row: -row.margin)
            if row.reference and row.candidate
        )
        return [f"Both checkpoints report {named}."]


def _strength(reading: FindingReading) -> int:
    return _STRENGTH.get((reading.flag and reading.flag.verdict) or "", 0)


def _disagreement(row: Row) -> str:
    assert row.reference and row.candidate
    name = finding_text(row.name)
    (low_role, low), (high_role, high) = sorted(
        [("reference", row.reference), ("candidate", row.candidate)],
        key=lambda one: (one[1].positive, one[1].probability),
    )
    surer, doubter = number(high.probability), number(low.probability)
    if high.positive == low.positive:
        call = "positive" if high.positive else "below their operating points"
        return f"The {high_role} gives {name} {surer}, the {low_role} {doubter}; both are {call}."
    return f"The {high_role} reports {name} ({surer}), the {low_role} does not ({doubter})."


def compare(analyses: Sequence[Analysis], pair: tuple[str, str]) -> Comparison | None:
    """The pair's analyses among these, side by side; None when neither is there."""
    by_id = {one.checkpoint.id: one for one in analyses}
    reference, candidate = by_id.get(pair[0]), by_id.get(pair[1])
    if reference is None and candidate is None:
        return None
    rows = [
        Row(name, reference.finding(name) if reference else None, candidate.finding(name) if candidate else None)
        for name in FINDINGS
    ]
    return Comparison(reference, candidate, rows)
