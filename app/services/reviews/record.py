"""From a request to the document that is sealed, and from a sealed row to what is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from uuid import uuid4

from app.schemas import Analysis, Pins, Reason, Review, ReviewRequest, UnaidedFinding, UnaidedRead, Verdict
from app.services.chain import timestamp
from app.services.readings import code_version
from app.services.users import Actor
from app.services.wording import finding_text
from app.tables import ReviewRow
from model.errors import DataError
from model.findings import FINDINGS

Entry = Review | UnaidedRead
Airai = Literal["accepted", "rejected", "supplemented"]
AIRAI: dict[Verdict, Airai | None] = {
    Verdict.AGREE: "accepted",
    Verdict.DISAGREE: "rejected",
    Verdict.SUPPLEMENT: "supplemented",
    Verdict.UNSURE: None,
}
_SAID = ("verdict", "reason", "comment", "added_findings", "pins")


def review_document(actor: Actor, analysis: Analysis, request: ReviewRequest) -> dict[str, Any]:
    """What will be sealed, but for `supersedes`. Raises DataError for a verdict that does not hold together."""
    if request.finding is not None and request.finding not in FINDINGS:
        raise DataError("unknown_finding", f"“{request.finding}” is not one of the 14 findings.")
    comment = _clean(request.comment, "comment")
    added = added_in_order(_clean(name, "added finding") for name in request.added_findings)
    if request.verdict is Verdict.SUPPLEMENT and not added:
        raise DataError("nothing_added", "To supplement a reading, name at least one finding that you add.")
    if added and request.verdict not in (Verdict.SUPPLEMENT, Verdict.DISAGREE):
        raise DataError("added_without_supplement", "Added findings go with “supplement” or “disagree”.")
    if request.reason is Reason.OTHER and not comment:
        raise DataError("no_comment", "“Another reason” needs a comment that says which.")
    return {
        "kind": "review",
        "id": uuid4().hex,
        "at": timestamp(),
        "reader": {"id": actor.id, "name": actor.name},
        "instance_id": analysis.instance_id,
        "analysis_id": analysis.analysis_id,
        "finding": request.finding,
        "subject": f"{analysis.analysis_id}/{request.finding}" if request.finding else analysis.analysis_id,
        "verdict": request.verdict.value,
        "reason": request.reason.value if request.reason else None,
        "comment": comment,
        "added_findings": added,
        "pins": _pins(analysis, request.finding).model_dump(mode="json"),
        "token": request.token,
    }


def unaided_document(
    actor: Actor, instance_id: str, image_sha256: str, findings: Sequence[UnaidedFinding], comment: str
) -> dict[str, Any]:
    """What will be sealed of an unaided read: all 14 findings; one that is not among `findings` was left open."""
    said = {one.name: one for one in findings}
    unknown = [name for name in said if name not in FINDINGS]
    if unknown:
        raise DataError("unknown_finding", f"“{unknown[0]}” is not one of the 14 findings.")
    every = [said.get(name) or UnaidedFinding(name=name, present=False, confidence=None) for name in FINDINGS]
    return {
        "kind": "unaided",
        "id": uuid4().hex,
        "at": timestamp(),
        "reader": {"id": actor.id, "name": actor.name},
        "instance_id": instance_id,
        "analysis_id": None,
        "subject": instance_id,
        "verdict": None,
        "findings": [one.model_dump(mode="json") for one in every],
        "comment": _clean(comment, "comment"),
        "pins": {"image_sha256": image_sha256, "code_version": code_version()},
        "token": None,
    }


def says_the_same(document: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two reviews of one subject differ in nothing but time."""
    return all(document[name] == other[name] for name in _SAID)


def to_entry(row: ReviewRow, superseded: bool = False) -> Entry:
    """A sealed row as it is shown."""
    document = json.loads(row.document)
    common = {
        "review_id": row.id,
        "sequence": row.sequence,
        "at": row.at,
        "reader": document["reader"]["name"],
        "instance_id": row.instance_id,
        "comment": document["comment"],
        "previous_hash": row.previous_hash,
        "hash": row.hash,
    }
    if row.kind == "unaided":
        return UnaidedRead.model_validate({**common, **document["pins"], "findings": document["findings"]})
    names = ("analysis_id", "finding", "verdict", "reason", "added_findings", "pins", "supersedes")
    said = {name: document[name] for name in names}
    return Review.model_validate(
        {**common, **said, "airai": AIRAI[Verdict(document["verdict"])], "superseded": superseded}
    )


def added_in_order(names: Iterable[str]) -> list[str]:
    """Each once: the 14 findings in their order, in whatever spelling, then the reader's own words."""
    spelled = {finding_text(name).casefold(): name for name in FINDINGS}
    given = list(dict.fromkeys(spelled.get(finding_text(name).casefold(), name) for name in names))
    return [name for name in FINDINGS if name in given] + [name for name in given if name not in FINDINGS]


def _pins(analysis: Analysis, finding: str | None) -> Pins:
    judged = [analysis.finding(finding)] if finding else analysis.findings
    flag = judged[0].flag if finding else None
    if finding and flag is None:
        raise DataError(
            "no_flag", f"{finding_text(finding)} is not positive in this analysis, so it has no flag to judge."
        )
    return Pins(
        image_sha256=analysis.image_sha256,
        checkpoint_id=analysis.checkpoint.id,
        weights_sha256=analysis.checkpoint.weights_sha256,
        code_version=analysis.code_version,
        thresholds={one.name: one.threshold for one in judged},
        probabilities={one.name: one.probability for one in judged},
        flag=flag,
    )


def _clean(text: str, what: str) -> str:
    """Line ends as one, nothing around; no characters that cannot be seen."""
    text = text.replace("\r\n", "\n").strip()
    if any(not character.isprintable() and character not in "\n\t" for character in text):
        raise DataError("control_characters", f"There are characters in the {what} that cannot be shown.")
    return text
