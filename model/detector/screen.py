"""The quick screen: who gets the full test, which begins with occlusion. It costs less than its forward pass.

Nothing is read anew: in the middle layer's activation, which Grad-CAM has computed anyway, the hottest cells of each
positive finding are painted over from their surroundings, and the network goes on from there, which is a thirtieth of a
forward pass. What a trigger evokes is gone with them; what a disease evokes mostly is not.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import DenseNet

from model.detector.localise import peaks
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.saliency import BLOCK4_INPUT, SaliencyMaps, logits_after

MOST_SPOTS = 16  # of one radiograph: bounds the cost
PEAKS = 4  # of a map
REACH = 1  # cells around the hottest that are painted over with it: 3×3
LAYERS = (MIDDLE_LAYER, LAST_LAYER)


def screen(network: DenseNet, result: SaliencyMaps, positive: np.ndarray) -> np.ndarray:
    """How far each positive finding's logit falls when the hottest cells are painted over: N×14 float32.

    result: `gradcam` of all findings at both layers, with `keep_middle`. positive: N×14 bool; the others get −inf. The
    fall is the largest over all the spots tried for the radiograph, whichever finding they were tried for.
    """
    middle = result.activations[MIDDLE_LAYER]
    drops = np.full(positive.shape, -np.inf, np.float32)
    rows, cells = [], []
    maps = {name: result.maps[name].cpu() for name in LAYERS}  # once, not for every radiograph
    here = SaliencyMaps(result.logits.cpu(), maps, result.findings)
    for row in np.flatnonzero(positive.any(axis=1)).tolist():
        found = hottest_cells(here, row, np.flatnonzero(positive[row]))
        rows += [row] * len(found)
        cells += found
    if not rows:
        return drops
    with torch.inference_mode():
        copies = painted(network, middle, rows, cells)
        fallen = result.logits[rows] - logits_after(network, BLOCK4_INPUT, copies).float()
    for row, fall in zip(rows, fallen.cpu().numpy(), strict=True):
        drops[row] = np.where(positive[row], np.maximum(drops[row], fall), drops[row])
    return drops


def painted(network: DenseNet, middle: Tensor, rows: list[int], cells: list[tuple[int, int]]) -> Tensor:
    """Of the middle layer's activation, N×K×h×w, a copy for each row and cell (y, x), painted there from its ring, as
    block 4 takes it: M×K'×h/2×w/2.

    The transition is a 1×1 convolution and the mean of 2×2 cells, so the paint goes on after the former, and only the
    2×2 means that it reaches are taken anew; all copies at once, for on a GPU each step costs the same for one or many.
    """
    transition = network.features.transition3
    thinner = transition.conv(middle)
    copies: Tensor = transition.pool(thinner)[rows]
    row, at = torch.tensor(rows, device=middle.device), torch.tensor(cells, device=middle.device)
    around = torch.arange(-REACH - 1, REACH + 2, device=middle.device)
    ys, xs = (at[:, axis, None] + around for axis in (0, 1))  # M×5
    height, width = middle.shape[2:]
    patches = thinner.permute(0, 2, 3, 1)[
        row[:, None, None], ys.clamp(0, height - 1)[:, :, None], xs.clamp(0, width - 1)[:, None, :]
    ]  # M×5×5×K'
    there = _within(ys, height)[:, :, None] & _within(xs, width)[:, None, :]
    inner = (around.abs() <= REACH)[:, None] & (around.abs() <= REACH)
    ring = (there & ~inner)[..., None]
    count = ring.sum((1, 2))
    paint = torch.where(count > 0, (patches * ring).sum((1, 2)) / count.clamp(min=1), thinner.mean((2, 3))[row])
    patches = torch.where(inner[:, :, None], paint[:, None, None], patches)
    first = (at - REACH).div(2, rounding_mode="floor")  # of the means, which may lie without by one
    window = torch.arange(2 * REACH + 2, device=middle.device)
    top, left = (2 * first - at + REACH + 1).unbind(1)
    copy = torch.arange(len(rows), device=middle.device)[:, None, None]
    means = patches[copy, (top[:, None] + window)[:, :, None], (left[:, None] + window)[:, None, :]]
    means = means.reshape(len(rows), REACH + 1, 2, REACH + 1, 2, -1).mean((2, 4))  # M×2×2×K'
    ys, xs = (first[:, axis, None] + window[: REACH + 1] for axis in (0, 1))
    there = _within(ys, copies.shape[2])[:, :, None] & _within(xs, copies.shape[3])[:, None, :]
    which, i, j = there.nonzero(as_tuple=True)
    copies[which, :, ys[which, i], xs[which, j]] = means[which, i, j]
    return copies


def _within(places: Tensor, size: int) -> Tensor:
    return (places >= 0) & (places < size)


def hottest_cells(result: SaliencyMaps, row: int, findings: np.ndarray) -> list[tuple[int, int]]:
    """The middle layer's cells to paint over for a radiograph, at most MOST_SPOTS, none twice.

    First the hottest of both layers' maps of each finding, the surest findings first, then the next hottest.

    In the middle layer hot is what stands out from its surroundings, since those are what it is painted over with.
    """
    height, width = result.maps[MIDDLE_LAYER].shape[2:]
    order = sorted((int(f) for f in findings), key=lambda f: -float(result.logits[row, f]))
    grids = (contrast(result.maps[MIDDLE_LAYER][row, order]).clamp(min=0), result.maps[LAST_LAYER][row, order])
    found = [peaks(grid, PEAKS) for several in grids for grid in several.cpu().numpy()]
    cells: dict[tuple[int, int], None] = {}
    for rank in range(PEAKS):
        for x, y in (hot[rank] for hot in found if rank < len(hot)):
            if len(cells) < MOST_SPOTS:
                cells.setdefault((min(int(y * height), height - 1), min(int(x * width), width - 1)))
    return list(cells)


def contrast(grids: Tensor, reach: int = REACH) -> Tensor:
    """Of N×h×w about each cell what those within reach have over the mean of the cells around them, summed: N×h×w."""

    def total(of: Tensor, side: int) -> Tensor:
        return F.avg_pool2d(of[:, None], side, 1, side // 2, divisor_override=1)[:, 0]

    ones = torch.ones_like(grids[:1])
    inner, outer = (total(grids, 2 * r + 1) for r in (reach, reach + 1))
    cells, around = total(ones, 2 * reach + 1), total(ones, 2 * reach + 3)
    return inner - cells * (outer - inner) / (around - cells).clamp(min=1)
