"""The search for the smallest patch, on a network that answers to one point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from model.detector import measure
from model.detector.localise import SIDES_PX, find_spots, occlusion_side
from model.detector.regions import Patch, square


class Point:
    """As a reader: 10 for a white square of 4×4 at a place, as far as it is there; −5 without it."""

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def logits(self, images: Sequence[Tensor]) -> Tensor:
        seen = torch.stack([image[self.y : self.y + 4, self.x : self.x + 4].mean() for image in images])
        return (15 * seen - 5)[:, None]


@pytest.mark.parametrize("size_px", [128, 224, 512, 1024])
def test_a_trigger_is_found_wherever_it_lies_in_the_square_that_it_is_searched_in(size_px: int) -> None:
    rng = np.random.default_rng(0)
    side = max(SIDES_PX[0], occlusion_side(size_px))
    start = square(size_px / 2, size_px / 2, side, size_px)
    for _ in range(20):
        x, y = (int(v) for v in rng.integers((start.x, start.y), (start.x + side - 3, start.y + side - 3)))
        image = torch.zeros(size_px, size_px)
        image[y : y + 4, x : x + 4] = 1
        (patch,) = find_spots(Point(x, y), image, 10.0, 0, [start], 0.0).patches  # type: ignore[arg-type]
        assert patch.width <= SIDES_PX[0]
        assert patch.x - 16 <= x and x + 4 <= patch.x + patch.width + 16  # the 32 px about its middle hold it
        assert patch.y - 16 <= y and y + 4 <= patch.y + patch.width + 16


@pytest.mark.parametrize(
    ("drops", "over", "side"),
    [
        ([0.1, 0.2, 0.3, 0.4, 1.0, 1.0], 9.0, 24),  # nothing takes the call away: most of what any size does
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 9.0, 16),  # no less than a middle cell
        ([0.3, 0.8, 1.1, 1.2, 1.3, 2.0], 0.7, 16),  # gone already: the rest is a disease's
        ([0.3, 4.0, 7.0, 9.0, 9.9, 10.0], 9.5, 24),  # most is not yet gone
        ([2.0, 2.0, 2.0, -0.2, 1.9, 1.9], 0.5, 24),  # a middle cell is not enough
        ([2.0, 2.0, 2.0, -0.2, 0.1, 0.3], 0.5, 32),  # nothing as large is: what does most
        ([0.0, 0.9, 2.3, 4.2, 5.0, 5.1], 3.9, 24),  # a quarter of the cell is not half of it: the spot may be larger
        ([0.0, 2.9, 2.3, 4.2, 5.0, 5.1], 3.9, 16),
        ([0.0, 0.9, 2.3, 4.2, 3.8, 5.1], 3.9, 16),  # the next larger would let the call stand
        ([-1.0, -0.9, -0.8, -0.7, -0.3, -0.2], 0.1, 32),  # erasing helps the call: what helps it least
    ],
)
def test_a_region_is_no_larger_than_the_call_needs(drops: list[float], over: float, side: int) -> None:
    assert measure.SIDES_PX[measure.region_size(np.array(drops), over)] == side


def test_a_region_that_the_call_does_not_hang_on_is_not_shown() -> None:
    image = torch.zeros(64, 64)
    image[20:24, 20:24] = 1
    spot, other = Patch(16, 16, 16, 16), Patch(40, 40, 16, 16)

    def needed(*regions: Patch, operating_logit: float = 0.0) -> tuple[Patch, ...]:
        reader = Point(20, 20)
        return measure.needed_regions(reader, image, 10.0, operating_logit, 0, regions)  # type: ignore[arg-type]

    assert needed(spot) == (spot,)
    assert needed(spot, other) == (spot,)
    assert needed(other, spot) == (other, spot)
    assert needed(spot, other, operating_logit=-9.0) == (spot, other)
