"""Conformal p-values against counting by hand, and against simulation where a guarantee is claimed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from model.detector.cause import Rank, sequential_rank
from model.detector.conformal import (
    Reference,
    allowed,
    drift,
    realised_rate_interval,
    threshold_of,
)


def test_p_counts_who_scores_at_least_as_high() -> None:
    leads = (-0.5, -0.02, 0.7)
    reference = Reference(9, 2.0, (1.0, 3.0, 3.0), (0.2, 0.5, 1.9), leads, leads)  # three have no positive finding
    assert reference.p_tested(3.5) == 1 / 10
    assert reference.p_tested(3.0) == 3 / 10
    assert reference.p_tested(-5.0) == 4 / 10
    assert reference.p_screened(1.9) == 5 / 10
    assert reference.p_screened(0.0) == 7 / 10
    assert reference.p_erasure(0.8) == reference.p_transplant(0.8) == 1 / 10
    assert reference.p_erasure(0.7) == 2 / 10
    assert reference.p_transplant(-1.0) == 4 / 10
    with pytest.raises(ValueError, match="two leads"):
        Reference(9, 2.0, (1.0,), (), (), ())


def test_whom_occlusion_stops_comes_between_the_tested_and_whom_the_screen_stops() -> None:
    leads = (-0.5, -0.02)
    reference = Reference(
        9, 2.0, (1.0, 3.0), (0.2, 1.9), leads, leads, occlusion_threshold=0.6, occluded=(0.1, 0.3, 0.5)
    )
    assert [reference.p_occluded(fall) for fall in (0.59, 0.5, 0.2, 0.0)] == [3 / 10, 4 / 10, 5 / 10, 6 / 10]
    assert [reference.p_screened(fall) for fall in (1.99, 1.9, 0.0)] == [6 / 10, 7 / 10, 8 / 10]
    assert reference.p_tested(-5.0) == 3 / 10  # whatever it scores, as the most striking of those stopped
    with pytest.raises(ValueError, match="counted twice"):
        Reference(4, 2.0, (1.0, 3.0), (), leads, leads, occluded=(0.1, 0.3, 0.5))


def test_hard_negatives_are_counted_by_themselves() -> None:
    reference = Reference(9, 2.0, (), (), (), (), 4, (0.5, 2.0))  # two of the four did not pass the screen
    assert [reference.p_hard(score) for score in (2.1, 2.0, 0.6, 0.1)] == [1 / 5, 2 / 5, 2 / 5, 3 / 5]
    assert Reference(9, 2.0, (), (), (), ()).p_hard(9.0) == 1  # without any nothing is known
    with pytest.raises(ValueError, match="hard negative"):
        Reference(9, 2.0, (), (), (), (), 1, (0.5, 2.0))


@pytest.mark.parametrize(("n", "k"), [(98, 0), (99, 1), (198, 1), (199, 2), (250, 2), (1999, 20)])
def test_below_99_radiographs_there_is_no_one_per_cent(n: int, k: int) -> None:
    assert allowed(n, 0.01) == k
    assert Reference(n, 0.0, (), (), (), ()).decides() == (k > 0)


def test_the_interval_that_n_allows() -> None:
    assert realised_rate_interval(98) == (0, 0)
    assert [round(100 * v, 1) for v in realised_rate_interval(250)] == [0.1, 2.2]
    assert [round(100 * v, 1) for v in realised_rate_interval(2000)] == [0.6, 1.5]


def test_the_threshold_lets_a_share_pass() -> None:
    falls = [-math.inf] * 5 + [float(v) for v in range(15)]
    assert threshold_of(falls, 0.2) == 11
    assert sum(fall >= threshold_of(falls, 0.2) for fall in falls) == 4
    assert threshold_of(falls, 0.9) == 0  # no more than have a positive finding
    assert threshold_of([-math.inf], 0.2) == math.inf


def test_the_whole_pipeline_holds_its_rate_though_the_threshold_is_taken_from_the_same_radiographs() -> None:
    rng = np.random.default_rng(0)
    n, trials = 99, 1500
    rates = np.array([0.05, 0.15, 0.4])  # of the tested; of those too whom occlusion stops; of all
    small = np.zeros(3)
    for _ in range(trials):
        falls = rng.normal(size=n + 1)
        occlusion = np.where(falls >= (first := threshold_of(falls[:n].tolist(), 0.25)), 0, -np.inf)
        occlusion += falls + rng.normal(size=n + 1)  # each step agrees with the one before somewhat
        scores = occlusion + rng.normal(size=n + 1)
        second = threshold_of(occlusion[:n].tolist(), 0.1)
        tested, passed = occlusion >= second, falls >= first
        several = _ascending(scores[:n][tested[:n]])
        between = _ascending(occlusion[:n][(passed & ~tested)[:n]])
        left = _ascending(falls[:n][~passed[:n]])
        reference = Reference(n, first, several, left, several, several, occlusion_threshold=second, occluded=between)
        p = reference.p_screened(falls[n])
        if passed[n]:
            p = reference.p_tested(scores[n]) if tested[n] else reference.p_occluded(occlusion[n])
        small += p <= rates
    assert small / trials == pytest.approx(rates, abs=0.03)
    assert small[0] / trials == pytest.approx(0.05, abs=0.015)


def _ascending(values: np.ndarray) -> tuple[float, ...]:
    return tuple(sorted(values.tolist()))


def test_who_searches_is_always_ahead_and_only_the_lead_tells() -> None:
    rng = np.random.default_rng(0)
    n, trials = 99, 600

    def searched() -> Rank:
        """The best of 50 places, none of which is special, among places drawn from the others."""
        falls = np.sort(rng.exponential(size=50))
        return sequential_rank(float(falls[-1]), rng.choice(falls[:-1], 99))

    small = by_rank = 0
    for _ in range(trials):
        leads = tuple(sorted(searched().lead for _ in range(n)))
        new = searched()
        by_rank += new.p <= 0.1
        small += Reference(n, 0.0, leads, (), leads, leads).p_erasure(new.lead) <= 0.1
    assert by_rank == trials  # its own rank says that each is unusual
    assert small / trials == pytest.approx(0.1, abs=0.04)


def test_drift_is_noticed_and_luck_is_not() -> None:
    uniform = [(i + 0.5) / 200 for i in range(200)]
    assert not drift(uniform, 250).warns
    shifted = [p**3 for p in uniform]
    assert drift(shifted, 250).warns
    assert drift(shifted, 250).observed == sum(p <= 0.1 for p in shifted)
    assert not drift([1.0] * 50, 250).warns
    assert drift([], 250).p == drift(shifted, 8).p == 1  # of nothing, and by a calibration that cannot tell a tenth


def test_drift_counts_the_calibrations_own_luck() -> None:
    rng = np.random.default_rng(0)
    warned = 0
    for _ in range(4000):
        largest = np.sort(rng.random(250))[-75]  # the rate at which new ones exceed it differs from 0.3
        over = rng.binomial(500, 1 - largest)
        warned += drift([0.0] * over + [1.0] * (500 - over), 250, 0.3).warns
    assert warned <= 14  # 4 on average; taken for exact it is 1 in 30
    assert drift([0.0] * 182 + [1.0] * 318, 250, 0.3).p == pytest.approx(0.038, abs=0.002)
