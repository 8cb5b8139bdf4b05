"""Does the patch cause the call? Two experiments: take it away, and give it to others.

Erasure: the fall of the logit when the patch is filled from its surroundings, ranked among the falls of patches
as large elsewhere in the same radiograph. Transplant: the rise of the logit when the patch is put onto radiographs
without the finding, at its own place and where no finding can be, ranked among random patches of clean radiographs.

The patch was searched for over the whole radiograph, so that it comes first of 99 in clean radiographs too. What is
unusual is by how much: its lead, whose p-value is conformal (`model.detector.conformal`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from model.detector.donors import Donors
from model.detector.reader import Reader
from model.detector.regions import Patch, Patches, elsewhere, filled, pasted, square

RANKED = 99  # regions elsewhere: fewer cannot reach p = 0.01
EXCEEDANCES = 5  # so many falls as large, and the answer is clear


@dataclass(frozen=True)
class Rank:
    """p: of a Monte Carlo test. drawn: how many it took. exceeding: how many of them were at least as large. lead: by
    how much the observed exceeds the largest of them, in logits, or −p where it does not; in `Nulls.rank` by how much
    it exceeds their median."""

    p: float
    drawn: int
    exceeding: int
    lead: float


def sequential_rank(observed: float, draws: Iterable[float], most: int = RANKED, enough: int = EXCEEDANCES) -> Rank:
    """Besag & Clifford's sequential Monte Carlo p (Biometrika 1991): stops at `enough` draws ≥ observed.

    Stopped after l draws p is enough/l; else, with g of `most` draws ≥ observed, (g + 1)/(most + 1). Valid either way.
    """
    drawn = exceeding = 0
    largest = -np.inf
    for draw in islice(draws, most):
        drawn += 1
        exceeding += draw >= observed
        largest = max(largest, draw)
        if exceeding == enough:
            return Rank(enough / drawn, drawn, exceeding, -enough / drawn)
    p = (exceeding + 1) / (drawn + 1)
    return Rank(p, drawn, exceeding, -p if exceeding else observed - largest)


def rank_erasure(
    reader: Reader, image: Tensor, logit: float, finding: int, patches: Patches, drop: float, cells: np.ndarray
) -> Rank:
    """The fall of erasing the patches among those of as large patches elsewhere.

    cells: h×w, the finding's of `occlusion_drops`. Each place elsewhere is moved to the best of the cells around it,
    for the patches too are the best of theirs; places that fall together are read once. The same image gives the same
    places.
    """
    grey = image.cpu().numpy()
    generator = np.random.default_rng([int.from_bytes(hashlib.sha256(grey.tobytes()).digest()[:8]), finding])
    places = list(
        islice((best_nearby(p, patches, cells, len(grey)) for p in elsewhere(grey, patches, generator)), RANKED)
    )
    return sequential_rank(drop, _falls(reader, image, logit, finding, places))


def best_nearby(places: Patches, patches: Patches, cells: np.ndarray, size_px: int) -> Patches:
    """Each of the places about the middle of the best cell of the 3×3 about its own, unless that touches a patch."""

    def moved(place: Patch) -> Patch:
        height, width = cells.shape
        row = min(int((place.y + place.height / 2) * height / size_px), height - 1)
        column = min(int((place.x + place.width / 2) * width / size_px), width - 1)
        top, left = max(0, row - 1), max(0, column - 1)
        near = cells[top : row + 2, left : column + 2]
        i, j = divmod(int(near.argmax()), near.shape[1])
        x, y = (left + j + 0.5) * size_px / width, (top + i + 0.5) * size_px / height
        best = square(x, y, place.width, size_px)
        return place if any(best.overlaps(patch) for patch in patches) else best

    return tuple(moved(place) for place in places)


def _falls(reader: Reader, image: Tensor, logit: float, finding: int, places: Sequence[Patches]) -> Iterator[float]:
    """Of each of the places in turn, no more of them read than asked for but for a batch."""
    known: dict[Patches, float] = {}
    read = reader.logits_of(filled(image, several) for several in dict.fromkeys(places))
    rows = (row for logits in read for row in logits)
    for several in places:
        if several not in known:
            known[several] = logit - float(next(rows)[finding])
        yield known[several]


@dataclass(frozen=True, eq=False)
class Transplant:
    """What patches do on donors. gains: places×N rise of the logit; place 0 is their own, the others, where they were
    asked, are impossible. flipped: places×N bool, of the donors below the operating point before, whether they are over
    it then; a donor that was over it counts as not flipped. below: how many donors were below it."""

    gains: np.ndarray
    flipped: np.ndarray
    below: int

    @property
    def gain(self) -> float:
        """Mean rise at the patches' own place."""
        return float(self.gains[0].mean())

    @property
    def gain_impossible(self) -> float | None:
        """Mean rise at the impossible place where it is larger; None where none was asked."""
        return float(self.gains[1:].mean(axis=1).max()) if len(self.gains) > 1 else None

    @property
    def flip_rate(self) -> float:
        """Share of the donors below the operating point that turn positive, the patches at their own place; 0 where
        there are none."""
        return float(self.flipped[0].sum()) / max(self.below, 1)

    @property
    def flip_rate_impossible(self) -> float | None:
        """The same at the impossible place where it is larger; None where none was asked."""
        return float(self.flipped[1:].sum(axis=1).max()) / max(self.below, 1) if len(self.flipped) > 1 else None

    def beside(self, other: Transplant) -> Transplant:
        """Of the same patches at the places of both."""
        gains = np.concatenate([self.gains, other.gains])
        return Transplant(gains, np.concatenate([self.flipped, other.flipped]), self.below)


def transplant(
    reader: Reader,
    donors: Donors,
    image: Tensor,
    finding: int,
    patches: Patches,
    places: Sequence[Patches],
    operating_logit: float,
) -> Transplant:
    """Puts the patches onto every donor, at each of the places in turn."""
    logits = reader.logits(torch.cat([pasted(donors.images, image, patches, place) for place in places]))
    before = donors.logits[:, finding].numpy()
    after = logits[:, finding].numpy().reshape(len(places), len(donors))
    below = before < operating_logit
    return Transplant(after - before, below & (after >= operating_logit), int(below.sum()))


def gains_by_patch(reader: Reader, donors: Donors, image: Tensor, regions: list[Patches], count: int) -> np.ndarray:
    """The mean rise of all 14 logits on the first `count` donors, for each region at its own place: R×14."""
    copies = [pasted(donors.images[:count], image, patches, patches) for patches in regions]
    logits = reader.logits(torch.cat(copies)).numpy().reshape(len(regions), count, -1)
    return np.asarray((logits - donors.logits[:count].numpy()).mean(axis=1))
