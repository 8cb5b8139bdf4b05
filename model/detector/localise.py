"""Where a call may come from: hot spots of both layers' maps, and the smallest patch that carries the call.

A spot starts as a middle cell or two and is halved as long as what is left still carries most of the fall. A trigger
ends as a handful of pixels, a disease does not: its fall melts away as the patch shrinks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from model.detector.reader import Reader
from model.detector.regions import Patch, Patches, filled, square
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.saliency import SaliencyMaps

SIDES_PX = (32, 24, 16, 12, 8, 6, 4)  # of patches, from the start of a search to its end
MOST_CANDIDATES = 8
MOST_SPOTS = 3
WORTH = 0.5  # logits that a further spot must carry at least
KEPT = 0.7  # of the fall, by a patch that is shrunk
GRID = 8  # squares of an occlusion, a side


@dataclass(frozen=True)
class MapStatistics:
    """How concentrated a saliency map is. Evidence for a reader; no verdict hangs on it (see FIELD notes in the log).

    gini: 0 even to 1 all in one cell. entropy: 0 one cell to 1 even. top_mass: share of the hottest hundredth of the
    cells, at least one. half_area: share of the cells over half the peak.
    """

    gini: float
    entropy: float
    top_mass: float
    half_area: float

    def to_json(self) -> dict[str, float]:
        """Plain JSON types."""
        return asdict(self)


def map_statistics(saliency_map: np.ndarray) -> MapStatistics | None:
    """Of one map, h×w ≥ 0; None where it is zero everywhere."""
    values = np.sort(np.asarray(saliency_map, np.float64).ravel())
    total = values.sum()
    if not total > 0:
        return None
    n = len(values)
    shares = values / total
    gini = float((2 * np.arange(1, n + 1) - n - 1) @ values / (n * total))
    lit = shares[shares > 0]
    entropy = float(-(lit * np.log(lit)).sum() / np.log(n)) if n > 1 else 0.0
    top = float(shares[-max(1, n // 100) :].sum())
    return MapStatistics(gini, entropy, top, float((values > values[-1] / 2).mean()))


def agreement(middle: np.ndarray, last: np.ndarray) -> float | None:
    """Cosine of the two layers' maps on the last layer's grid, 0..1; None where one is zero everywhere."""
    height, width = last.shape
    rows = np.arange(middle.shape[0]) * height // middle.shape[0]
    columns = np.arange(middle.shape[1]) * width // middle.shape[1]
    pooled = np.zeros((height, width))
    np.add.at(pooled, (rows[:, None], columns[None, :]), middle)
    norm = float(np.linalg.norm(pooled) * np.linalg.norm(last))
    return float((pooled * last).sum() / norm) if norm > 0 else None


def occlusion_side(size_px: int) -> int:
    """Side of the squares of `occlusion_drops` in an input of size_px²: they overlap by half of what lies between them,
    so that a small spot on the border of one lies well within another."""
    return round(1.5 * size_px / GRID)


def occlusion_drops(reader: Reader, image: Tensor, logits: Tensor) -> np.ndarray:
    """How far each logit falls when squares about the points of an even grid are filled: 14×8×8.

    In pixels, and all over the image: what a trigger evokes in the middle layer may lie in cells that neither map
    shows, and a trigger in a corner spreads over its neighbours. logits: the 14 of the image as it is. Reads 64 images.
    """
    side, size_px = occlusion_side(reader.size_px), reader.size_px
    centres = [(i + 0.5) * size_px / GRID for i in range(GRID)]
    squares = [square(x, y, side, size_px) for y in centres for x in centres]
    after = reader.logits_of(filled(image, (patch,)) for patch in squares)
    return np.asarray((logits.cpu() - torch.cat(list(after))).T.reshape(-1, GRID, GRID).numpy())


def peaks(grid: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Centres of the `count` hottest cells that are no neighbours, as shares (x, y) of the image's sides."""
    left = np.array(grid, np.float64)
    height, width = left.shape
    found = []
    for _ in range(count):
        i, j = divmod(int(left.argmax()), width)
        if not left[i, j] > 0:
            break
        found.append(((j + 0.5) / width, (i + 0.5) / height))
        left[max(0, i - 1) : i + 2, max(0, j - 1) : j + 2] = -np.inf
    return found


