"""Does the network need what the map points at? Insertion, deletion, ROAD.

Insertion and deletion (Petsiuk, Das & Saenko, BMVC 2018) reveal or remove pixels, the most salient first, and average
the probability along the way; ROAD (Rong et al., ICML 2022) is pytorch-grad-cam's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from model.errors import DataError
from model.vision import DenseNet

BLUR_SIGMA = 0.05  # of the input's side: what the network meets where nothing is revealed


@dataclass(frozen=True, eq=False)
class Curve:
    """probabilities: steps + 1, float64 in 0..1, of the finding with 0/steps, 1/steps, … of the pixels changed."""

    probabilities: np.ndarray

    @property
    def area(self) -> float:
        """Area under the curve over the share of pixels, 0..1, by trapezoids."""
        values = self.probabilities
        return float((values[1:] + values[:-1]).sum() / 2 / (len(values) - 1))


def insertion(network: DenseNet, inputs: Tensor, saliency_map: ArrayLike, finding: int, steps: int = 20) -> Curve:
    """The blurred input becomes the input, the most salient pixels first: the larger the area, the better the map.

    network: in evaluation mode. inputs: 1×3×S×S, normalised. saliency_map: S×S. finding: 0..13. Takes steps + 1 forward
    passes. Raises DataError `shape_mismatch`, `flat_map`.
    """
    return _curve(network, _blurred(inputs), inputs, saliency_map, finding, steps)


def deletion(network: DenseNet, inputs: Tensor, saliency_map: ArrayLike, finding: int, steps: int = 20) -> Curve:
    """The input becomes the blurred input, the most salient pixels first: the smaller the area, the better the map.

    Arguments and errors as of `insertion`. Raises DataError `shape_mismatch`, `flat_map`.
    """
    return _curve(network, inputs, _blurred(inputs), saliency_map, finding, steps)


def road(
    network: DenseNet,
    inputs: Tensor,
    saliency_map: ArrayLike,
    finding: int,
    percentiles: Sequence[int] = (20, 40, 60, 80),
    seed: int = 0,
) -> float:
    """ROAD through pytorch-grad-cam: the finding's probability after the least salient pixels are imputed, minus after
    the most salient are, halved, averaged over the percentiles: −0.5..0.5, the larger the better, 0 for a map that
    does not know.

    Arguments as of `insertion`, on the CPU; seed: of the imputation's noise. Takes four forward passes and two sparse
    systems of equations a percentile, about a second each at 224 px. Raises DataError `shape_mismatch`, `flat_map`.
    """
    from pytorch_grad_cam.metrics.road import ROADCombined  # heavy, see `model.explanation.cams`

    values = _checked(inputs, saliency_map)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        scores = ROADCombined(list(percentiles))(
            inputs, values[None], [lambda logits: logits[finding].sigmoid()], network
        )
    return float(scores[0])


def _curve(network: DenseNet, start: Tensor, end: Tensor, saliency_map: ArrayLike, finding: int, steps: int) -> Curve:
    values = _checked(start, saliency_map)
    order = np.argsort(-values.ravel(), kind="stable")
    probabilities = []
    with torch.inference_mode():
        for step in range(steps + 1):
            changed = np.zeros(values.size, np.bool_)
            changed[order[: round(step / steps * values.size)]] = True
            mask = torch.from_numpy(changed.reshape(values.shape)).to(start.device)
            probabilities.append(float(network(torch.where(mask, end, start))[0, finding].sigmoid()))
    return Curve(np.array(probabilities))


def _blurred(inputs: Tensor) -> Tensor:
    sigma = BLUR_SIGMA * inputs.shape[-1]
    half = min(round(3 * sigma), min(inputs.shape[2:]) - 1)  # the edge is mirrored, which the input's side bounds
    blurred: Tensor = gaussian_blur(inputs, [2 * half + 1] * 2, [sigma] * 2)
    return blurred


def _checked(inputs: Tensor, saliency_map: ArrayLike) -> np.ndarray:
    values = np.asarray(saliency_map, dtype=np.float32)
    if inputs.shape != (1, 3, *values.shape):
        raise DataError("shape_mismatch", f"A map of {values.shape} is not that of an input of {tuple(inputs.shape)}.")
    if values.min() == values.max():
        raise DataError("flat_map", "A map that is the same everywhere puts its pixels in no order.")
    return values
