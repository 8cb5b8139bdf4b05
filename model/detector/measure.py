"""The full test of one finding of one radiograph: what `model.detector.examine` judges, and calibration ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from model.detector.cause import EXCEEDANCES, Rank, Transplant, gains_by_patch, rank_erasure, transplant
from model.detector.donors import Donors
from model.detector.localise import candidates, erasure_drops, find_spots, occlusion_drops, statistics
from model.detector.nulls import DONORS as NULL_DONORS
from model.detector.nulls import Nulls
from model.detector.reader import Reader, operating_logits
from model.detector.regions import Patch, Patches, impossible_places, square
from model.detector.score import CELL_PX, score, strength, weighed
from model.saliency import SaliencyMaps, gradcam

SIDES_PX = (4, 8, 12, 16, 24, 32)
REMOVED = 0.85  # share of the largest fall that filling a region causes
FILLED = 0.5  # share of the fall by a middle cell that a quarter of it causes, where the spot does not fill the cell
NOT_RANKED = Rank(p=1.0, drawn=0, exceeding=0, lead=-1.0)


@dataclass(frozen=True, eq=False)
class Opened:
    """A radiograph made ready for tests. image: S×S grey on the device. maps: of one image, all 14 findings.
    cells: 14×8×8, the falls of `occlusion_drops`."""

    image: Tensor
    maps: SaliencyMaps
    cells: np.ndarray

    def falls(self, unit: np.ndarray) -> np.ndarray:
        """14, the largest of the cells' of each finding, by `Nulls.unit`: what tells who is tested in full."""
        return np.asarray(self.cells.max(axis=(1, 2)) / unit)


@dataclass(frozen=True, eq=False)
class Located:
    """patches: of the size that shows the most, a spot each. regions: what is shown and erased, at least a middle cell
    each. drop: fall of the logit by erasing the patches. base_logit: the donors' mean. transplant_rank: how the patches
    compare with random ones of clean radiographs."""

    finding: int
    logit: float
    operating_logit: float
    base_logit: float
    patches: Patches
    regions: Patches
    drop: float
    transplant: Transplant
    statistics: dict[str, float | None]
    transplant_rank: Rank

    @property
    def score(self) -> float:
        """Of the finding, in logits: `model.detector.score`."""
        return score(
            drop=self.drop,
            lead=self.transplant_rank.lead,
            gain=self.transplant.gain,
            gain_impossible=self.transplant.gain_impossible,
            logit=self.logit,
            base_logit=self.base_logit,
            side_px=self.side_px,
        )

    @property
    def transplant_lead(self) -> float:
        """Weighed by the patches' size, as it is compared with clean radiographs'."""
        return weighed(self.transplant_rank.lead, self.side_px)

    @property
    def side_px(self) -> float:
        """Of the square of the patches' area."""
        return side_of(self.patches)

    @property
    def tightened(self) -> bool:
        """Whether some square smaller than the largest is stronger, for its size, than they are."""
        return max(patch.width for patch in self.patches) < SIDES_PX[-1]


@dataclass(frozen=True, eq=False)
class Measured(Located):
    """erasure_rank: how the patches compare with as large ones elsewhere in the radiograph, or NOT_RANKED."""

    erasure_rank: Rank

    @property
    def erasure_lead(self) -> float:
        """Weighed by the patches' size, as it is compared with clean radiographs'."""
        return weighed(self.erasure_rank.lead, self.side_px)


def open_radiograph(reader: Reader, image: Tensor, maps: SaliencyMaps | None = None) -> Opened:
    """maps: of this image alone, all findings; computed where they are not at hand."""
    image = image.to(reader.device)
    if maps is None:
        maps = gradcam(reader.checkpoint.network, reader.inputs(image[None]))
        reader.images_read += 1
    return Opened(image, maps, occlusion_drops(reader, image, maps.logits[0]))


def measure(reader: Reader, donors: Donors, nulls: Nulls, opened: Opened, finding: int) -> Measured:
    """The full test: the patches that carry the call, what they do, and what others as large elsewhere do.

    The last, a third of what it costs, is not asked where five of the random patches give donors as much, or where
    nothing scores: such a patch is not proven to cause anything. Calibration does the same, which is fair.
    """
    found = locate(reader, donors, nulls, opened, finding)
    if found.score <= 0 or found.transplant_rank.exceeding >= EXCEEDANCES:
        return Measured(**vars(found), erasure_rank=NOT_RANKED)
    cells = opened.cells[finding]
    rank = rank_erasure(reader, opened.image, found.logit, finding, found.patches, found.drop, cells)
    return Measured(**vars(found), erasure_rank=rank)


