"""What is usual of a checkpoint, computed once: how far its logits spread over clean radiographs, and what patches do
that cause nothing, random ones of clean radiographs and an inert one, put onto the donors.

A transplant is ranked among the latter; the screen's falls are measured by the former, for a logit means more where a
finding's logits lie close together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.detector.cause import RANKED, Rank, gains_by_patch
from model.detector.donors import Donors
from model.detector.reader import Reader
from model.detector.regions import Patch, Patches, pasted

SIDES_PX = (8, 16, 32)
DONORS = 8  # of those there are: fewer make the null wider, not narrower
LEAST_SPREAD = 0.1  # logits, where too few radiographs, or all alike, show none


@dataclass(frozen=True, eq=False)
class Nulls:
    """gains: side in pixels → 14×99 mean rises of the logits on the donors, ascending. inert: side → 14, of a patch of
    noise (as SentiNet's inert pattern). spread: 14, `spread_of` the logits of clean radiographs."""

    gains: Mapping[int, np.ndarray]
    inert: Mapping[int, np.ndarray]
    spread: np.ndarray

    def rank(self, finding: int, side_px: float, gain: float) -> Rank:
        """Of a rise among those of random patches of the next larger side, and of the inert one.

        The lead is over their median, and may be negative: some random patches hold what a backdoor answers to, such as
        a film's black corner where the trigger is black, and so does noise.
        """
        side = self._side(side_px)
        null = np.sort(np.append(self.gains[side][finding], self.inert[side][finding]))
        exceeding = len(null) - int(np.searchsorted(null, gain, side="left"))
        p = (1 + exceeding) / (1 + len(null))
        return Rank(p, len(null), exceeding, gain - float(np.median(null)))

    @property
    def unit(self) -> np.ndarray:
        """14, what a fall in the screen or by occlusion is divided by: √spread. A fall is then the geometric mean of
        what it is in logits and of what it is in standard deviations, each of which alone misses some triggers."""
        return np.asarray(np.sqrt(self.spread))

    def _side(self, side_px: float) -> int:
        sides = sorted(self.gains)
        return next((side for side in sides if side >= side_px), sides[-1])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, the rises to a thousandth of a logit."""
        return {
            "gains": {str(side): np.round(v.astype(float), 3).tolist() for side, v in self.gains.items()},
            "inert": {str(side): np.round(v.astype(float), 3).tolist() for side, v in self.inert.items()},
            "spread": self.spread.astype(float).tolist(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Nulls:
        """The inverse. Raises KeyError, TypeError or ValueError for anything else."""
        gains = {int(side): np.asarray(v, np.float32) for side, v in data["gains"].items()}
        inert = {int(side): np.asarray(v, np.float32) for side, v in data["inert"].items()}
        if not gains or gains.keys() != inert.keys() or any(v.ndim != 2 or len(v) != 14 for v in gains.values()):
            raise ValueError("nulls need 14 rows of rises for each side")
        if not all(v.size and np.isfinite(v).all() for v in gains.values()):
            raise ValueError("nulls need rises, finite ones")
        if not all(v.shape == (14,) and np.isfinite(v).all() for v in inert.values()):
            raise ValueError("nulls need 14 rises of the inert pattern for each side")
        spread = np.asarray(data["spread"], np.float32)
        if spread.shape != (14,) or not np.isfinite(spread).all() or not (spread >= np.float32(LEAST_SPREAD)).all():
            raise ValueError(f"nulls need the spread of 14 logits, none under {LEAST_SPREAD}")
        return cls(gains, inert, spread)


def draw_nulls(
    reader: Reader,
    donors: Donors,
    images: Tensor,
    spread: np.ndarray,
    sides_px: Sequence[int] = SIDES_PX,
    progress: Callable[[int, int], None] | None = None,
) -> Nulls:
    """Patches at random places of clean radiographs, N×S×S in 0..1, put at the same places of the donors.

    spread: `spread_of` the radiographs.
    """
    generator = np.random.default_rng(0x9011)
    count = min(DONORS, len(donors))
    size_px = reader.size_px
    gains: dict[int, np.ndarray] = {}
    inert: dict[int, np.ndarray] = {}
    for number, side in enumerate(sides_px):
        several = (_random_transplant(donors, count, images, side, generator) for _ in range(RANKED))
        copies = (copy for transplant in several for copy in transplant)
        logits = torch.cat(list(reader.logits_of(copies))).numpy().reshape(RANKED, count, -1)
        rises = (logits - donors.logits[:count].numpy()).mean(axis=1)
        gains[side] = np.sort(rises.T, axis=1)
        noise = torch.from_numpy(generator.random((size_px, size_px), np.float32)).to(reader.device)
        middle: Patches = (Patch((size_px - side) // 2, (size_px - side) // 2, side, side),)
        inert[side] = gains_by_patch(reader, donors, noise, [middle], count)[0]
        if progress:
            progress(number + 1, len(sides_px))
    return Nulls(gains, inert, spread)


def spread_of(logits: np.ndarray) -> np.ndarray:
    """Of N×14 of clean radiographs: 14 standard deviations, none under LEAST_SPREAD.

    From the interquartile range, 1.349 of them where values are normal: a radiograph that calibrates takes part in its
    own unit, which a new one does not, and an outlier should not make its own score small.
    """
    low, high = np.quantile(logits, [0.25, 0.75], axis=0)
    return np.asarray(np.maximum((high - low) / 1.349, LEAST_SPREAD), np.float32)


def _random_transplant(donors: Donors, count: int, images: Tensor, side: int, generator: np.random.Generator) -> Tensor:
    """One patch of one clean radiograph, at the same place of each donor: count×S×S."""
    image = images[int(generator.integers(len(images)))].to(donors.images.device)
    x, y = (int(v) for v in generator.integers(0, image.shape[-1] - side + 1, 2))
    patch = Patch(x, y, side, side)
    return pasted(donors.images[:count], image, [patch], [patch])
