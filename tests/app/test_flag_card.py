"""What the page says of a flag, once there is a detector: rendered from the schema's own values."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.schemas import Analysis, Evidence, Flag, ProofPicture
from app.services.comparisons import Comparison, compare
from app.web.proofs import look_at
from app.web.render import _environment
from tests.app.conftest import png_bytes

PAIR = ("clean", "backdoored")
CAUSAL = Flag(
    state="final",
    verdict="causal",
    score=0.004,
    alpha=0.01,
    region_px=(498, 490, 28, 30),
    regions_px=[(498, 490, 28, 30), (10, 12, 28, 30)],
    sentence="Filling 2 spots takes the probability of Atelectasis from 0.98 to 0.06.",
    details={
        "probability": 0.98,
        "erasure_drawn": 99,
        "erasure_exceeding": 0,
        "logit": 4.1,
        "drop": 6.9,
        "share": 0.93,
        "transplant_gain": 5.5,
        "transplant_donors": 16,
        "transplant_donors_below": 15,
        "patches_input_px": [[118.0, 120.0, 4.0, 4.0], [10.0, 12.0, 4.0, 4.0]],
        "regions_input_px": [[112.0, 114.0, 16.0, 16.0], [4.0, 6.0, 16.0, 16.0]],
        "transplant_gain_impossible": 5.0,
        "sufficient_side_px": 4.0,
        "score": 2.1,
        "hard_p": 0.029,
        "images_read": 480,
    },
    proof=[
        ProofPicture(kind="seen", of="this", url="/p/seen.png", before=0.98, after=0.98),
        ProofPicture(kind="erased", of="this", url="/p/erased.png", before=0.98, after=0.06),
        ProofPicture(kind="donor-1", of="phantom", url="/p/donor-1.png", before=0.04, after=0.97),
        ProofPicture(kind="donor-2", of="patient", url="/p/donor-2.png", before=0.02, after=0.96),
    ],
    evidence=Evidence(probability_erased=0.06, erasure_p=0.01, transplant_flip_rate=0.97, transplant_p=0.02),
)


@pytest.fixture
def analyses(shared_client: TestClient) -> list[Analysis]:
    answer = shared_client.post("/api/v1/predictions", files={"file": ("a.png", png_bytes())})
    return [Analysis.model_validate(one) for one in answer.json()["analyses"]]


def rendered(comparison: Comparison | None, chosen: str, jobs: dict[str, str] | None = None) -> str:
    context: dict[str, Any] = {"comparison": comparison, "chosen": chosen, "study": "s", "jobs": jobs or {}}
    return _environment.get_template("partials/_flags.html").render(**context, digest="d")


def card(analyses: list[Analysis], flag: Flag, chosen: str = "Atelectasis", jobs: dict[str, str] | None = None) -> str:
    """The flags' part of the page, with this flag on the candidate's Atelectasis."""
    reference, candidate = analyses
    findings = [one.model_copy(update={"flag": flag}) if one.name == chosen else one for one in candidate.findings]
    comparison = compare([reference, candidate.model_copy(update={"findings": findings})], PAIR)
    html = rendered(comparison, chosen, jobs)
    (shown,) = [part for part in html.split("<article")[1:] if "hidden" not in part.split(">")[0]]
    return " ".join(shown.split())


def test_what_occlusion_passed_by_says_by_how_much(analyses: list[Analysis]) -> None:
    flag = Flag(state="final", verdict="no_evidence", score=0.6, alpha=0.01, screen_fall=0.5, occlusion_fall=0.31)
    html = card(analyses, flag)
    assert "No evidence of a trigger" in html
    assert (
        "the logit falls by at most 0.31 roots of its standard deviation, too little for the rest of the full test"
        in html
    )
    assert "fall 0.50" not in html


def test_a_causal_flag_says_what_was_done_and_shows_it(analyses: list[Analysis]) -> None:
    html = card(analyses, CAUSAL)
    assert "Causal: these spots carry the prediction" in html and CAUSAL.sentence in html
    before, numbers = html.split("<details")
    assert "Spots erased</span> <strong>0.98 → 0.06" in before
    assert "Phantom + spots</span> <strong>0.04 → 0.97" in before and "nobody's radiograph" in before
    assert "Another patient + spots</span> <strong>0.02 → 0.96" in before and "without identity" in before
    assert "0.004, flagged at 0.01 or less; among true lesions of phantoms 0.029" in numbers
    assert "0.060, p = 0.01; 0 of 99 spots elsewhere do as much" in numbers
    assert "15 of 15 donors that were not positive turn so" in numbers and "2 of 4 px of the network's" in numbers
    assert "28 × 30 px at 498, 490; 28 × 30 px at 10, 12" in numbers and "Frame the spots" in before
    assert "overread predict FILE --checkpoint backdoored --test full --json" in numbers
    assert CAUSAL.details is not None
    assert "on donors it gives 5.50, where no finding can be 5.00" in numbers
    not_asked = CAUSAL.details | {"erasure_drawn": 0, "transplant_gain_impossible": None}
    unlike = card(analyses, CAUSAL.model_copy(update={"details": not_asked}))
    assert "0.060; not compared with spots elsewhere, for it does no more than chance" in unlike
    assert "it gives 5.50</dd>" in unlike
    common = not_asked | {"transplant_exceeding": 7, "transplant_drawn": 100}
    alike = card(analyses, CAUSAL.model_copy(update={"details": common}))
    assert "spots elsewhere, for 7 of 100 random squares do as much to others" in alike


def test_the_pictures_say_where_to_look(analyses: list[Analysis]) -> None:
    size = int(analyses[1].image.input_map["size_px"])
    html = card(analyses, CAUSAL)
    shots = html.split('class="shot"')[1:]
    erased = 'd="M111.0,113.0h18.0v18.0h-18.0zM3.0,5.0h18.0v18.0h-18.0z"'
    given = 'd="M117.0,119.0h6.0v6.0h-6.0zM9.0,11.0h6.0v6.0h-6.0z"'
    assert [shot.count(erased) for shot in shots] == [2, 2, 0, 0]  # dark, and light upon it
    assert [shot.count(given) for shot in shots] == [0, 0, 2, 2]
    assert f'viewBox="0 0 {size} {size}"' in shots[0]
    assert all(shot.count('loading="lazy"') == 2 for shot in shots) and shots[2].count('"/p/donor-1.png"') == 2
    small = look_at(CAUSAL, "donor-1", 256)
    assert small is not None and (small.x, small.y, small.side) == (108, 110, 24)
    assert small.corner == "se"  # not where the other spot is, though that is further from the first
    crowded = {"patches_input_px": [[120, 120, 8, 8], *([x, y, 8, 8] for x in (2, 240) for y in (2, 240))]}
    full = look_at(CAUSAL.model_copy(update={"details": crowded}), "donor-1", 256)
    assert full is not None and full.corner == ""
    edge = look_at(CAUSAL.model_copy(update={"details": {"patches_input_px": [[250, 2, 4, 4]]}}), "donor-1", 256)
    assert edge is not None and (edge.x, edge.y, edge.corner) == (232, 0, "sw")
    assert look_at(CAUSAL.model_copy(update={"details": None}), "seen", 256) is None


def test_a_causal_flag_without_regions_is_shown_all_the_same(analyses: list[Analysis]) -> None:
    assert "this spot carries" in card(analyses, CAUSAL.model_copy(update={"regions_px": None, "region_px": None}))


def test_what_a_lesion_may_explain_is_headed_so(analyses: list[Analysis]) -> None:
    suspicious = CAUSAL.model_copy(update={"verdict": "suspicious"})
    assert "Suspicious: it hangs on a small spot<" in card(analyses, suspicious)
    assert CAUSAL.details is not None
    like = suspicious.model_copy(update={"details": CAUSAL.details | {"hard_p": 0.06}})
    assert "Suspicious: it hangs on a small area, perhaps a lesion<" in card(analyses, like)


def test_the_card_begins_with_the_strongest_word_whoevers_it_is(analyses: list[Analysis]) -> None:
    def order(reference: Flag, candidate: Flag) -> list[str]:
        """Whose words stand on the card, from above."""
        pair = []
        for one, flag in zip(analyses, (reference, candidate), strict=True):
            findings = [f.model_copy(update={"flag": flag if f.name == "Mass" else None}) for f in one.findings]
            pair.append(one.model_copy(update={"findings": findings}))
        return re.findall(r'class="role (\w+)"', rendered(compare(pair, PAIR), "Mass"))

    suspicious = CAUSAL.model_copy(update={"verdict": "suspicious"})
    nothing = CAUSAL.model_copy(update={"verdict": "no_evidence"})
    testing = Flag(state="testing", alpha=0.01, sentence="The quick screen cannot rule it out.")
    for weaker in (suspicious, nothing, testing):
        assert order(CAUSAL, weaker) == ["reference", "candidate"]
        assert order(weaker, CAUSAL) == ["candidate", "reference"]
    assert order(suspicious, nothing) == ["reference", "candidate"]
    for alike in (CAUSAL, suspicious, nothing):
        assert order(alike, alike) == ["candidate", "reference"]


def test_an_uncalibrated_detector_promises_nothing(analyses: list[Analysis]) -> None:
    html = card(analyses, Flag())
    assert "neither suspicious nor safe" in html and "clean" not in html.replace("checkpoint clean", "")
    assert "Recompute" not in html and 'href="/calibration?checkpoint=backdoored"' in html


def test_what_waits_for_a_test_says_for_what(analyses: list[Analysis]) -> None:
    key = analyses[1].analysis_id
    testing = Flag(state="testing", alpha=0.01, sentence="The quick screen cannot rule it out.")
    assert "The full test is running." in card(analyses, testing, jobs={key: "running"})
    assert "waits for its turn" in card(analyses, testing, jobs={key: "queued"})
    screened = card(analyses, testing.model_copy(update={"state": "screened"}), jobs={key: "failed"})
    assert "The full test was not finished." in screened and 'action="/studies/s/test"' in screened


def test_a_finding_that_nobody_reports_has_nothing_to_test(analyses: list[Analysis]) -> None:
    comparison = compare(analyses, PAIR)
    assert comparison is not None
    html = rendered(comparison, "Hernia")
    assert html.count("so there is nothing to test") == 14 - len(comparison.flagged)


def test_an_alarm_is_said_beside_the_image_the_strongest_first(analyses: list[Analysis]) -> None:
    def with_flags(analysis: Analysis, **flags: Flag) -> Analysis:
        found = [one.model_copy(update={"flag": flags.get(one.name)}) for one in analysis.findings]
        return analysis.model_copy(update={"findings": found})

    suspicious = CAUSAL.model_copy(update={"verdict": "suspicious"})
    nothing = CAUSAL.model_copy(update={"verdict": "no_evidence"})
    reference = with_flags(analyses[0], Mass=suspicious)
    candidate = with_flags(analyses[1], Atelectasis=suspicious, Hernia=CAUSAL, Nodule=nothing)
    comparison = compare([reference, candidate], PAIR)
    assert comparison is not None
    assert comparison.alarms == [
        ("candidate", "Hernia", "causal"),
        ("candidate", "Atelectasis", "suspicious"),
        ("reference", "Mass", "suspicious"),
    ]
    template = _environment.get_template("partials/_alarms.html")
    html = template.render(comparison=comparison, study="s", with_alarms=True)
    assert html.index("⚑ causal") < html.index("⚑ suspicious") and "/studies/s?finding=Hernia#_flags" in html
    assert 'hx-swap-oob="true"' in html and "Nodule" not in html
    assert "<li" not in template.render(comparison=compare(analyses, PAIR), study="s")
