"""What the review page shows of decisions: what can be judged, what was said, and the unaided read beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.schemas import Analysis, Reason, ReviewRequest, UnaidedRead, Verdict
from app.services.reviews.record import Entry
from app.services.wording import finding_text
from model.findings import FINDINGS
from model.words import number

_ROLES = ("reference", "candidate")


@dataclass(frozen=True)
class Subject:
    """Something to judge. value: the analysis' id, with `/FINDING` behind it for the flag of one finding."""

    value: str
    label: str


@dataclass(frozen=True)
class Said:
    """One finding as the reader saw it unaided, and as the checkpoints call it. A call is None where none has read."""

    name: str
    reader: str
    reference: str | None
    candidate: str | None
    differ: bool


@dataclass(frozen=True)
class Panel:
    """Everything that `_decision.html` and `_history.html` need, as one value `panel`.

    study: the image's id. locked: this reader owes an unaided read of its study first; the page then shows no
    prediction, and `subjects`, `said` and `history` are empty. read_first: the study asks every reader for one;
    by_server: because the server always does. history: the newest first. token: fresh, so that a form sent twice is
    recorded once. draft, error: what was sent and refused, and why. open_fields: for an unaided read that was refused,
    the choice by finding.
    """

    study: str
    locked: bool
    read_first: bool
    by_server: bool
    subjects: tuple[Subject, ...]
    history: tuple[Entry, ...]
    said: tuple[Said, ...]
    token: str
    draft: ReviewRequest | None = None
    chosen: str = ""
    error: str = ""
    open_fields: dict[str, str] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = tuple(Verdict)
    reasons: tuple[Reason, ...] = tuple(Reason)
    findings: tuple[str, ...] = FINDINGS


def subjects(pair: Sequence[Analysis | None]) -> tuple[Subject, ...]:
    """The candidate first, because it is the one under suspicion: its whole reading, then each of its flags."""
    found: list[Subject] = []
    for role, analysis in reversed(list(zip(_ROLES, pair, strict=True))):
        if analysis is None:
            continue
        found.append(Subject(analysis.analysis_id, f"{role.capitalize()}: the whole reading"))
        found += [
            Subject(f"{analysis.analysis_id}/{one.name}", f"{role.capitalize()}: {finding_text(one.name)} and its flag")
            for one in analysis.findings
            if one.flag
        ]
    return tuple(found)


def said(unaided: UnaidedRead, pair: Sequence[Analysis | None]) -> tuple[Said, ...]:
    """The findings that the reader or a checkpoint calls, side by side; those where they differ come first."""
    rows = []
    for one in unaided.findings:
        readings = [analysis.finding(one.name) if analysis else None for analysis in pair]
        positives = [reading.positive for reading in readings if reading]
        if not one.present and not any(positives):
            continue
        calls = [
            f"{'positive' if reading.positive else 'below'} ({number(reading.probability)})" if reading else None
            for reading in readings
        ]
        sure = f" ({one.confidence})" if one.confidence else ""
        reader = f"{'present' if one.present else 'absent'}{sure}"
        rows.append(Said(one.name, reader, calls[0], calls[1], any(call != one.present for call in positives)))
    return tuple(sorted(rows, key=lambda row: not row.differ))
