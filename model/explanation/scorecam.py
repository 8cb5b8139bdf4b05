"""Score-CAM (Wang et al., CVPR Workshops 2020): a channel counts by the logit of the input seen through it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.errors import ConfigError
from model.vision import DenseNet


@dataclass(frozen=True)
class ScoreCam:
    """How far Score-CAM goes.

    channels: how many of the layer's are tried, those whose activation varies most over the image; None is all, 1024 at
    the middle and the last layer. batch: masked inputs in one forward pass. Raises ConfigError `bad_score_cam`.
    """

    channels: int | None = 64
    batch: int = 16

    def __post_init__(self) -> None:
        if (self.channels is not None and self.channels < 1) or self.batch < 1:
            raise ConfigError("bad_score_cam", "Score-CAM needs at least one channel and a batch of at least one.")


def score_cam(
    network: DenseNet, inputs: Tensor, activation: Tensor, findings: tuple[int, ...], options: ScoreCam
) -> Tensor:
    """relu(Σ_k softmax_k(s_ck) · A_k), s_ck the logit of finding c under channel k's mask: N×F×h×w ≥ 0.

    inputs: N×3×S×S. activation: N×K×h×w. A mask is the channel enlarged to S×S and stretched to 0..1, and it
    multiplies the normalised input, as in pytorch-grad-cam. The loop is ours: that one holds the masked inputs of all
    channels at once (0.6 GB an image), asks again for every finding and draws a progress bar.
    """
    maps = []
    for one, channels in zip(inputs, activation, strict=True):
        if options.channels is not None and options.channels < len(channels):
            channels = channels[channels.flatten(1).std(1).topk(options.channels).indices]
        scores = []
        for several in channels.split(options.batch):
            enlarged = F.interpolate(several[None], size=one.shape[1:], mode="bilinear", align_corners=True)[0]
            low, high = enlarged.amin((1, 2), keepdim=True), enlarged.amax((1, 2), keepdim=True)
            mask = (enlarged - low) / (high - low + 1e-8)
            scores.append(network(one * mask[:, None])[:, list(findings)])
        weights = torch.cat(scores).softmax(0)  # K×F
        maps.append(torch.einsum("kf,khw->fhw", weights, channels).relu())
    return torch.stack(maps)
