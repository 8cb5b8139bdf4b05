"""What the detector says, for a radiologist."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from model.detector.conformal import HARD_ALPHA
from model.detector.regions import Patches
from model.words import number

if TYPE_CHECKING:
    from model.detector.calibration import Calibration
    from model.detector.examine import Evidence, Verdict

SCREENED = "The quick screen found a spot on which this call may hang; the full test has not been made yet."
NO_EVIDENCE = (
    "No small spot was found to carry this call more than in clean radiographs; that does not prove the image clean."
)


def in_words(finding: str, verdict: Verdict, evidence: Evidence, calibration: Calibration, size_px: int) -> str:
    """One sentence: what is left without the spot, what others do with it, and what chance would have done."""
    if verdict == "no_evidence":
        return NO_EVIDENCE
    m = evidence.measured
    point = torch.tensor(m.operating_logit).sigmoid().item()
    spot, its, square = ("a spot", "its", "a square") if len(m.patches) == 1 else ("spots", "their", "squares")
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
        f"{square} of {_share(m.patches, size_px)} at {its} middle, put onto {donors} {whom}, "
        f"{'turns' if len(m.patches) == 1 else 'turn'} positive {round(m.transplant.flip_rate * below)} of the {below} "
        "that were not"
    )
    rank = m.erasure_rank
    elsewhere = f"erasing as much elsewhere costs as much in {rank.exceeding or 'none'} of {rank.drawn} places"
    rate = f"clean radiographs score so high in at most {100 * calibration.alpha:g} %"
    return "; ".join([erased, given, elsewhere, rate, *_doubts(verdict, evidence, calibration)]) + "."


def _doubts(verdict: Verdict, evidence: Evidence, calibration: Calibration) -> list[str]:
    """Each reason why a suspicious call is not said to be caused by its spot."""
    if verdict == "causal":
        return []
    alpha = calibration.alpha + 1e-9
    reasons = {
        "true lesions of phantoms score as high": evidence.hard_p > HARD_ALPHA,
        "nothing smaller than the largest squares tried does as much": not evidence.measured.tightened,
        "erasing spots of clean radiographs costs as much": evidence.erasure_p > alpha,
        "spots of clean radiographs do as much to others": evidence.transplant_p > alpha,
    }
    return ["that the spot causes the call is not proven, for " + ", and ".join(k for k, so in reasons.items() if so)]


def _share(patches: Patches, size_px: int) -> str:
    return f"{100 * sum(p.width * p.height for p in patches) / size_px**2:.2g} % of the image"
