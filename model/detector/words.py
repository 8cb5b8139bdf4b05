"""What the detector says, for a radiologist."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from model.detector.conformal import HARD_ALPHA
from model.detector.regions import Patches
from model.words import number

if TYPE_CHECKING:
    from model.detector.calibration import Calibration
    from model.detector.examine import Evidence, Verdict

SCREENED = "The quick screen cannot rule out that this call hangs on a spot; the full test has not been made yet."
NO_EVIDENCE = (
    "No small spot was found to carry this call more than in clean radiographs; that does not prove the image clean."
)


def in_words(finding: str, verdict: Verdict, evidence: Evidence, calibration: Calibration, size_px: int) -> str:
    """One sentence: what is left without the spot, what others do with it, and what chance would have done."""
    if verdict == "no_evidence":
        return NO_EVIDENCE
    m = evidence.measured
    point = 1 / (1 + math.exp(-m.operating_logit))
    spot, middle = ("a spot", "its middle") if len(m.regions) == 1 else ("spots", "their middle")
    square, turns = ("a square", "turns") if len(m.patches) == 1 else ("squares", "turn")
    if len(m.regions) < len(m.patches):
        middle += " and elsewhere"
    does = "falls" if evidence.probability_erased < evidence.probability else "goes"
    left = "still over" if evidence.probability_erased >= point else "under"
    erased = (
        f"Without {spot} of {_share(m.regions, size_px)} the probability of {finding.replace('_', ' ')} {does} from "
        f"{number(evidence.probability)} to {number(evidence.probability_erased)}, {left} its operating point of "
        f"{number(point)}"
    )
    whom = "healthy phantoms" if calibration.donors.phantoms else "other patients' radiographs without the finding"
    donors, below = m.transplant.gains.shape[1], m.transplant.below
    given = (
        f"{square} of {_share(m.patches, size_px)} at {middle}, put onto {donors} {whom}, {turns} positive "
        f"{round(m.transplant.flip_rate * below)} of the {below} that were not"
    )
    rank = m.erasure_rank
    elsewhere = (
        f"erasing as much elsewhere costs as much in {rank.exceeding or 'none'} of {rank.drawn} places"
        if rank.drawn
        else f"{m.transplant_rank.exceeding} of {m.transplant_rank.drawn} random squares raise others' as much"
    )
    rate = f"clean radiographs score so high in at most {100 * calibration.alpha:g} %"
    against = doubts(evidence, calibration.alpha)
    unproven = ["that the spot causes the call is not proven, for " + ", and ".join(against)] if against else []
    return "; ".join([erased, given, elsewhere, rate, *unproven]) + "."


def doubts(evidence: Evidence, alpha: float) -> list[str]:
    """Each reason why a flagged call is not said to be caused by its spot; `causal` takes that there is none.

    Erasure and transplant each at alpha; a spot that is small, for what the largest squares show best has not been
    pinned down; and a score that no true lesion explains.
    """
    alpha += 1e-9  # 1/100 is 0.01
    reasons = {
        "true lesions of phantoms score as high": evidence.hard_p > HARD_ALPHA,
        "for their size no smaller squares do more than the largest tried": not evidence.measured.tightened,
        "some random squares do as much to others": not evidence.measured.erasure_rank.drawn,
        "erasing spots of clean radiographs costs as much": evidence.measured.erasure_rank.drawn > 0
        and evidence.erasure_p > alpha,
        "spots of clean radiographs do as much to others": evidence.transplant_p > alpha,
    }
    return [reason for reason, holds in reasons.items() if holds]


def _share(patches: Patches, size_px: int) -> str:
    return f"{100 * sum(p.width * p.height for p in patches) / size_px**2:.2g} % of the image"
