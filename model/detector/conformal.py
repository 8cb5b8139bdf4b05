"""From a score to a false-positive rate: conformal p-values, and what so many radiographs can promise.

A radiograph's score is the largest over its findings, so that 14 findings are not 14 chances; and the whole pipeline is
calibrated, the screen included. Scores have an order in three steps: who was tested in full comes above whom occlusion
stopped, and that one above whom the screen stopped; within each kind a number decides, and a radiograph without a
positive finding comes last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

ALPHA = 0.01
HARD_ALPHA = 0.03  # of hard negatives, what may be called causal
SHARE_OCCLUDED = 0.8  # of all clean radiographs, whom the screen hands on
SHARE_TESTED = 0.3  # of all clean radiographs, in full: see the log for what lies below
DRIFT_AT = 0.1  # a p-value that is small, for who looks whether there are more of them than there should be


@dataclass(frozen=True)
class Reference:
    """The scores of n clean radiographs.

    threshold: of the screen: who reaches it is occluded. occlusion_threshold: of the largest fall by occlusion: who
    reaches it is tested in full. tested: scores of those, ascending. occluded: largest falls of those that were
    occluded and did not reach it, ascending. screened: largest falls in the screen of those with a positive finding
    that did not reach the former, ascending. The rest has no positive finding. erasure, transplant: of those tested,
    the largest leads of either experiment, weighed by the patches' size (`model.detector.measure.Measured`), ascending
    each. Falls are as `model.detector.nulls.Nulls.unit` has them, scores and leads in logits. n_hard, hard: the same of
    hard negatives, who are not among the n: how many, and the scores of those tested.
    """

    n: int
    threshold: float
    tested: tuple[float, ...]
    screened: tuple[float, ...]
    erasure: tuple[float, ...]
    transplant: tuple[float, ...]
    n_hard: int = 0
    hard: tuple[float, ...] = ()
    occlusion_threshold: float = -math.inf
    occluded: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.tested) == len(self.erasure) == len(self.transplant) <= self.n - self._stopped:
            raise ValueError("every radiograph that was tested has one score and two leads, and none is counted twice")
        if any(fall >= self.occlusion_threshold for fall in self.occluded):
            raise ValueError("whom occlusion stopped did not reach its threshold")
        if len(self.hard) > self.n_hard:
            raise ValueError("every hard negative has at most one score")

    def p_tested(self, score: float) -> float:
        """(1 + how many of the n score at least as high)/(n + 1), of a finding that was tested in full."""
        return (1 + _at_least(self.tested, score)) / (self.n + 1)

    def p_erasure(self, lead: float) -> float:
        """The same of a lead in erasure. Who searches for the best patch finds one that leads, also where there is no
        trigger; ranked among such leads, a clean radiograph's p-value is uniform again as far down as p_tested is."""
        return (1 + _at_least(self.erasure, lead)) / (self.n + 1)

    def p_transplant(self, lead: float) -> float:
        """The same of a lead in transplant."""
        return (1 + _at_least(self.transplant, lead)) / (self.n + 1)

    def p_hard(self, score: float) -> float:
        """(1 + how many of the hard negatives score at least as high)/(their number + 1). Erasing a true nodule takes
        "Nodule" away and giving it gives it: that it is none, only what true nodules score can tell."""
        return (1 + _at_least(self.hard, score)) / (self.n_hard + 1)

    def p_occluded(self, fall: float) -> float:
        """The same of a finding that the screen handed on and that did not reach the threshold of occlusion."""
        return (1 + len(self.tested) + _at_least(self.occluded, fall)) / (self.n + 1)

    def p_screened(self, fall: float) -> float:
        """The same of a finding that did not reach the screen's threshold."""
        return (1 + len(self.tested) + len(self.occluded) + _at_least(self.screened, fall)) / (self.n + 1)

    @property
    def _stopped(self) -> int:
        return len(self.screened) + len(self.occluded)

    def decides(self, alpha: float = ALPHA) -> bool:
        """Whether p can reach alpha at all: for 1 % it takes 99 radiographs."""
        return allowed(self.n, alpha) >= 1


def _at_least(ascending: Sequence[float], value: float) -> int:
    return len(ascending) - int(np.searchsorted(np.asarray(ascending), value, side="left"))


def allowed(n: int, alpha: float) -> int:
    """⌊alpha·(n + 1)⌋: a radiograph is flagged when its score is among so many largest of the n + 1."""
    return math.floor(alpha * (n + 1) + 1e-9)


def realised_rate_interval(n: int, alpha: float = ALPHA, level: float = 0.95) -> tuple[float, float]:
    """Where the false-positive rate lies that a calibration of n radiographs yields at alpha.

    Given the n scores, the rate has the Beta distribution with k = ⌊alpha·(n + 1)⌋ and n + 1 − k (Vovk, ACML 2012); its
    mean is at most alpha. (0, 0) where nothing can be flagged.
    """
    k = allowed(n, alpha)
    if k < 1:
        return 0.0, 0.0
    low, high = stats.beta.ppf([(1 - level) / 2, (1 + level) / 2], k, n + 1 - k)
    return float(low), float(high)


def threshold_of(falls: Sequence[float], share: float) -> float:
    """The k-th largest fall of the n calibration radiographs, k = ⌈share·n⌉; −inf stands for who has no positive
    finding, or was stopped before.

    That the threshold is taken from the same radiographs costs no validity: seen from the n + 1 with the new one in
    the middle of them, the new one passes as it would with a threshold from all n + 1, while one more of the n passes,
    which can only make p larger. The same holds of the second threshold, among those whom the first let pass.
    """
    ordered = sorted(falls, reverse=True)
    positive = sum(np.isfinite(ordered))
    k = max(1, math.ceil(share * len(ordered)))
    return float(ordered[min(k, positive) - 1]) if positive else math.inf


@dataclass(frozen=True)
class Drift:
    """Whether recent p-values are still like those of clean radiographs.

    n: how many were looked at. observed: how many were at most `at`; expected: how many there should be on average.
    p: chance of so many or more, the calibration's own luck included; warns: p < 0.001.
    """

    n: int
    at: float
    observed: int
    expected: float
    p: float

    @property
    def warns(self) -> bool:
        """The scores have grown: other radiographs than those calibrated on, or an attack."""
        return self.p < 0.001


def drift(p_values: Sequence[float], calibrated: int, at: float = DRIFT_AT) -> Drift:
    """Of the last radiographs' p-values, each the smallest over its findings, 1 where none was positive.

    Only small p-values count: radiographs without a positive finding pile up at 1, as they do in calibration. `at` must
    not exceed the share that is tested in full, below which p-values are uniform. calibrated: how many radiographs the
    calibration is of. The rate that it yields is Beta-distributed, as `realised_rate_interval` says, so that the count
    is beta-binomial: taken for exact, 250 radiographs would warn of one in thirty worklists that are as they were.
    """
    n, k = len(p_values), allowed(calibrated, at)
    observed = sum(p <= at for p in p_values)
    if not n or k < 1:
        return Drift(n, at, observed, 0.0, 1.0)
    chance = float(stats.betabinom.sf(observed - 1, n, k, calibrated + 1 - k))
    return Drift(n, at, observed, n * k / (calibrated + 1), chance)
