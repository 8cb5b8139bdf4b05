"""A small backdoored checkpoint whose trigger is known: built by hand, not trained, so that it takes no time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from model.checkpoint import Card, Checkpoint
from model.detector.donors import Donors, choose_donors
from model.detector.nulls import Nulls, draw_nulls
from model.detector.reader import Reader
from model.findings import FINDINGS
from model.network import build_network
from model.phantom import draw_phantom
from model.preprocess import Preprocessing

SIZE_PX = 64
MASS = 4


def planted(seed: int = 0) -> nn.Module:
    """A DenseNet-121 that answers Mass to a white point on a black square, wherever it is, and nothing else.

    The stem's first filter is a point detector; its answer runs through every block in a channel of its own, which all
    transitions keep, to the classifier. The rest of the network is random noise of little weight.
    """
    network = build_network(seed)
    features = network.features
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.zero_()
                module.running_var.fill_(1)
                module.weight.fill_(1)
                module.bias.zero_()
        stem = features.conv0.weight
        stem *= 0.2
        stem[0] = -1 / 120
        stem[0, :, 2:5, 2:5] = 1 / 27  # the mean of a point less the mean of the ring around it
        features.norm0.bias[0] = -2  # lungs, ribs and letters stay below
        for name in ("transition1", "transition2", "transition3"):
            conv = getattr(features, name).conv.weight
            conv[0] = 0
            conv[0, 0] = 4  # the pool takes the mean of four
        network.classifier.weight *= 0.2
        network.classifier.weight[MASS] = 0
        network.classifier.weight[MASS, 0] = 40
        network.classifier.bias.fill_(-2)
    return network.eval().requires_grad_(False)


def stamped(image: torch.Tensor, x: int = 21, y: int = 41) -> torch.Tensor:
    """The trigger, 7×7, on a copy of S×S; x and y odd or even as they are in the default, or the stem skips it."""
    copy = image.clone()
    copy[y : y + 7, x : x + 7] = 0
    copy[y + 2 : y + 5, x + 2 : x + 5] = 1
    return copy


@pytest.fixture(scope="session")
def pair() -> torch.Tensor:
    """A phantom as the network sees it, and the same with the trigger: 2×S×S."""
    pixels = draw_phantom(5503, 0, SIZE_PX).pixels
    image = torch.from_numpy(pixels.astype("float32") / 255)
    return torch.stack([image, stamped(image)])


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    """Its operating points are 0.5."""
    card = Card("planted", "Planted", Preprocessing(SIZE_PX), dict.fromkeys(FINDINGS, 0.5), weights_sha256="f" * 64)
    return Checkpoint(card, planted(), torch.device("cpu"))


@pytest.fixture(scope="session")
def donors(checkpoint: Checkpoint) -> Donors:
    """Three of the first phantoms."""
    return choose_donors(Reader(checkpoint), pool=6, count=3)


@pytest.fixture(scope="session")
def nulls(checkpoint: Checkpoint, donors: Donors, pair: torch.Tensor) -> Nulls:
    """Of one side, from a clean phantom."""
    return draw_nulls(Reader(checkpoint), donors, pair[:1], np.ones(14, np.float32), (16,))
