"""What others publish against backdoors, each as one number a radiograph, larger is more suspicious.

All see the input image, the checkpoint, and some clean radiographs, real ones where the detector has phantoms. Where
a method was made for one label, it is asked about each positive finding and the largest answer counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import fft, ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from model.detector.localise import map_statistics
from model.detector.reader import Reader, operating_logits
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.saliency import SaliencyMaps

SENTINET_MASK = 0.15  # share of the last layer's peak over which a cell belongs to the region (Chou et al., 2020)
SEVERITIES = 5
BANDS = 16  # of a DCT spectrum, a side


@dataclass(frozen=True, eq=False)
class Case:
    """One radiograph: S×S grey in 0..1, its maps (of it alone, all findings) and its positive findings, one or more."""

    image: Tensor
    maps: SaliencyMaps
    positive: tuple[int, ...]


def probability(case: Case) -> float:
    """The surest call: an attack is confident."""
    return max(float(case.maps.probabilities[0, f]) for f in case.positive)


def concentration(case: Case, layer: str = MIDDLE_LAYER) -> float:
    """The Gini coefficient of the most concentrated map; its negative is the other way round."""
    found = [map_statistics(case.maps.maps[layer][0, f].cpu().numpy()) for f in case.positive]
    return max((one.gini for one in found if one), default=0.0)


def sentinet(reader: Reader, case: Case, clean: Tensor) -> float:
    """SentiNet (Chou, Tramèr, Pellegrino, S&P workshops 2020): how many clean radiographs the salient region fools,
    less how sure the network is of them with an inert pattern there.

    The region is where the last layer's Grad-CAM is over 15 % of its peak; the pattern is noise. clean: N×S×S.
    """
    operating = operating_logits(reader.checkpoint.card)
    noise = torch.rand(case.image.shape, generator=torch.Generator().manual_seed(0)).to(case.image)
    answers = []
    for finding in case.positive:
        grid = case.maps.maps[LAST_LAYER][0, finding]
        big = torch.nn.functional.interpolate(
            grid[None, None], size=case.image.shape, mode="bilinear", align_corners=False
        )[0, 0].to(case.image)
        mask = big > SENTINET_MASK * big.max()
        given = reader.logits(torch.where(mask, case.image, clean))[:, finding].numpy()
        inert = reader.logits(torch.where(mask, noise, clean))[:, finding].sigmoid().numpy()
        answers.append(float((given >= operating[finding]).mean() - inert.mean()))
    return max(answers)


def strip(reader: Reader, case: Case, clean: Tensor) -> float:
    """STRIP (Gao et al., ACSAC 2019) for 14 sigmoids: minus the mean sum of binary entropies of even blends."""
    p = reader.logits((case.image + clean) / 2).sigmoid().double().clamp(1e-12, 1 - 1e-12)
    entropy = -(p * p.log2() + (1 - p) * (1 - p).log2()).sum(1)
    return -float(entropy.mean())


def teco(reader: Reader, case: Case) -> float:
    """TeCo (Liu et al., CVPR 2023): the deviation, over kinds of corruption, of the severity that takes a call away.

    A call that no severity takes away counts as one more than the last.
    """
    operating = operating_logits(reader.checkpoint.card)
    corrupted = corruptions(case.image.cpu().numpy())
    logits = reader.logits(torch.from_numpy(corrupted.reshape(-1, *case.image.shape))).numpy()
    logits = logits.reshape(*corrupted.shape[:2], -1)
    answers = []
    for finding in case.positive:
        lost = logits[:, :, finding] < operating[finding]
        severity = np.where(lost.any(axis=1), lost.argmax(axis=1), SEVERITIES) + 1
        answers.append(float(severity.std()))
    return max(answers)


def corruptions(image: np.ndarray) -> np.ndarray:
    """Kinds × severities × S × S: noise, blur, brightness, contrast, coarse pixels, gamma."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=image.shape)
    levels = np.arange(1, SEVERITIES + 1)
    kinds = [
        [image + noise * 0.03 * s for s in levels],
        [ndimage.gaussian_filter(image, 0.4 * s) for s in levels],
        [image + 0.08 * s for s in levels],
        [(image - image.mean()) * (1 - 0.16 * s) + image.mean() for s in levels],
        [_coarse(image, 1 + s) for s in levels],
        [image ** (1 + 0.3 * s) for s in levels],
    ]
    return np.clip(np.array(kinds), 0, 1).astype(np.float32)


def _coarse(image: np.ndarray, cell: int) -> np.ndarray:
    """Pixels of cell×cell, each the first of its square."""
    rows, columns = (np.arange(n) // cell * cell for n in image.shape)
    return image[np.ix_(rows, columns)]


def spectrum(image: np.ndarray) -> np.ndarray:
    """The logarithm of the DCT's magnitudes, means over 16×16 bands."""
    size = image.shape[0]
    magnitudes = np.log(np.abs(fft.dctn(image, norm="ortho")) + 1e-6)
    edges = np.linspace(0, size, BANDS + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(magnitudes, edges, 0), edges, 1)
    counts = np.diff([*edges, size])
    return np.asarray((sums / np.outer(counts, counts)).ravel())


def dct_classifier(clean: Sequence[np.ndarray], stamped: Sequence[np.ndarray]) -> Pipeline:
    """Zeng et al., ICCV 2021, linear on bands, fitted on radiographs with and without made-up triggers.

    `decision_function([spectrum(image)])` is the score."""
    features = [spectrum(image) for image in [*clean, *stamped]]
    labels = [0] * len(clean) + [1] * len(stamped)
    fitted: Pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(features, labels)
    return fitted
