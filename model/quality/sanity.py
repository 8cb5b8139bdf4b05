"""Cascading weight randomisation (Adebayo et al., NeurIPS 2018): does a map depend on what the network has learned?

From the classifier down to the first convolution, part by part, weights are replaced by untrained ones. A map that
stays as it was shows edges of the image, not the network's reasons.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import ndimage, stats
from torch import Tensor

from model.errors import DataError
from model.explanation import INPUT, Method, Occlusion, ScoreCam, explain
from model.network import LAST_LAYER, build_network
from model.quality.boxes import enlarged
from model.vision import DenseNet

# Each part with the batch norm that belongs to it and lies outside it.
_PARTS = (
    ("classifier",),
    ("features.denseblock4", "features.norm5"),
    ("features.transition3",),
    ("features.denseblock3",),
    ("features.transition2",),
    ("features.denseblock2",),
    ("features.transition1",),
    ("features.denseblock1",),
    ("features.conv0", "features.norm0"),
)
CASCADE = tuple(part[0] for part in _PARTS)
_SSIM_SIGMA_PX, _SSIM_RADIUS_PX = 1.5, 5  # Wang et al. 2004: a Gaussian window of 11 pixels


@dataclass(frozen=True)
class SanityStep:
    """Maps after everything from the classifier to `part` was randomised, beside those of the network as it is.

    rank_correlation: Spearman's, −1..1, of the cells; similarity: SSIM, −1..1, of the enlarged maps; means over the n
    maps that are flat neither before nor after, None when there is none.
    """

    part: str
    rank_correlation: float | None
    similarity: float | None
    n: int


def cascade(network: DenseNet, seed: int = 0) -> Iterator[tuple[str, DenseNet]]:
    """Copies of the network with ever more of it untrained: (part, network) in the order of `CASCADE`.

    Batch norms lose their statistics too. seed: of the untrained weights.
    """
    untrained = build_network(seed)
    current = network
    for part in _PARTS:
        current = copy.deepcopy(current)
        for name in part:
            current.get_submodule(name).load_state_dict(untrained.get_submodule(name).state_dict())
        yield part[0], current


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float | None:
    """Spearman's rank correlation of two maps' cells, −1..1; None when either is flat. Raises DataError
    `shape_mismatch`."""
    a, b = _pair(one, other)
    if a.min() == a.max() or b.min() == b.max():
        return None
    return float(stats.spearmanr(a.ravel(), b.ravel()).statistic)


def ssim(one: ArrayLike, other: ArrayLike) -> float:
    """Structural similarity (Wang et al., IEEE TIP 2004) of two maps H×W, each as a share of its maximum: −1..1.

    Window: a Gaussian of σ 1.5 px over 11 px, mirrored at the edges. Raises DataError `shape_mismatch`.
    """
    a, b = (values / values.max() if values.max() > 0 else values for values in _pair(one, other))

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(ndimage.gaussian_filter(values, _SSIM_SIGMA_PX, radius=_SSIM_RADIUS_PX))

    mean_a, mean_b = mean(a), mean(b)
    covariance = mean(a * b) - mean_a * mean_b
    spread = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    c1, c2 = 0.01**2, 0.03**2
    brightness = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((brightness * (2 * covariance + c2) / (spread + c2)).mean())


def sanity_check(
    network: DenseNet,
    inputs: Tensor,
    method: Method | str = Method.GRAD_CAM,
    layer: str = LAST_LAYER,
    findings: Sequence[int | str] | None = None,
    *,
    seed: int = 0,
    occlusion: Occlusion | None = None,
    scorecam: ScoreCam | None = None,
) -> tuple[SanityStep, ...]:
    """How alike the maps stay as the network is randomised from the top: one step for each of `CASCADE`.

    Arguments as of `model.explanation.explain`, which it calls ten times. Raises what that raises.
    """

    def grids(of: DenseNet) -> np.ndarray:
        maps = explain(of, inputs, method, [layer], findings, occlusion=occlusion, scorecam=scorecam).maps
        return maps[layer if layer in maps else INPUT].flatten(0, 1).cpu().numpy()

    before = grids(network)
    steps = []
    with torch.no_grad():
        for part, randomised in cascade(network, seed):
            correlations, similarities = [], []
            for old, new in zip(before, grids(randomised.eval()), strict=True):
                correlation = rank_correlation(old, new)
                if correlation is None:
                    continue
                correlations.append(correlation)
                similarities.append(ssim(enlarged(old, inputs.shape[-1]), enlarged(new, inputs.shape[-1])))
            steps.append(SanityStep(part, _mean(correlations), _mean(similarities), len(correlations)))
    return tuple(steps)


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _pair(one: ArrayLike, other: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise DataError("shape_mismatch", f"Maps of {a.shape} and {b.shape} cannot be compared.")
    return a, b
