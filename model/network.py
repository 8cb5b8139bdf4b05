"""torchvision's DenseNet-121 with 14 logits, and the names of its convolutional stages.

The paper shows "layer 207 of 287", which no counting of DenseNet-121's layers gives. 207/287 = 0.72 of the depth is
torchvision's `features.transition3.relu`, the layer that the authors' code names too (`pool4_relu`): ≈ layer 207.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import ConfigError
from model.findings import FINDINGS
from model.vision import DenseNet, densenet121

ARCHITECTURE = "densenet121"
MIDDLE_LAYER = "features.transition3.relu"
LAST_LAYER = "features.relu"  # our name: torchvision applies this ReLU as a function, after features.norm5


@dataclass(frozen=True)
class Stage:
    """A convolutional stage whose activation can be explained.

    grid: rows and columns at the given input size; channels: feature maps; depth: share of the network's
    weighted layers (convolutions and batch norms in order of execution) that lie at or before it, 0..1.
    """

    name: str
    grid: tuple[int, int]
    channels: int
    depth: float


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda:N` → the device. Raises ConfigError `no_such_device`."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    try:
        device = torch.device("cuda" if name == "auto" else name)
    except RuntimeError as error:
        raise ConfigError("no_such_device", f"“{name}” is not a device: choose auto, cpu or cuda:N.") from error
    if device.type != "cuda" or not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError("no_such_device", f"There is no device {name} here: choose auto or cpu.")
    return device


class RescaledDenseNet(DenseNet):  # type: ignore[misc]  # torchvision has no types
    """DenseNet-121 whose probabilities are rescaled so that each finding's operating point t comes to lie at 0.5.

    TorchXRayVision's `op_norm` (Apache-2.0): p becomes p/(2t) below t, and 1 − (1 − p)/(2(1 − t)) from t on. Here it
    works on logits, so that a sigmoid makes the same probabilities of them. It rises with p, so it changes no ranking
    and, but for a positive factor, no saliency map.

    op_threshs: 14 probabilities within 0 and 1; a buffer, and so a part of the weights and of their hash.
    """

    op_threshs: Tensor

    def __init__(self) -> None:
        super().__init__(growth_rate=32, block_config=(6, 12, 24, 16), num_init_features=64, num_classes=len(FINDINGS))
        self.register_buffer("op_threshs", torch.full((len(FINDINGS),), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """N×C×S×S → N×14 rescaled logits."""
        return self.rescaled(super().forward(x))

    def rescaled(self, logits: Tensor) -> Tensor:
        """The classifier's logits, N×14 → those whose sigmoid is the rescaled probability."""
        t = self.op_threshs
        # Of the smaller of p and 1 − p, which is at most a half, the logarithm is exact, and the other follows.
        log_p = F.logsigmoid(logits) - (2 * t).log()
        log_q = F.logsigmoid(-logits) - (2 * (1 - t)).log()
        below = logits.sigmoid() < t
        log_least = torch.where(below, log_p, log_q).clamp(max=-math.log(2))
        odds = log_least - torch.log1p(-log_least.exp())
        return torch.where(below, odds, -odds)


def build_network(seed: int | None = None, channels: int = 3, rescaled: bool = False) -> DenseNet:
    """DenseNet-121 with 14 logits (N×C×S×S float32 → N×14), untrained.

    seed: initialises the weights reproducibly without touching the global generator; None uses the global one.
    channels: C, of the input. rescaled: a RescaledDenseNet.
    """
    if seed is None:
        network = RescaledDenseNet() if rescaled else densenet121(weights=None, num_classes=len(FINDINGS))
        if channels != 3:
            network.features.conv0 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(network.features.conv0.weight)
        return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(None, channels, rescaled)


def output_logits(network: DenseNet, logits: Tensor) -> Tensor:
    """What the network puts out for these logits of its classifier, N×14."""
    return network.rescaled(logits) if isinstance(network, RescaledDenseNet) else logits


def stage_names() -> tuple[str, ...]:
    """Names of the stages that saliency accepts, in order of execution."""
    blocks: list[tuple[str, ...]] = [("features.conv0", "features.relu0", "features.pool0")]
    for i in (1, 2, 3):
        blocks.append((f"features.denseblock{i}", f"features.transition{i}.relu", f"features.transition{i}"))
    blocks.append(("features.denseblock4", LAST_LAYER))
    return tuple(name for block in blocks for name in block)


def check_stage(name: str) -> str:
    """The name itself, if it is a stage. Raises ConfigError `unknown_layer`."""
    if name not in stage_names():
        raise ConfigError(
            "unknown_layer", f"“{name}” is not a convolutional stage. Choose from: {', '.join(stage_names())}."
        )
    return name


def stages(input_size_px: int = 224) -> tuple[Stage, ...]:
    """Every stage with its grid, channels and relative depth at an input of that size. Runs one tiny forward pass."""
    network = build_network(seed=0).eval()
    seen: dict[str, tuple[tuple[int, int], int]] = {}
    done: dict[str, int] = {}
    counter = [0]
    handles = []
    wanted = {name for name in stage_names() if name != LAST_LAYER} | {"features.norm5"}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            handles.append(module.register_forward_hook(lambda *_: counter.__setitem__(0, counter[0] + 1)))
        if name in wanted:
            key = LAST_LAYER if name == "features.norm5" else name

            def record(_module: nn.Module, _inputs: object, output: Tensor, key: str = key) -> None:
                seen[key] = ((output.shape[2], output.shape[3]), output.shape[1])
                done[key] = counter[0]

            handles.append(module.register_forward_hook(record))
    with torch.no_grad():
        network(torch.zeros(1, 3, input_size_px, input_size_px))
    for handle in handles:
        handle.remove()
    return tuple(Stage(name, *seen[name], round(done[name] / counter[0], 3)) for name in stage_names())


def last_activation(network: DenseNet, block4: Tensor) -> Tensor:
    """The last layer, N×1024×h×w ≥ 0, from block 4's output. Not in place: the copy is the explained activation."""
    return F.relu(network.features.norm5(block4))


def head(network: DenseNet, last: Tensor) -> Tensor:
    """Logits N×14 from the last layer's activation: global average pooling, then the linear classifier."""
    logits: Tensor = network.classifier(last.mean(dim=(2, 3)))
    return logits