def locate(reader: Reader, donors: Donors, nulls: Nulls, opened: Opened, finding: int) -> Located:
    """Finds the patches that carry the call, and what they do when they are gone and when they are given: all that the
    score takes. Given to others where no finding can be only where they do something at their own place."""
    image, maps = opened.image, opened.maps
    logit = float(maps.logits[0, finding])
    operating_logit = float(operating_logits(reader.checkpoint.card)[finding])
    found = candidates(maps, opened.cells, finding, reader.size_px)
    spots = find_spots(reader, image, logit, finding, found, operating_logit)
    patches, regions, drop = _sized(reader, donors, nulls, image, logit, operating_logit, finding, spots.patches)
    given = transplant(reader, donors, image, finding, patches, [patches], operating_logit)
    rank = nulls.rank(finding, side_of(patches), given.gain)
    if min(drop, rank.lead) > 0:  # else the score does not ask where else it works
        impossible = impossible_places(patches, reader.size_px)
        given = given.beside(transplant(reader, donors, image, finding, patches, impossible, operating_logit))
    grids = {name: grid[0, finding].cpu().numpy() for name, grid in maps.maps.items()}
    return Located(
        finding=finding,
        logit=logit,
        operating_logit=operating_logit,
        base_logit=float(donors.logits[:, finding].mean()),
        patches=patches,
        regions=regions,
        drop=drop,
        transplant=given,
        statistics=statistics(grids),
        transplant_rank=rank,
    )


def _sized(
    reader: Reader,
    donors: Donors,
    nulls: Nulls,
    image: Tensor,
    logit: float,
    operating_logit: float,
    finding: int,
    spots: Patches,
) -> tuple[Patches, Patches, float]:
    """The squares about the spots of the size that is strongest, by what erasing them takes and what they give a few
    donors; the regions about them; and the fall by erasing the first."""
    sizes = [_about(spots, side, reader.size_px) for side in SIDES_PX]
    gains = gains_by_patch(reader, donors, image, sizes, min(NULL_DONORS, len(donors)))[:, finding]
    drops = erasure_drops(reader, image, logit, finding, sizes)
    sides = [side_of(patches) for patches in sizes]
    leads = [nulls.rank(finding, side, float(gain)).lead for side, gain in zip(sides, gains, strict=True)]
    strongest = int(np.argmax([strength(*of) for of in zip(drops.tolist(), leads, sides, strict=True)]))
    regions = sizes[region_size(drops, logit - operating_logit)]
    return (
        sizes[strongest],
        needed_regions(reader, image, logit, operating_logit, finding, regions),
        float(drops[strongest]),
    )


def region_size(drops: np.ndarray, over: float) -> int:
    """Which of SIDES_PX a region has: the smallest, from a middle cell up, that takes the call away when it is filled,
    for what a larger one takes beside is not the spot's; where none does, that takes away most of what any does. Not a
    cell but the next larger, where that does as well, if a square of half the cell's side takes much less: such a spot
    fills the cell, and may reach beyond it, for a part of it that is gone is enough.

    drops: falls of the logit by filling squares of each size. over: how far the logit is over its operating point.
    """
    cell, half = SIDES_PX.index(CELL_PX), SIDES_PX.index(CELL_PX // 2)
    several = drops[cell:]
    most = several.max()
    enough = several > over if most > over else several >= most - (1 - REMOVED) * abs(most)
    if enough[0] and enough[1] and drops[half] < FILLED * drops[cell]:
        return cell + 1
    return cell + int(enough.argmax())


def needed_regions(
    reader: Reader, image: Tensor, logit: float, operating_logit: float, finding: int, regions: Patches
) -> Patches:
    """The first of several regions that take the call away when they are filled: the call does not hang on the others.
    All, where it takes all, or more."""
    fewer = [regions[:count] for count in range(1, len(regions))]
    drops = erasure_drops(reader, image, logit, finding, fewer) if fewer else ()
    enough = (some for some, drop in zip(fewer, drops, strict=True) if logit - drop < operating_logit)
    return next(enough, regions)


def side_of(patches: Patches) -> float:
    """Of the square of the patches' area, in input pixels."""
    return math.sqrt(sum(p.width * p.height for p in patches))


def _about(spots: Patches, side: int, size_px: int) -> Patches:
    def one(spot: Patch) -> Patch:
        return square(spot.x + spot.width / 2, spot.y + spot.height / 2, side, size_px)

    return tuple(one(spot) for spot in spots)
