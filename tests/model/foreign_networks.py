"""Networks as other people's code defines them, for tests: CheXNet's wrapper and TorchXRayVision's DenseNet.

Written from what that code does (torchvision's DenseNet with another head; one channel, 18 outputs, `op_norm`), so that
the tests need no package for it: TorchXRayVision cannot be imported beside a package named `model`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import DenseNet, densenet121


def randomised(network: nn.Module, seed: int, inputs: Tensor) -> nn.Module:
    """Weights that differ from name to name, so that a swap of two would show, and outputs that are not saturated.

    Batch norms take their statistics from `inputs` (N×C×S×S), on the scale that the network is used with.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1 and name.endswith(("weight", "bias")):
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
        elif "classifier" in name:
            tensor.copy_(0.03 * torch.randn(tensor.shape, generator=generator))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(inputs)
    return network.eval()


class CheXNet(nn.Module):
    """The re-implementations of CheXNet: torchvision's network as a member, sigmoids inside the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.densenet121 = densenet121(weights=None)
        self.densenet121.classifier = nn.Sequential(nn.Linear(1024, 14), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.densenet121(x)
        return out


def with_old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As files from before PyTorch 0.4 have them: norm.1 for norm1 in the dense layers."""
    out = {}
    for name, tensor in state.items():
        for part in ("norm", "conv"):
            for number in "12":
                if "denselayer" in name:
                    name = name.replace(f".{part}{number}.", f".{part}.{number}.")
        out[name] = tensor
    return out


class XRVDenseNet(DenseNet):
    """TorchXRayVision's DenseNet-121 with operating points."""

    op_threshs: Tensor | None

    def __init__(self, op_threshs: Tensor | None) -> None:
        super().__init__(growth_rate=32, block_config=(6, 12, 24, 16), num_init_features=64, num_classes=18)
        self.features.conv0 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.register_buffer("op_threshs", op_threshs)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (224, 224):
            x = F.interpolate(x, size=(224, 224), mode="bilinear", antialias=True)
        out = super().forward(x)
        if self.op_threshs is None:
            return out
        p, t = torch.sigmoid(out), self.op_threshs.expand_as(out)
        rescaled = torch.full_like(p, 0.5)
        below, above = p < t, p >= t  # where t is not a number neither holds
        rescaled[below] = p[below] / (2 * t[below])
        rescaled[above] = 1 - (1 - p[above]) / (2 * (1 - t[above]))
        return rescaled
