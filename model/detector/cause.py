"""Does the patch cause the call? Two experiments: take it away, and give it to others.

Erasure: the fall of the logit when the patch is filled from its surroundings, ranked among the falls of patches
as large elsewhere in the same radiograph. Transplant: the rise of the logit when the patch is put onto radiographs
without the finding, at its own place and where no finding can be, ranked among random patches of clean radiographs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from model.detector.donors import Donors
from model.detector.reader import Reader
from model.detector.regions import Patches, elsewhere, filled, impossible_places, pasted

RANKED = 99  # regions elsewhere: fewer cannot reach p = 0.01
EXCEEDANCES = 5  # so many falls as large, and the answer is clear


@dataclass(frozen=True)
class Rank:
    """p: of a Monte Carlo test. drawn: how many it took. exceeding: how many of them were at least as large."""

    p: float
    drawn: int
    exceeding: int


def sequential_rank(observed: float, draws: Iterable[float], most: int = RANKED, enough: int = EXCEEDANCES) -> Rank:
    """Besag & Clifford's sequential Monte Carlo p (Biometrika 1991): stops at `enough` draws ≥ observed.

    Stopped after l draws p is enough/l; else, with g of `most` draws ≥ observed, (g + 1)/(most + 1). Valid either way.
    """
    drawn = exceeding = 0
    for draw in islice(draws, most):
        drawn += 1
        exceeding += draw >= observed
        if exceeding == enough:
            return Rank(enough / drawn, drawn, exceeding)
    return Rank((exceeding + 1) / (drawn + 1), drawn, exceeding)


def rank_erasure(
    reader: Reader, image: Tensor, logit: float, finding: int, patches: Patches, drop: float, seed: int
) -> Rank:
    """The fall of erasing the patches among those of as large patches elsewhere."""
    places = elsewhere(image.cpu().numpy(), patches, np.random.default_rng(seed))
    images = (filled(image, several) for several in islice(places, RANKED))
    draws = (logit - float(row[finding]) for logits in reader.logits_of(images) for row in logits)
    return sequential_rank(drop, draws)


@dataclass(frozen=True, eq=False)
class Transplant:
    """What patches do on donors. gains: places×N rise of the logit; place 0 is their own, the others are impossible.
    flipped: places×N bool, of the donors below the operating point before, whether they are over it then; a donor that
    was over it counts as not flipped."""

    gains: np.ndarray
    flipped: np.ndarray

    @property
    def gain(self) -> float:
        """Mean rise at the patches' own place."""
        return float(self.gains[0].mean())

    @property
    def gain_impossible(self) -> float:
        """Mean rise at the impossible place where it is larger."""
        return float(self.gains[1:].mean(axis=1).max())

    @property
    def flip_rate(self) -> float:
        """Share of the donors that turn positive, the patches at their own place."""
        return float(self.flipped[0].mean())

    @property
    def flip_rate_impossible(self) -> float:
        """The same at the impossible place where it is larger."""
        return float(self.flipped[1:].mean(axis=1).max())


def transplant(
    reader: Reader, donors: Donors, image: Tensor, finding: int, patches: Patches, operating_logit: float
) -> Transplant:
    """Puts the patches onto every donor, at their own place and at both impossible ones."""
    places = (patches, *impossible_places(patches, reader.size_px))
    logits = reader.logits(torch.cat([pasted(donors.images, image, patches, place) for place in places]))
    before = donors.logits[:, finding].numpy()
    after = logits[:, finding].numpy().reshape(len(places), len(donors))
    return Transplant(after - before, (before < operating_logit) & (after >= operating_logit))


def gains_by_patch(reader: Reader, donors: Donors, image: Tensor, regions: list[Patches], count: int) -> np.ndarray:
    """The mean rise of all 14 logits on the first `count` donors, for each region at its own place: R×14."""
    copies = [pasted(donors.images[:count], image, patches, patches) for patches in regions]
    logits = reader.logits(torch.cat(copies)).numpy().reshape(len(regions), count, -1)
    return np.asarray((logits - donors.logits[:count].numpy()).mean(axis=1))
