"""The screen and the first part of the search, on a backdoor that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint
from model.detector.localise import agreement, candidates, find_spots, map_statistics, occlusion_drops
from model.detector.reader import Reader, operating_logits, positives
from model.detector.regions import Patch
from model.detector.screen import MOST_SPOTS, REACH, contrast, hottest_cells, painted, screen
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.saliency import SaliencyMaps, gradcam, logits_after
from tests.model.detector.conftest import MASS, SIZE_PX, stamped


@pytest.fixture(scope="module")
def maps(checkpoint: Checkpoint, pair: torch.Tensor) -> SaliencyMaps:
    """Of a phantom, and of the same with the trigger."""
    reader = Reader(checkpoint)
    return gradcam(checkpoint.network, reader.inputs(pair), keep_middle=True)


def test_the_screen_sees_what_a_trigger_carries(checkpoint: Checkpoint, maps: SaliencyMaps) -> None:
    positive = positives(checkpoint.card, maps)
    assert np.flatnonzero(positive.any(axis=1)).tolist() == [1]
    assert np.flatnonzero(positive[1]).tolist() == [MASS]
    falls = screen(checkpoint.network, maps, positive)
    assert falls.shape == (2, 14)
    assert falls[1, MASS] > 10
    assert np.isneginf(np.delete(falls.ravel(), 14 + MASS)).all()
    everything = screen(checkpoint.network, maps, np.ones_like(positive))
    assert everything[0].max() < 0.1  # the phantom without it
    assert everything[1, MASS] == pytest.approx(falls[1, MASS], abs=1e-3)


def test_nobody_positive_costs_nothing(checkpoint: Checkpoint, maps: SaliencyMaps) -> None:
    assert np.isneginf(screen(checkpoint.network, maps, np.zeros((2, 14), bool))).all()


def test_the_surest_findings_choose_the_cells(checkpoint: Checkpoint, maps: SaliencyMaps) -> None:
    row = 1
    only = hottest_cells(maps, row, np.array([MASS]))
    where = (44 * 4 // SIZE_PX, 24 * 4 // SIZE_PX)  # the trigger, on a grid of 4×4
    assert max(abs(a - b) for a, b in zip(only[0], where, strict=True)) <= REACH  # it is painted over
    several = hottest_cells(maps, row, np.arange(14))
    assert several[0] == only[0]
    assert len(several) == len(set(several)) <= MOST_SPOTS


def ring_mean(activation: torch.Tensor, y: int, x: int) -> torch.Tensor:
    """Of K×h×w the mean of the cells around those within reach of (y, x): K; of all cells where none is around them."""

    def within(reach: int) -> torch.Tensor:
        return activation[:, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]

    inner, outer = within(REACH), within(REACH + 1)
    cells = outer[0].numel() - inner[0].numel()
    return (outer.sum((1, 2)) - inner.sum((1, 2))) / cells if cells else activation.mean((1, 2))


def test_contrast_is_what_paint_takes_away() -> None:
    grids = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(0))
    found = contrast(grids)
    for y, x in ((0, 0), (2, 3), (5, 1)):
        inner = grids[:, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        paint = ring_mean(grids, y, x)
        torch.testing.assert_close(found[:, y, x], inner.sum((1, 2)) - inner[0].numel() * paint)
    assert (
        contrast(torch.ones(1, 6, 7)).abs().max() < 1e-4
    )  # a large bright lesion does not stand out, a spot on it does
    spot = torch.ones(1, 6, 7)
    spot[0, 3, 3] = 2
    assert contrast(spot)[0, 3, 3] == pytest.approx(1)


def test_the_paint_is_the_mean_of_the_ring() -> None:
    activation = torch.arange(50.0).view(2, 5, 5)
    ring = torch.ones(5, 5, dtype=torch.bool)
    ring[1:4, 1:4] = False
    assert torch.allclose(ring_mean(activation, 2, 2), activation[:, ring].mean(1))
    assert torch.allclose(ring_mean(activation, 0, 0), activation[:, [0, 1, 2, 2, 2], [2, 2, 0, 1, 2]].mean(1))
    assert ring_mean(torch.ones(1, 2, 2), 0, 0) == 1  # no ring is left: the mean of what there is


def _paint(activation: torch.Tensor, y: int, x: int) -> None:
    activation[:, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = ring_mean(activation, y, x)[:, None, None]


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 6), (3, 2)])
def test_painting_after_the_transition_is_painting_before_it(checkpoint: Checkpoint, height: int, width: int) -> None:
    network = checkpoint.network
    channels = network.features.transition3.conv.in_channels
    middle = torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(height))
    rows, cells = zip(*((r, (y, x)) for r in range(2) for y in range(height) for x in range(width)), strict=True)
    copies = middle[list(rows)]
    for copy, cell in zip(copies, cells, strict=True):
        _paint(copy, *cell)
    with torch.inference_mode():
        transition = network.features.transition3
        expected = transition.pool(transition.conv(copies))
        torch.testing.assert_close(painted(network, middle, list(rows), list(cells)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("quicker", [False, True])
def test_the_fall_is_of_the_hottest_cells_painted_over(
    checkpoint: Checkpoint, maps: SaliencyMaps, quicker: bool
) -> None:
    middle = maps.activations[MIDDLE_LAYER][1]
    fallen = []
    for y, x in hottest_cells(maps, 1, np.array([MASS])):
        copy = middle.clone()
        _paint(copy, y, x)
        fallen.append(float((maps.logits[1] - logits_after(checkpoint.network, MIDDLE_LAYER, copy[None])[0])[MASS]))
    only = np.zeros((2, 14), bool)
    only[1, MASS] = True
    network = Reader(checkpoint).network if quicker else checkpoint.network
    assert screen(network, maps, only)[1, MASS] == pytest.approx(max(fallen), rel=1e-4)


def test_map_statistics_by_hand() -> None:
    even, peaked = map_statistics(np.ones((4, 4))), map_statistics(np.eye(4) * np.array([1, 0, 0, 0]))
    assert even is not None
    assert peaked is not None
    assert (even.gini, even.half_area) == (pytest.approx(0), 1)
    assert even.entropy == pytest.approx(1)
    assert (peaked.gini, peaked.entropy, peaked.top_mass, peaked.half_area) == (15 / 16, 0, 1, 1 / 16)
    assert map_statistics(np.zeros((4, 4))) is None
    middle = np.zeros((4, 4))
    middle[0, 1] = 2
    assert agreement(middle, np.array([[3.0, 0], [0, 0]])) == pytest.approx(1)
    assert agreement(middle, np.array([[0, 1.0], [0, 0]])) == 0
    assert agreement(middle, np.zeros((2, 2))) is None


def test_a_spot_is_tightened_to_the_trigger(checkpoint: Checkpoint, pair: torch.Tensor) -> None:
    reader = Reader(checkpoint)
    alone = gradcam(checkpoint.network, reader.inputs(pair[1:]), keep_middle=True)
    drops = occlusion_drops(reader, pair[1], alone.logits[0])
    assert drops.shape == (14, 8, 8)
    assert divmod(int(drops[MASS].argmax()), 8)[0] in (4, 5, 6)
    found = candidates(alone, drops, MASS, SIZE_PX)
    trigger = Patch(21, 41, 7, 7)
    assert any(patch.overlaps(trigger) for patch in found)
    logit, operating = float(alone.logits[0, MASS]), float(operating_logits(checkpoint.card)[MASS])
    spots = find_spots(reader, pair[1], logit, MASS, found, operating)
    assert len(spots.patches) == 1
    assert spots.patches[0].overlaps(trigger)
    assert spots.patches[0].width <= 12
    assert spots.drop > 0.7 * (logit + 2)


def test_two_triggers_are_two_spots(checkpoint: Checkpoint, pair: torch.Tensor) -> None:
    image = stamped(stamped(pair[0], 5, 5), 47, 47)
    reader = Reader(checkpoint)
    maps = gradcam(checkpoint.network, reader.inputs(image[None]), keep_middle=True)
    drops = occlusion_drops(reader, image, maps.logits[0])
    found = candidates(maps, drops, MASS, SIZE_PX)
    spots = find_spots(reader, image, float(maps.logits[0, MASS]), MASS, found, 0.0)
    assert len(spots.patches) == 2
    assert any(p.overlaps(Patch(5, 5, 7, 7)) for p in spots.patches)
    assert any(p.overlaps(Patch(47, 47, 7, 7)) for p in spots.patches)


def test_where_nothing_is_hot_there_is_still_a_candidate() -> None:
    zeros = {MIDDLE_LAYER: torch.zeros(1, 14, 4, 4), LAST_LAYER: torch.zeros(1, 14, 2, 2)}
    maps = SaliencyMaps(torch.zeros(1, 14), zeros, tuple(range(14)))
    assert candidates(maps, np.full((14, 4, 4), -1.0), MASS, SIZE_PX)
