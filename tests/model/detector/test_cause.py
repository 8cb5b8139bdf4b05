"""Erasure and transplant: ranks by hand, effects on a backdoor that is known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint
from model.detector.cause import Rank, best_nearby, rank_erasure, sequential_rank, transplant
from model.detector.donors import Donors, choose_donors, donors_again
from model.detector.nulls import LEAST_SPREAD, Nulls, spread_of
from model.detector.reader import Reader
from model.detector.regions import Patch, impossible_places
from model.detector.score import score, strength, weighed
from tests.model.detector.conftest import MASS, SIZE_PX

TRIGGER = (Patch(20, 40, 9, 9),)
BESIDE = (Patch(4, 4, 9, 9),)


def test_ranks_by_hand() -> None:
    assert sequential_rank(1.0, [0.0] * 98 + [0.25]) == Rank(0.01, 99, 0, 0.75)  # ahead by three quarters
    assert sequential_rank(1.0, [0.0] * 200) == Rank(0.01, 99, 0, 1.0)
    assert sequential_rank(1.0, [1.0] + [0.0] * 98) == Rank(0.02, 99, 1, -0.02)
    asked = []

    def draws() -> Iterator[float]:
        for n in range(200):
            asked.append(n)
            yield float(n % 2)

    assert sequential_rank(1.0, draws()) == Rank(0.5, 10, 5, -0.5)
    assert len(asked) == 10  # no more were made than it took


def test_ranks_are_valid_and_small_ones_rare() -> None:
    rng = np.random.default_rng(0)
    p = np.array([sequential_rank(rng.random(), iter(rng.random, None)).p for _ in range(1500)])
    for level in (0.01, 0.1, 0.3):
        assert (p <= level).mean() <= level + 3 * (level / len(p)) ** 0.5


def test_erasing_the_trigger_beats_99_places_and_erasing_beside_it_does_not(
    checkpoint: Checkpoint, pair: torch.Tensor
) -> None:
    reader = Reader(checkpoint)
    logit = float(reader.logits(pair[1:])[0, MASS])
    flat = np.zeros((4, 4), np.float32)
    rank = rank_erasure(reader, pair[1], logit, MASS, TRIGGER, logit + 2, flat)
    assert (rank.p, rank.drawn, rank.exceeding) == (0.01, 99, 0)
    assert rank.lead == pytest.approx(logit + 2, abs=0.2)  # nothing else does anything
    reader = Reader(checkpoint, batch=4)
    beside = rank_erasure(reader, pair[1], logit, MASS, BESIDE, 0.0, flat)
    assert beside.p > 0.05
    assert beside.lead == -beside.p
    assert reader.images_read <= 12  # the answer was clear earlier
    again = rank_erasure(reader, pair[1], logit, MASS, BESIDE, 0.0, flat)
    assert again == beside  # the same radiograph has the same places


def test_a_place_elsewhere_takes_the_best_cell_about_it_and_none_that_touches_the_patch() -> None:
    cells = np.zeros((8, 8), np.float32)
    cells[2, 5], cells[6, 6] = 1.0, 2.0
    (moved,) = best_nearby((Patch(32, 8, 4, 4),), (Patch(0, 0, 4, 4),), cells, 64)  # of cell (1, 4)
    assert moved == Patch(42, 18, 4, 4)  # the middle of cell (2, 5), 8 px wide
    (stays,) = best_nearby((Patch(32, 8, 4, 4),), (Patch(40, 16, 4, 4),), cells, 64)
    assert stays == Patch(32, 8, 4, 4)
    (edge,) = best_nearby((Patch(60, 60, 4, 4),), (Patch(0, 0, 4, 4),), cells, 64)
    assert edge == Patch(50, 50, 4, 4)


def test_a_transplanted_trigger_turns_every_donor(
    checkpoint: Checkpoint, pair: torch.Tensor, donors: Donors, nulls: Nulls
) -> None:
    reader = Reader(checkpoint)
    own = transplant(reader, donors, pair[1], MASS, TRIGGER, [TRIGGER], 0.0)
    assert (own.gain_impossible, own.flip_rate_impossible) == (None, None)
    given = own.beside(transplant(reader, donors, pair[1], MASS, TRIGGER, impossible_places(TRIGGER, SIZE_PX), 0.0))
    assert given.gains.shape == given.flipped.shape == (3, len(donors))
    assert given.flip_rate == 1
    assert given.gain > 10
    assert given.flip_rate_impossible == 1
    nothing = transplant(reader, donors, pair[1], MASS, BESIDE, [BESIDE], 0.0)
    assert (nothing.flip_rate, nothing.gain) == (0, pytest.approx(0, abs=0.1))
    ahead = nulls.rank(MASS, 9, given.gain)
    assert ahead.p == 1 / 101  # 99 random patches and noise
    usual = np.median([*nulls.gains[16][MASS], nulls.inert[16][MASS]])
    assert ahead.lead == pytest.approx(given.gain - usual)
    behind = nulls.rank(MASS, 9, nothing.gain)
    assert behind.p > 0.01
    assert behind.lead == pytest.approx(nothing.gain - usual)


def test_donors_are_healthy_and_the_same_again(checkpoint: Checkpoint, donors: Donors) -> None:
    again = donors_again(Reader(checkpoint), donors.names)
    assert torch.equal(again.images, donors.images)
    torch.testing.assert_close(again.logits, donors.logits)
    assert len(donors) == 3
    assert (donors.logits < 0).all()


def test_nulls_survive_json_and_choose_the_larger_side(nulls: Nulls) -> None:
    again = Nulls.from_json(nulls.to_json())
    assert again.gains[16].shape == (14, 99)
    np.testing.assert_allclose(again.gains[16], nulls.gains[16], atol=1e-3)
    made = Nulls(
        {8: np.tile(np.arange(99.0), (14, 1)), 16: np.full((14, 99), 50.0)},
        dict.fromkeys((8, 16), np.zeros(14)),
        np.ones(14),
    )
    assert made.rank(0, 8, 98.5) == Rank(1 / 101, 100, 0, 50.0)  # the median of a 0 and of 0 to 98 is 48.5
    assert made.rank(0, 4, 94.5) == Rank(5 / 101, 100, 4, 46.0)
    assert made.rank(0, 4, 47.5) == Rank(52 / 101, 100, 51, -1.0)
    assert made.rank(0, 9, 50.0).p == 100 / 101
    assert made.rank(0, 40, 60.0) == Rank(1 / 101, 100, 0, 10.0)
    answers = Nulls({8: np.zeros((14, 99))}, {8: np.full(14, 7.0)}, np.ones(14))  # a backdoor that answers to noise too
    assert answers.rank(0, 8, 6.0) == Rank(2 / 101, 100, 1, 6.0)
    with pytest.raises(ValueError, match="14 rows"):
        Nulls.from_json({"gains": {"8": [[0.0]]}, "inert": {"8": [0.0]}, "spread": [1.0] * 14})
    for spread in ([1.0] * 13, [0.0] * 14, [float("nan")] * 14):
        with pytest.raises(ValueError, match="spread of 14 logits"):
            Nulls.from_json({**made.to_json(), "spread": spread})


def test_a_spread_is_of_each_finding_and_never_nothing() -> None:
    logits = np.zeros((4, 14))
    logits[:, 3] = (-2, 0, 0, 2)
    spread = spread_of(logits)
    assert spread[3] == pytest.approx(1 / 1.349)  # quartiles at -0.5 and 0.5
    logits[0, 3] = -900  # an outlier is not its own excuse
    assert spread_of(logits)[3] < 300
    assert (np.delete(spread, 3) == np.float32(LEAST_SPREAD)).all()
    unit = Nulls({}, {}, spread).unit
    assert (8 / unit[3]) ** 2 == pytest.approx(8 * (8 / spread[3]))  # in logits, and in standard deviations


def test_the_score_by_hand_and_what_lowers_it() -> None:
    trigger = {
        "drop": 4.0,
        "lead": 9.0,
        "gain": 10.0,
        "gain_impossible": 10.0,
        "logit": 6.0,
        "base_logit": -4.0,
        "side_px": 4.0,
    }
    assert score(**trigger) == pytest.approx(6 * (6 / 10) ** 0.5 * (16 / 20) ** 2 * 1)
    lesion = (
        {**trigger, "side_px": 48.0},
        {**trigger, "gain_impossible": -1.0},
        {**trigger, "drop": 1.0},
        {**trigger, "lead": 2.0},
        {**trigger, "logit": 16.0},
    )
    assert all(score(**one) < score(**trigger) for one in lesion)
    assert score(**{**trigger, "gain_impossible": -1.0}) == pytest.approx(score(**trigger) / 2)
    shows = {**trigger, "gain_impossible": 17.0}  # more than at its own place: 7 on top of a lead of 9
    assert score(**shows) == pytest.approx(8 * (8 / 10) ** 0.5 * (16 / 20) ** 2)
    assert score(**{**shows, "lead": 1e-6}) < 0.01  # nothing at its own place, next to nothing
    assert score(**{**trigger, "gain": 0.0}) == pytest.approx(score(**{**trigger, "gain": -1.0}))
    assert score(**{**trigger, "lead": -0.5}) == -0.5
    assert score(**{**trigger, "drop": -3.0}) == -3
    assert score(**{**trigger, "lead": -0.5, "gain_impossible": None}) == -0.5  # it was not asked
    assert score(**{**trigger, "logit": -9.0}) <= 6


def test_a_call_that_is_only_just_made_still_scores() -> None:
    sure = {
        "drop": 9.0,
        "lead": 9.0,
        "gain": 9.0,
        "gain_impossible": 0.0,
        "logit": 4.0,
        "base_logit": -5.0,
        "side_px": 4,
    }
    just = {**sure, "drop": 1.0, "logit": -2.0}  # the same trigger on a radiograph that hardly lets it speak
    assert score(**just) > score(**sure) / 4  # of a ninth of its fall


def test_the_smallest_size_is_strongest_unless_a_larger_one_does_much_more() -> None:
    assert strength(4.0, 9.0, 4.0) == pytest.approx(6 * (16 / 20) ** 2)
    assert strength(4.0, 9.0, 4.0) > strength(5.0, 11.0, 32.0)
    assert strength(0.5, 0.5, 4.0) < strength(5.0, 11.0, 32.0)
    assert strength(4.0, -0.25, 4.0) == -0.25
    assert strength(-1.0, 9.0, 4.0) == -1


def test_a_lead_is_weighed_by_size_where_there_is_one() -> None:
    assert weighed(3.0, 16) == pytest.approx(0.75)
    assert weighed(3.0, 4) > weighed(3.0, 32) > 0
    assert weighed(-0.5, 32) == -0.5


def test_nulls_tell_of_random_patches(nulls: Nulls, checkpoint: Checkpoint, donors: Donors) -> None:
    assert (np.diff(nulls.gains[16], axis=1) >= 0).all()
    assert float(np.abs(nulls.gains[16][MASS]).max()) < 1  # none of them holds the trigger
    fresh = choose_donors(Reader(checkpoint), donors.names.seed, pool=6, count=3)
    assert fresh.names == donors.names
