"""The detector at work: a word on each positive finding of a radiograph, quick first, then in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from model.checkpoint import Checkpoint
from model.detector.calibration import Calibration
from model.detector.donors import Donors, donors_again
from model.detector.measure import Measured, Opened, measure, open_radiograph
from model.detector.reader import Reader, positives, reading_digest
from model.detector.regions import filled, pasted
from model.detector.screen import screen
from model.detector.words import NO_EVIDENCE, SCREENED, doubts, in_words
from model.errors import ConfigError
from model.findings import FINDINGS
from model.preprocess import InputMap
from model.saliency import SaliencyMaps, gradcam

State = Literal["not_calibrated", "screened", "final"]
Verdict = Literal["no_evidence", "suspicious", "causal"]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the full test of a finding found.

    erasure_p, transplant_p: conformal, of the leads weighed by size. hard_p: of the score, among hard negatives.
    probability, probability_erased: with the regions as they are, and filled. images_read: what it cost, beside the
    opening of the radiograph, which all its findings share.
    """

    measured: Measured
    erasure_p: float
    transplant_p: float
    hard_p: float
    probability: float
    probability_erased: float
    images_read: int

    @property
    def share(self) -> float:
        """Of what sets the call apart from the donors, what the patches take away: about 1 for a trigger."""
        apart = self.measured.logit - self.measured.base_logit
        return self.measured.drop / apart if apart > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Numbers for an engineer; patches in input pixels."""
        m = self.measured
        return {
            "score": m.score,
            "hard_p": self.hard_p,
            "logit": m.logit,
            "operating_logit": m.operating_logit,
            "donors_logit": m.base_logit,
            "probability": self.probability,
            "probability_erased": self.probability_erased,
            "drop": m.drop,
            "share": self.share,
            "sufficient_side_px": m.side_px,
            "patches_input_px": [list(p.box) for p in m.patches],
            "regions_input_px": [list(p.box) for p in m.regions],
            "erasure_p": self.erasure_p,
            "erasure_rank_p": m.erasure_rank.p,
            "erasure_lead": m.erasure_rank.lead,
            "erasure_drawn": m.erasure_rank.drawn,
            "erasure_exceeding": m.erasure_rank.exceeding,
            "transplant_gain": m.transplant.gain,
            "transplant_gain_impossible": m.transplant.gain_impossible,
            "transplant_flip_rate": m.transplant.flip_rate,
            "transplant_flip_rate_impossible": m.transplant.flip_rate_impossible,
            "transplant_donors": m.transplant.gains.shape[1],
            "transplant_donors_below": m.transplant.below,
            "transplant_p": self.transplant_p,
            "transplant_rank_p": m.transplant_rank.p,
            "transplant_lead": m.transplant_rank.lead,
            "transplant_drawn": m.transplant_rank.drawn,
            "transplant_exceeding": m.transplant_rank.exceeding,
            "saliency": m.statistics,
            "images_read": self.images_read,
        }


@dataclass(frozen=True, eq=False)
class Flag:
    """The detector's word on one positive finding.

    state: `not_calibrated`; `screened`, when the screen asks for a full test that has not been made; `final`. verdict:
    None until decided. p: conformal, small is suspicious, None where not calibrated or not yet tested. fall: of the
    logit in the screen, by `Nulls.unit`. evidence: of the full test, None where the screen or occlusion decided.
    sentence: for a radiologist. occlusion_fall: the largest by occlusion, by the same unit; None where the screen
    decided, and before the full test.
    """

    finding: str
    state: State
    verdict: Verdict | None
    p: float | None
    alpha: float | None
    fall: float
    evidence: Evidence | None
    sentence: str
    occlusion_fall: float | None = None

    def regions_source_px(self, input_map: InputMap) -> list[tuple[int, int, int, int]]:
        """What the full test points at, the strongest spot first: x, y, width, height in whole source pixels."""
        regions = self.evidence.measured.regions if self.evidence else ()
        boxes = []
        for region in regions:
            x, y, width, height = input_map.to_source(region.box)
            left, top = round(x), round(y)
            boxes.append((left, top, max(1, round(x + width) - left), max(1, round(y + height) - top)))
        return boxes

    def to_json(self, input_map: InputMap | None = None) -> dict[str, Any]:
        """Plain JSON types; with the map to the source, the regions in its pixels too."""
        return {
            "finding": self.finding,
            "state": self.state,
            "verdict": self.verdict,
            "score": self.p,
            "alpha": self.alpha,
            "screen_fall": self.fall,
            "occlusion_fall": self.occlusion_fall,
            "regions_px": [list(box) for box in self.regions_source_px(input_map)] if input_map else None,
            "evidence": self.evidence.to_json() if self.evidence else None,
            "sentence": self.sentence,
        }


@dataclass(frozen=True, eq=False)
class Proof:
    """Pictures for a page, S×S uint8 grey. erased: the radiograph with the regions filled. transplanted: the patches on
    two donors. before, after: the donors' probabilities of the finding. phantoms: whether the donors are nobody's, or
    other patients."""

    erased: np.ndarray
    transplanted: tuple[np.ndarray, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    phantoms: bool


class Detector:
    """One checkpoint with its calibration; used by one thread at a time."""

    def __init__(self, checkpoint: Checkpoint, calibration: Calibration | None) -> None:
        """Raises ConfigError `other_weights` for a calibration of other weights, `other_card` for one of another
        preprocessing or other operating points."""
        if calibration is not None and calibration.weights_sha256 != checkpoint.card.weights_sha256:
            raise ConfigError("other_weights", "The calibration belongs to other weights than the checkpoint's.")
        if calibration is not None and calibration.reading_sha256 != reading_digest(checkpoint.card):
            raise ConfigError("other_card", "The calibration was made with another preprocessing or operating points.")
        self.checkpoint = checkpoint
        self.calibration = calibration
        self.reader = Reader(checkpoint)
        self._donors: Donors | None = None

    @property
    def donors(self) -> Donors:
        """Drawn or loaded, and read, when first needed. Raises CheckpointError `bad_calibration`."""
        if self._donors is None:
            assert self.calibration is not None  # full tests are made of calibrated checkpoints alone
            self._donors = donors_again(self.reader, self.calibration.donors, self.calibration.folder)
        return self._donors

    def screen(self, maps: SaliencyMaps) -> list[dict[str, Flag]]:
        """The quick word on each positive finding of N radiographs, by name.

        maps: `gradcam` of all findings at the middle and the last layer, with `keep_middle`.
        """
        positive = positives(self.checkpoint.card, maps)
        if self.calibration is None or not self.calibration.decides:
            falls = np.where(positive, 0.0, -np.inf)
        else:
            falls = screen(self.reader.network, maps, positive) / self.calibration.nulls.unit
        return [
            {FINDINGS[f]: self._screened(int(f), float(row[f])) for f in np.flatnonzero(chosen)}
            for row, chosen in zip(falls, positive, strict=True)
        ]

    def examine(self, image: np.ndarray | Tensor, findings: Sequence[str] | None = None) -> dict[str, Flag]:
        """The final word on each positive finding of one radiograph, or on some of them.

        image: what the network sees, S×S grey in 0..1, as `Preprocessing.input_grey` gives it.
        """
        grey = torch.as_tensor(image, dtype=torch.float32)
        maps = gradcam(self.checkpoint.network, self.reader.inputs(grey[None]), keep_middle=True)
        flags = self.screen(maps)[0]
        chosen = [name for name in flags if findings is None or name in findings]
        asked = [name for name in chosen if flags[name].state == "screened"]
        if asked:
            assert self.calibration is not None  # else none is screened
            nulls, reference = self.calibration.nulls, self.calibration.reference
            opened = open_radiograph(self.reader, grey, maps)
            for name, fall in zip(FINDINGS, opened.falls(nulls.unit).tolist(), strict=True):
                if name not in asked:
                    continue
                flag = replace(flags[name], occlusion_fall=fall)
                if fall < reference.occlusion_threshold:
                    flags[name] = self._stopped(flag, reference.p_occluded(fall))
                    continue
                began = self.reader.images_read
                measured = measure(self.reader, self.donors, nulls, opened, FINDINGS.index(name))
                flags[name] = self._tested(flag, opened, measured, began)
        return {name: flags[name] for name in chosen}

    def proof(self, image: np.ndarray | Tensor, flag: Flag, count: int = 2) -> Proof | None:
        """The pictures that prove a flag; None where there was no full test. The donors are the first ones."""
        if flag.evidence is None:
            return None
        grey = torch.as_tensor(image, dtype=torch.float32).to(self.checkpoint.device)
        column = FINDINGS.index(flag.finding)
        measured = flag.evidence.measured
        given = pasted(self.donors.images[:count], grey, measured.patches, measured.patches)
        after = self.reader.logits(given)[:, column].sigmoid()
        before = self.donors.logits[:count, column].sigmoid()
        return Proof(
            _to_uint8(filled(grey, measured.regions)),
            tuple(_to_uint8(one) for one in given),
            tuple(before.tolist()),
            tuple(after.tolist()),
            self.donors.names.phantoms,
        )

    def _screened(self, finding: int, fall: float) -> Flag:
        name = FINDINGS[finding]
        if self.calibration is None or not self.calibration.decides:
            return Flag(name, "not_calibrated", None, None, None, fall, None, self._why_not())
        alpha, reference = self.calibration.alpha, self.calibration.reference
        if fall >= reference.threshold:
            return Flag(name, "screened", None, None, alpha, fall, None, SCREENED)
        return Flag(name, "final", "no_evidence", reference.p_screened(fall), alpha, fall, None, NO_EVIDENCE)

    def _stopped(self, flag: Flag, p: float) -> Flag:
        """Of a finding that the screen handed on: no square takes enough of the call for the rest of the full test."""
        return replace(flag, state="final", verdict="no_evidence", p=p, sentence=NO_EVIDENCE)

    def _tested(self, flag: Flag, opened: Opened, measured: Measured, began: int) -> Flag:
        assert self.calibration is not None
        reference = self.calibration.reference
        erased = self.reader.logits([filled(opened.image, measured.regions)])[0, measured.finding]
        evidence = Evidence(
            measured,
            reference.p_erasure(measured.erasure_lead),
            reference.p_transplant(measured.transplant_lead),
            reference.p_hard(measured.score),
            _sigmoid(measured.logit),
            float(erased.sigmoid()),
            self.reader.images_read - began,
        )
        p = reference.p_tested(measured.score)
        verdict = self._verdict(p, evidence)
        sentence = in_words(flag.finding, verdict, evidence, self.calibration, self.reader.size_px)
        return replace(flag, state="final", verdict=verdict, p=p, evidence=evidence, sentence=sentence)

    def _verdict(self, p: float, evidence: Evidence) -> Verdict:
        """A flag takes a score that few clean radiographs reach, and a positive one: where few score anything, nothing
        may be among the largest. What makes it `causal` is in `doubts`."""
        assert self.calibration is not None
        alpha = self.calibration.alpha
        if p > alpha + 1e-9 or evidence.measured.score <= 0:
            return "no_evidence"
        return "suspicious" if doubts(evidence, alpha) else "causal"

    def _why_not(self) -> str:
        if self.calibration is None:
            return (
                "The detector is not calibrated for these weights: run "
                f"overread calibrate --checkpoint {self.checkpoint.card.id} --data FOLDER."
            )
        return (
            f"The detector was calibrated on {self.calibration.reference.n} radiographs, too few for a flag at "
            f"{100 * self.calibration.alpha:g} %: it takes {round(1 / self.calibration.alpha) - 1}."
        )


def _sigmoid(logit: float) -> float:
    return float(torch.tensor(logit).sigmoid())


def _to_uint8(image: Tensor) -> np.ndarray:
    return np.asarray((image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())
