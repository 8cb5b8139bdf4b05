"""What the page says of a flag, once there is a detector: rendered from the schema's own values."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.schemas import Analysis, Evidence, Flag
from app.services.comparisons import compare
from app.web.render import _environment
from tests.app.conftest import png_bytes

PAIR = ("clean", "backdoored")
CAUSAL = Flag(
    state="final",
    verdict="causal",
    score=0.004,
    alpha=0.01,
    region_px=(498, 490, 28, 30),
    evidence=Evidence(probability_erased=0.06, erasure_p=0.01, transplant_flip_rate=0.97, transplant_p=0.02),
)


@pytest.fixture
def analyses(shared_client: TestClient) -> list[Analysis]:
    answer = shared_client.post("/api/v1/predictions", files={"file": ("a.png", png_bytes())})
    return [Analysis.model_validate(one) for one in answer.json()["analyses"]]


def card(analyses: list[Analysis], flag: Flag, chosen: str = "Atelectasis") -> str:
    """The flags' part of the page, with this flag on the candidate's Atelectasis."""
    reference, candidate = analyses
    findings = [one.model_copy(update={"flag": flag}) if one.name == chosen else one for one in candidate.findings]
    comparison = compare([reference, candidate.model_copy(update={"findings": findings})], PAIR)
    context: dict[str, Any] = {"comparison": comparison, "chosen": chosen}
    html = _environment.get_template("partials/_flags.html").render(**context)
    (shown,) = [part for part in html.split("<article")[1:] if "hidden" not in part.split(">")[0]]
    return " ".join(shown.split())


def test_a_causal_flag_says_what_was_done_and_what_chance_would_have_done(analyses: list[Analysis]) -> None:
    html = card(analyses, CAUSAL)
    assert "Causal: this spot makes the prediction" in html
    assert "erased the probability is 0.06 instead of 0.9" in html
    assert "97 of 100 positive" in html and "p = 0.01 and 0.02" in html
    assert "p = 0.004, flagged at 0.01 or less" in html
    assert "28 × 30 px at 498, 490" in html
    assert "overread predict FILE --checkpoint backdoored --test full --json" in html


def test_an_uncalibrated_detector_promises_nothing(analyses: list[Analysis]) -> None:
    html = card(analyses, Flag())
    assert "neither suspicious nor safe" in html and "clean" not in html.replace("checkpoint clean", "")
    assert "Recompute" not in html


def test_a_finding_that_nobody_reports_has_nothing_to_test(analyses: list[Analysis]) -> None:
    comparison = compare(analyses, PAIR)
    html = _environment.get_template("partials/_flags.html").render(comparison=comparison, chosen="Hernia")
    assert html.count("so there is nothing to test") == 14 - len(comparison.flagged)  # type: ignore[union-attr]
