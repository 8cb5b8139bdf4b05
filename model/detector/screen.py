"""The quick screen: who gets the full test. It costs less than the forward pass that it belongs to.

Nothing is read anew: in the middle layer's activation, which Grad-CAM has computed anyway, the hottest cells of each
positive finding are painted over from their surroundings, and the network goes on from there, which is a thirtieth of a
forward pass. What a trigger evokes is gone with them; what a disease evokes mostly is not.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.models import DenseNet

from model.network import LAST_LAYER, MIDDLE_LAYER
from model.saliency import SaliencyMaps, logits_after

MOST_SPOTS = 12  # of one radiograph: bounds the cost where many findings are positive
REACH = 1  # cells around the hottest that are painted over with it: 3×3
LAYERS = (MIDDLE_LAYER, LAST_LAYER)


def screen(network: DenseNet, result: SaliencyMaps, positive: np.ndarray) -> np.ndarray:
    """How far each positive finding's logit falls when the hottest cells are painted over: N×14 float32.

    result: `gradcam` of all findings at both layers, with `keep_middle`. positive: N×14 bool; the others get −inf. The
    fall is the largest over all the spots tried for the radiograph, whichever finding they were tried for.
    """
    middle = result.activations[MIDDLE_LAYER]
    drops = np.full(positive.shape, -np.inf, np.float32)
    rows, copies = [], []
    with torch.inference_mode():
        for row in np.flatnonzero(positive.any(axis=1)).tolist():
            for cell in hottest_cells(result, row, np.flatnonzero(positive[row])):
                rows.append(row)
                copies.append(without_cells(middle[row], *cell))
        if rows:
            fallen = result.logits[rows] - logits_after(network, MIDDLE_LAYER, torch.stack(copies)).float()
            for row, fall in zip(rows, fallen.cpu().numpy(), strict=True):
                drops[row] = np.where(positive[row], np.maximum(drops[row], fall), drops[row])
    return drops


def hottest_cells(result: SaliencyMaps, row: int, findings: np.ndarray) -> list[tuple[int, int]]:
    """The middle layer's cells to paint over for a radiograph: of each finding the hottest of both layers' maps,
    those of the surest findings first, none twice."""
    height, width = result.maps[MIDDLE_LAYER].shape[2:]
    order = sorted((int(f) for f in findings), key=lambda f: -float(result.logits[row, f]))
    cells: dict[tuple[int, int], None] = {}
    for layer in LAYERS:
        grids = result.maps[layer][row]
        for finding in order:
            i, j = divmod(int(grids[finding].argmax()), grids.shape[2])
            if float(grids[finding, i, j]) > 0:
                y = min(int((i + 0.5) * height / grids.shape[1]), height - 1)
                x = min(int((j + 0.5) * width / grids.shape[2]), width - 1)
                cells.setdefault((y, x))
    return list(cells)[:MOST_SPOTS]


def without_cells(activation: Tensor, y: int, x: int, reach: int = REACH) -> Tensor:
    """A copy of K×h×w in which the cells within reach of (y, x) are the mean of the cells around them."""
    _, height, width = activation.shape
    inner = slice(max(0, y - reach), y + reach + 1), slice(max(0, x - reach), x + reach + 1)
    outer = slice(max(0, y - reach - 1), y + reach + 2), slice(max(0, x - reach - 1), x + reach + 2)
    ring = torch.zeros(height, width, dtype=activation.dtype, device=activation.device)
    ring[outer] = 1
    ring[inner] = 0
    around = ring.sum()
    mean = (activation * ring).sum((1, 2)) / around if float(around) else activation.mean((1, 2))
    copy = activation.clone()
    copy[:, inner[0], inner[1]] = mean[:, None, None]
    return copy
