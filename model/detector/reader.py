"""What the network says of many altered copies of a radiograph: in batches, and counted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from model.checkpoint import Card, Checkpoint
from model.findings import FINDINGS
from model.inference import optimized_for_inference
from model.saliency import SaliencyMaps
from model.vision import DenseNet


def positives(card: Card, maps: SaliencyMaps) -> np.ndarray:
    """Which findings are over their operating points: N×14 bool."""
    points = np.array([card.operating_points[name] for name in FINDINGS])
    return np.asarray(maps.probabilities.cpu().numpy() >= points)


def operating_logits(card: Card) -> np.ndarray:
    """The operating points of the 14 findings as logits, float32."""
    points = np.clip([card.operating_points[name] for name in FINDINGS], 1e-6, 1 - 1e-6)
    return np.asarray(np.log(points / (1 - points)), np.float32)


def reading_digest(card: Card) -> str:
    """A hash of what decides how the weights' answers are read: preprocessing and operating points."""
    read = [card.preprocessing.to_json(), [card.operating_points[name] for name in FINDINGS]]
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()


class Reader:
    """Reads grey input images with one checkpoint.

    batch: images in one forward pass. images_read: so far, which is what a test costs.
    """

    def __init__(self, checkpoint: Checkpoint, batch: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.device = checkpoint.device
        self.preprocessing = checkpoint.card.preprocessing
        # On a CPU more is slower: the activations of a batch should stay near the cores.
        self.batch = batch or (min(16, max(1, 16 * 128**2 // self.size_px**2)) if self.device.type == "cpu" else 128)
        self.images_read = 0

    @property
    def size_px(self) -> int:
        """Side of the input."""
        return self.preprocessing.size_px

    def inputs(self, images: Tensor) -> Tensor:
        """Grey N×S×S in 0..1 → the network's input, N×C×S×S, laid out as is quickest."""
        inputs = self.preprocessing.normalise(images.to(self.device))
        return inputs.contiguous(memory_format=torch.channels_last) if self.device.type == "cpu" else inputs

    def logits(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Grey N×S×S in 0..1 → N×14 float32 on the CPU."""
        return torch.cat(list(self.logits_of(images.unbind() if isinstance(images, Tensor) else images)))

    def logits_of(self, images: Iterable[Tensor]) -> Iterator[Tensor]:
        """The same batch by batch, as the images are made: who has seen enough stops asking."""
        several: list[Tensor] = []
        for image in images:
            several.append(image)
            if len(several) == self.batch:
                yield self._read(several)
                several = []
        if several:
            yield self._read(several)

    def _read(self, images: Sequence[Tensor]) -> Tensor:
        self.images_read += len(images)
        with torch.inference_mode():
            logits: Tensor = self.network(self.inputs(torch.stack(list(images))))
        return logits.float().cpu().clone()

    @cached_property
    def network(self) -> DenseNet:
        """The checkpoint's, as it is quickest to ask: its logits are the same but for rounding."""
        network = self.checkpoint.network
        quicker = self.device.type == "cpu" and isinstance(network, DenseNet)
        return optimized_for_inference(network) if quicker else network
