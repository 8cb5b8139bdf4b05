"""Patches of an input image: filled from their surroundings, copied onto other images, moved elsewhere.

Images are what the network is about to see, before normalisation: S×S float32 in 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.preprocess import Box

RING_PX = 2  # as deep are the sides that a filled patch takes its grey from


@dataclass(frozen=True, order=True)
class Patch:
    """A rectangle of whole input pixels: its left top corner, its width and its height."""

    x: int
    y: int
    width: int
    height: int

    @property
    def box(self) -> Box:
        """The same as edges in input pixels."""
        return float(self.x), float(self.y), float(self.width), float(self.height)

    @property
    def side(self) -> float:
        """Of the square of the same area."""
        return math.sqrt(self.width * self.height)

    @property
    def rows(self) -> slice:
        """Of an image."""
        return slice(self.y, self.y + self.height)

    @property
    def columns(self) -> slice:
        """Of an image."""
        return slice(self.x, self.x + self.width)

    def moved(self, dx: int, dy: int, size_px: int) -> Patch:
        """The same patch elsewhere, as far as it stays inside the image."""
        x = min(max(self.x + dx, 0), size_px - self.width)
        y = min(max(self.y + dy, 0), size_px - self.height)
        return Patch(x, y, self.width, self.height)

    def overlaps(self, other: Patch) -> bool:
        """Whether they share a pixel."""
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


Patches = tuple[Patch, ...]


def square(centre_x: float, centre_y: float, side: int, size_px: int) -> Patch:
    """A square about a point given in pixel edges; shifted so that it lies within an image of size_px²."""
    side = min(side, size_px)
    return Patch(round(centre_x - side / 2), round(centre_y - side / 2), side, side).moved(0, 0, size_px)


def filled(image: Tensor, patches: Sequence[Patch]) -> Tensor:
    """A copy of S×S with the patches painted over from their surroundings.

    A pixel becomes the mean of the strips beyond the patch's four sides, each weighted by one over its distance: no
    edge is drawn where there was none. Sides that lie on the image's border do not count.
    """
    copy = image.clone()
    for patch in patches:
        copy[patch.rows, patch.columns] = _surroundings(copy, patch)
    return copy


def _surroundings(image: Tensor, patch: Patch) -> Tensor:
    x, y, width, height = patch.x, patch.y, patch.width, patch.height
    down = torch.arange(1, height + 1, device=image.device, dtype=image.dtype)[:, None]
    right = torch.arange(1, width + 1, device=image.device, dtype=image.dtype)[None, :]
    sides = (
        (image[max(0, y - RING_PX) : y, patch.columns], 0, down),
        (image[y + height : y + height + RING_PX, patch.columns], 0, height + 1 - down),
        (image[patch.rows, max(0, x - RING_PX) : x], 1, right),
        (image[patch.rows, x + width : x + width + RING_PX], 1, width + 1 - right),
    )
    total = image.new_zeros(height, width)
    weights = image.new_zeros(height, width)
    for strip, axis, distance in sides:
        if strip.numel():
            total += strip.mean(axis, keepdim=True) / distance
            weights += 1 / distance
    return total / weights if bool(weights.any()) else image.mean().expand(height, width)


def pasted(images: Tensor, image: Tensor, patches: Sequence[Patch], places: Sequence[Patch]) -> Tensor:
    """Copies of N×S×S with the patches of one image, S×S, put at the places, which are as large as they are."""
    copies = images.clone()
    for patch, place in zip(patches, places, strict=True):
        copies[:, place.rows, place.columns] = image[patch.rows, patch.columns]
    return copies


def impossible_places(patches: Sequence[Patch], size_px: int) -> tuple[Patches, Patches]:
    """The patches where no finding of the chest can be: in the air above a shoulder, and at the abdomen's lower edge.

    Two, because a black trigger does not show on the air, nor a white one on a bright abdomen. Several patches keep
    their places to each other as far as the image allows.
    """
    first = patches[0]
    corners = (
        (round(0.03 * size_px), round(0.03 * size_px)),
        ((size_px - first.width) // 2, size_px - first.height - round(0.02 * size_px)),
    )
    one, two = (tuple(p.moved(x - first.x, y - first.y, size_px) for p in patches) for x, y in corners)
    return one, two


def elsewhere(
    image: np.ndarray, patches: Sequence[Patch], generator: np.random.Generator, tries: int = 50
) -> Iterator[Patches]:
    """Endlessly, as many patches of the same sizes at random places of S×S that touch none of the given ones.

    Flat places, such as padding, where there is nothing to erase, are passed over where others can be found.
    """
    size_px = image.shape[0]
    while True:
        places = []
        for patch in patches:
            place = patch
            for _ in range(tries):
                x = int(generator.integers(0, size_px - patch.width + 1))
                y = int(generator.integers(0, size_px - patch.height + 1))
                place = Patch(x, y, patch.width, patch.height)
                if not any(place.overlaps(p) for p in patches) and np.ptp(image[place.rows, place.columns]) > 0.01:
                    break
            places.append(place)
        yield tuple(places)
