"""The same network, quicker on a CPU: for reading the many altered copies of a radiograph that the detector makes.

A dense layer of torchvision first copies what all layers before it made, side by side, and normalises the output of its
first convolution in a pass of its own. Here each layer writes beside what is there, and that norm is part of the
convolution. The logits are the same but for rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.vision import DenseNet

TorchvisionLayer = Any  # a dense layer, which has no types


def optimized_for_inference(network: DenseNet) -> DenseNet:
    """A copy in evaluation mode that cannot be trained; the network itself stays as it is. Takes N×C×S×S, best in
    channels-last layout; gives the network's logits to about 1e-5."""
    optimized = copy.deepcopy(network).eval().requires_grad_(False)
    features = optimized.features
    for name, module in list(features.named_children()):
        if name.startswith("denseblock"):
            setattr(features, name, _Block(module.children()))
    return optimized


class _Block(nn.Module):
    """A dense block: N×C×h×w → N×(C + growth·layers)×h×w."""

    def __init__(self, layers: Iterable[TorchvisionLayer]) -> None:
        super().__init__()
        made = [_Layer(layer) for layer in layers]
        self.layers = nn.ModuleList(made)
        self.growths = [layer.growth for layer in made]

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        total = channels + sum(self.growths)
        pixels = x.new_empty((n * height * width, total))  # a row each, its channels side by side
        maps = pixels.view(n, height, width, total).permute(0, 3, 1, 2)
        maps[:, :channels] = x
        for layer, growth in zip(self.layers, self.growths, strict=True):
            maps[:, channels : channels + growth] = layer(pixels[:, :channels], (n, height, width))
            channels += growth
        return maps


class _Layer(nn.Module):
    """A dense layer: norm, ReLU, 1×1 convolution, norm, ReLU, 3×3 convolution."""

    scale: Tensor
    shift: Tensor

    def __init__(self, layer: TorchvisionLayer) -> None:
        super().__init__()
        norm = layer.norm1
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        narrow = fuse_conv_bn_eval(layer.conv1, layer.norm2)
        self.register_buffer("scale", scale)
        self.register_buffer("shift", norm.bias - norm.running_mean * scale)
        self.narrow = narrow.to(memory_format=torch.channels_last)
        self.conv: nn.Conv2d = layer.conv2
        self.growth = self.conv.out_channels

    def forward(self, pixels: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """pixels: n·h·w×C. shape: n, h, w. Gives n×growth×h×w."""
        active = torch.addcmul(self.shift, pixels, self.scale).relu_()
        grown: Tensor = self.conv(self.narrow(active.view(*shape, -1).permute(0, 3, 1, 2)).relu_())
        return grown
