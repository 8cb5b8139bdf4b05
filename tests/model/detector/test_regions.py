"""Filling, copying and moving patches, by hand."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch

from model.detector.regions import Patch, elsewhere, filled, impossible_places, pasted, square


def test_a_filled_patch_takes_its_surroundings_and_leaves_the_rest() -> None:
    image = torch.full((20, 20), 0.5)
    image[8:11, 8:11] = 0
    whole = filled(image, [Patch(8, 8, 3, 3)])
    torch.testing.assert_close(whole, torch.full((20, 20), 0.5))
    assert image[9, 9] == 0  # a copy
    ramp = torch.linspace(0, 1, 20).expand(20, 20).clone()
    smooth = filled(ramp, [Patch(8, 8, 3, 3)])
    assert float((smooth - ramp).abs().max()) < 0.06
    assert torch.equal(smooth[:8], ramp[:8])


def test_a_patch_at_the_corner_takes_the_sides_that_it_has() -> None:
    image = torch.zeros(16, 16)
    image[4:6, :4] = 1  # below the patch
    image[:4, 4:6] = 0.5  # to its right
    done = filled(image, [Patch(0, 0, 4, 4)])
    below, beside = 1 / 1, 0.5 / 4  # nearest row and farthest column: weights 1/1 and 1/4
    assert float(done[3, 0]) == np.float32((below + beside) / (1 + 1 / 4))
    everything = filled(image, [Patch(0, 0, 16, 16)])
    torch.testing.assert_close(everything, image.mean().expand(16, 16))


def test_squares_stay_inside() -> None:
    assert square(10, 10, 4, 32) == Patch(8, 8, 4, 4)
    assert square(0, 31, 8, 32) == Patch(0, 24, 8, 8)
    assert square(5, 5, 64, 32) == Patch(0, 0, 32, 32)


def test_a_transplant_moves_the_pixels_and_nothing_else() -> None:
    donors = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0))
    image = torch.zeros(16, 16)
    patch, place = Patch(2, 3, 4, 5), Patch(9, 8, 4, 5)
    given = pasted(donors, image, [patch], [place])
    assert not given[:, 8:13, 9:13].any()
    given[:, 8:13, 9:13] = donors[:, 8:13, 9:13]
    assert torch.equal(given, donors)


def test_impossible_places_are_a_corner_and_the_abdomen() -> None:
    several = (Patch(100, 100, 8, 8), Patch(120, 90, 4, 4))
    corner, abdomen = impossible_places(several, 224)
    assert corner[0] == Patch(7, 7, 8, 8)
    assert corner[1] == Patch(27, 0, 4, 4)  # 20 right of the first; above the image is nothing
    assert abdomen[0].y + 8 == 224 - 4
    assert abdomen[0].x == 108


def test_regions_elsewhere_are_as_large_and_touch_nothing() -> None:
    image = np.random.default_rng(0).random((64, 64), np.float32)
    image[:, 40:] = 0  # padding, where nothing could be erased
    patches = (Patch(10, 10, 8, 8), Patch(20, 30, 4, 4))
    regions = list(islice(elsewhere(image, patches, np.random.default_rng(1)), 60))
    again = list(islice(elsewhere(image, patches, np.random.default_rng(1)), 60))
    assert regions == again
    for one, two in regions:
        assert (one.width, two.width) == (8, 4)
        assert not any(place.overlaps(patch) for place in (one, two) for patch in patches)
        assert one.x < 40
    assert len({one for one, _ in regions}) > 40