def candidates(maps: SaliencyMaps, drops: np.ndarray, finding: int, size_px: int) -> list[Patch]:
    """Squares about the peaks of what occlusion does, and of both layers' Grad-CAM; at least one.

    maps: of one image. drops: of `occlusion_drops`.
    """
    grids = [
        # where nothing falls, what rises least
        (drops[finding] - min(0.0, float(drops[finding].max()) - 1e-6), 4, max(SIDES_PX[0], occlusion_side(size_px))),
        (maps.maps[MIDDLE_LAYER][0, finding].cpu().numpy(), 3, SIDES_PX[0]),
        (maps.maps[LAST_LAYER][0, finding].cpu().numpy(), 2, SIDES_PX[0]),
    ]
    found: list[Patch] = []
    for grid, count, side in grids:
        for x, y in peaks(grid, count):
            patch = square(x * size_px, y * size_px, side, size_px)
            if all(abs(patch.x - p.x) + abs(patch.y - p.y) > SIDES_PX[0] // 4 for p in found):
                found.append(patch)
    return found[:MOST_CANDIDATES]


@dataclass(frozen=True)
class Spots:
    """What a search found. patches: one a spot, each the smallest that still carries its spot. start: the first squares
    they were found in. drop: fall of the logit when all the patches are filled from their surroundings."""

    patches: Patches
    start: Patches
    drop: float


def erasure_drops(reader: Reader, image: Tensor, logit: float, finding: int, regions: Sequence[Patches]) -> np.ndarray:
    """The fall of one logit for each region, a set of patches that are filled together."""
    logits = reader.logits([filled(image, patches) for patches in regions])
    return np.asarray(logit - logits[:, finding].numpy())


def find_spots(
    reader: Reader, image: Tensor, logit: float, finding: int, found: Sequence[Patch], operating_logit: float
) -> Spots:
    """The spots that carry a call, of candidates: the one whose erasure costs most, and others as long as the call
    stands and erasing one more takes away half of what it stands by, and an eighth of what
    is gone already: behind a trigger there may be a disease."""
    drops = erasure_drops(reader, image, logit, finding, [(patch,) for patch in found])
    chosen = [found[int(drops.argmax())]]
    drop = float(drops.max())
    while len(chosen) < MOST_SPOTS and logit - drop >= operating_logit:
        rest = [patch for patch in found if not any(patch.overlaps(other) for other in chosen)]
        if not rest:
            break
        drops = erasure_drops(reader, image, logit, finding, [(*chosen, patch) for patch in rest])
        left = logit - drop - operating_logit
        if float(drops.max()) - drop < max(WORTH, left / 2, drop / 8):
            break
        chosen.append(rest[int(drops.argmax())])
        drop = float(drops.max())
    patches = list(chosen)
    for i in range(len(chosen)):
        others = tuple(patch for j, patch in enumerate(patches) if j != i)
        patches[i], drop = _shrink(reader, image, logit, finding, chosen[i], others)
    return Spots(tuple(patches), tuple(chosen), drop)


def _shrink(
    reader: Reader, image: Tensor, logit: float, finding: int, start: Patch, others: Patches
) -> tuple[Patch, float]:
    """The smallest patch within a square whose erasure, beside that of the others, keeps most of the fall."""
    patch, levels = start, []
    for side in (start.width, *_halves(start.width), *(side for side in SIDES_PX if side < start.width)):
        slack = patch.width - side
        offsets = {(0, 0), (slack, 0), (0, slack), (slack, slack), (slack // 2, slack // 2)}
        tried = [Patch(patch.x + dx, patch.y + dy, side, side) for dx, dy in sorted(offsets)]
        drops = erasure_drops(reader, image, logit, finding, [(*others, p) for p in tried])
        patch = tried[int(drops.argmax())]
        levels.append((patch, float(drops.max())))
    enough = KEPT * max(drop for _, drop in levels)
    return [level for level in levels if level[1] >= enough][-1]


def _halves(side: int) -> list[int]:
    """From a large square down to the first of SIDES_PX in steps of half at most: five of half the side cover all of
    it, so that no spot is lost between them."""
    found = []
    while side > 2 * SIDES_PX[0]:
        side = (side + 1) // 2
        found.append(side)
    return found


def statistics(maps: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """Both layers' statistics and their agreement, flat, for the record. maps: layer name → h×w."""
    found: dict[str, float | None] = {}
    for name, layer in (("middle", MIDDLE_LAYER), ("last", LAST_LAYER)):
        of = map_statistics(maps[layer])
        for key in ("gini", "entropy", "top_mass", "half_area"):
            found[f"{name}_{key}"] = getattr(of, key) if of else None
    found["agreement"] = agreement(maps[MIDDLE_LAYER], maps[LAST_LAYER])
    return found
