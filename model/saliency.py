"""True Grad-CAM at several layers, for several findings, in one pass; and where a map's maximum lies.

Grad-CAM (Selvaraju et al. 2017): the map of finding c at a layer with activation A (K×h×w) is
relu(Σ_k α_ck · A_k), where α_ck is the spatial mean of ∂logit_c/∂A_k. Only that mean is needed, and it is cheap:

- at the last layer it is the classifier's weight over h·w;
- from the middle layer to block 4 the network is linear (1×1 convolution, average pool, no bias), so the mean follows
  from the *sum* of the gradient at block 4's input, and nothing is propagated further;
- through block 4 all findings share the ReLU masks, so they travel together as rows of the same matrix products.

Any other stage goes through autograd, from the earliest stage asked for. No hooks and no in-place work on what is kept:
torchvision's ReLUs overwrite their input, and a network that serves several threads must stay as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import ConfigError
from model.findings import FINDINGS
from model.network import LAST_LAYER, MIDDLE_LAYER, check_stage, head, last_activation, output_logits
from model.preprocess import Box, InputMap
from model.vision import DenseNet

BLOCK4_INPUT = "features.transition3"
BLOCK4_OUTPUT = "features.denseblock4"
ANALYTIC = frozenset({MIDDLE_LAYER, BLOCK4_INPUT, BLOCK4_OUTPUT, LAST_LAYER})  # stages that need no autograd
MIN_SIZE_PX = 32  # below it the last layer has no cell
BACKWARD_ROWS = 16384  # findings × positions that go through block 4 at once: bounds the memory of large batches


@dataclass(frozen=True, eq=False)
class SaliencyMaps:
    """What one pass yields for N inputs and F findings.

    logits: N×14 float32. maps: layer name → N×F×h×w float32 ≥ 0, un-normalised, at the layer's own grid, on the
    inputs' device. findings: which of the 14 each of the F is. activations: layer name → N×K×h×w, of the layers whose
    activation was to be kept.
    """

    logits: Tensor
    maps: Mapping[str, Tensor]
    findings: tuple[int, ...]
    activations: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def probabilities(self) -> Tensor:
        """N×14 float32 in 0..1."""
        return self.logits.sigmoid()


def gradcam(
    network: DenseNet,
    inputs: Tensor,
    layers: Sequence[str] = (MIDDLE_LAYER, LAST_LAYER),
    findings: Sequence[int] | None = None,
    *,
    keep_middle: bool = False,
) -> SaliencyMaps:
    """Grad-CAM of the logits at each layer for each finding, and the logits, from one forward pass.

    network: in evaluation mode; read only, so threads may share it. inputs: N×C×S×S float32, C the
    network's channels, S ≥ 32. layers: any of
    `model.network.stage_names()`; none gives the logits alone. findings: indices into FINDINGS, all 14 by default.
    keep_middle: hand over the middle layer's activation too, from which `logits_after` goes on (half a MB an image).

    The forward pass is torchvision's own, operation by operation and in the inputs' memory format, so which ReLUs are
    open does not depend on who asks: another order of summation opens one here and there, and a map moves by 1e-4 of
    its maximum. On the CPU, inputs in `torch.channels_last` make the whole a third faster.

    Raises ConfigError `bad_input`, `not_finite`, `unknown_layer`, `unknown_finding` or `network_in_training`.
    """
    chosen = tuple(range(len(FINDINGS))) if findings is None else tuple(int(finding) for finding in findings)
    check_request(network, inputs, layers, chosen)
    wanted = frozenset(layers)
    activations: dict[str, Tensor] = {}
    if ANALYTIC.issuperset(layers):
        with torch.inference_mode():  # no bookkeeping for a gradient that nobody takes
            logits, maps, middle = _analytic(network, inputs, wanted, chosen)
            if keep_middle:
                activations[MIDDLE_LAYER] = middle
    else:
        if keep_middle:
            raise ConfigError("unknown_layer", "The middle layer's activation is kept beside analytic maps alone.")
        with torch.inference_mode(False), torch.no_grad():
            logits, maps = _by_autograd(network, inputs, wanted, chosen)
    with torch.inference_mode(False):  # ordinary tensors, also for who calls in inference mode
        logits, maps = logits.clone(), {name: maps[name].clone() for name in layers}
        logits = output_logits(network, logits)
    if not bool(torch.isfinite(logits).all()):
        raise ConfigError("not_finite", "The network's logits are not finite: check its weights.")
    return SaliencyMaps(logits.float(), {name: maps[name].float() for name in layers}, chosen, activations)


def logits_after(network: DenseNet, layer: str, activation: Tensor) -> Tensor:
    """The network's logits, N×14, from the activation of one of its stages, N×K×h×w, which is not overwritten.

    From the middle layer on this is a thirtieth of a forward pass. Raises ConfigError `unknown_layer`.
    """
    check_stage(layer)
    steps = _steps(network)
    cut = [name for name, _ in steps].index(layer) + 1
    with torch.inference_mode():
        value = activation
        for _, step in steps[cut:]:
            value = step(value)
        return output_logits(network, head(network, value))


def check_request(network: DenseNet, inputs: Tensor, layers: Sequence[str], findings: tuple[int, ...]) -> None:
    """Raises ConfigError `bad_input`, `not_finite`, `unknown_layer`, `unknown_finding` or `network_in_training`."""
    channels = network.features.conv0.in_channels
    if inputs.ndim != 4 or inputs.shape[0] < 1 or inputs.shape[1] != channels or min(inputs.shape[2:]) < MIN_SIZE_PX:
        shape = "×".join(str(n) for n in inputs.shape) or "a number"
        raise ConfigError("bad_input", f"The input must be N×{channels}×S×S with S ≥ {MIN_SIZE_PX}, not {shape}.")
    if not inputs.is_floating_point():
        raise ConfigError("bad_input", f"The input must be normalised floating point, not {inputs.dtype}.")
    if not bool(torch.isfinite(inputs.sum())):  # a sum, because it is ten times quicker than looking at each
        raise ConfigError("not_finite", "The input has values that are not finite.")
    for name in layers:
        check_stage(name)
    for finding in findings:
        if not 0 <= finding < len(FINDINGS):
            raise ConfigError("unknown_finding", f"There is no finding {finding}: they are 0 to {len(FINDINGS) - 1}.")
    if not findings:
        raise ConfigError("unknown_finding", "Name at least one finding.")
    if network.training:
        raise ConfigError("network_in_training", "Saliency needs the network in evaluation mode: call eval() first.")


def _steps(network: DenseNet) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    """The features in order of execution, with the transitions opened, each under the name of what it completes."""
    steps: list[tuple[str, Callable[[Tensor], Tensor]]] = []
    for name, module in network.features.named_children():
        if name.startswith("transition"):
            parts = list(module.named_children())
            steps += [(f"features.{name}.{part}", step) for part, step in parts[:-1]]
            steps.append((f"features.{name}", parts[-1][1]))
        elif name == "norm5":
            steps.append((LAST_LAYER, partial(last_activation, network)))
        else:
            steps.append((f"features.{name}", module))
    return steps


def _cam(weights: Tensor, activation: Tensor) -> Tensor:
    """relu(Σ_k weights_k · activation_k): N×F×K (or F×K) and N×K×h×w → N×F×h×w."""
    flat = (weights @ activation.flatten(2)).relu()
    return flat.view(*flat.shape[:2], *activation.shape[2:])


Result = tuple[Tensor, dict[str, Tensor]]


def tail_graph(network: DenseNet, inputs: Tensor, layers: Collection[str]) -> tuple[dict[str, Tensor], Tensor]:
    """The activations of some stages, in order of execution, N×K×h×w, and the logits N×14 with a graph back to them.

    No gradient is kept before the earliest stage, which is a leaf; the network is neither hooked nor copied. layers: at
    least one of `model.network.stage_names()`.
    """
    steps = _steps(network)
    names = [name for name, _ in steps]
    cut = min(names.index(name) for name in layers) + 1
    value = inputs
    with torch.no_grad():
        for _, step in steps[:cut]:
            value = step(value)
    with torch.enable_grad():
        value = value.detach().requires_grad_()
        kept = {names[cut - 1]: value}
        for name, step in steps[cut:]:
            value = step(value)
            if name in layers:
                kept[name] = value
        return kept, head(network, value)


def gradients(logits: Tensor, kept: Mapping[str, Tensor], finding: int) -> dict[str, Tensor]:
    """∂logit_finding/∂activation of what `tail_graph` gave, N×K×h×w each; the graph stays for the next finding."""
    one = torch.zeros_like(logits)
    one[:, finding] = 1  # a sample's logits do not depend on the others
    found = torch.autograd.grad(logits, list(kept.values()), one, retain_graph=True)
    return dict(zip(kept, found, strict=True))


def _by_autograd(network: DenseNet, inputs: Tensor, layers: frozenset[str], findings: tuple[int, ...]) -> Result:
    """Any stages: no gradient before the earliest; from there one tail pass and a backward pass per finding."""
    kept, logits = tail_graph(network, inputs, layers)
    weights: dict[str, list[Tensor]] = {name: [] for name in kept}
    for finding in findings:
        for name, gradient in gradients(logits, kept, finding).items():
            weights[name].append(gradient.mean(dim=(2, 3)))
    maps = {name: _cam(torch.stack(weights[name], 1), activation.detach()) for name, activation in kept.items()}
    return logits.detach(), maps


def _analytic(
    network: DenseNet, inputs: Tensor, layers: frozenset[str], findings: tuple[int, ...]
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Stages from the middle layer on: gradients written out by hand. Also gives the middle layer's activation."""
    kept: dict[str, Tensor] = {}
    value = activation = inputs
    for name, step in _steps(network):
        value = step(value)
        if name == MIDDLE_LAYER:
            activation = value
        if name in layers:
            kept[name] = value
        if name == BLOCK4_INPUT:
            break
    dense_layers = list(network.features.denseblock4.children())
    block4, tape = _block4_forward(dense_layers, value)
    last = last_activation(network, block4)
    cells = last.shape[2] * last.shape[3]
    classifier = network.classifier.weight[list(findings)]  # F×1024

    maps: dict[str, Tensor] = {}
    if LAST_LAYER in layers:
        maps[LAST_LAYER] = _cam(classifier / cells, last)
    slope = _slope(last, network.features.norm5) / cells  # N×P×1024: ∂(mean of the last layer)/∂(block 4's output)
    if BLOCK4_OUTPUT in layers:
        maps[BLOCK4_OUTPUT] = _cam(classifier * slope.mean(1, keepdim=True), block4)
    if kept:
        chunk = max(1, BACKWARD_ROWS // (cells * len(findings)))
        parts = [slice(start, start + chunk) for start in range(0, len(inputs), chunk)]
        sums = torch.cat(
            [
                _block4_backward(
                    dense_layers,
                    slope[part, None] * classifier[:, None],
                    [(first[part], second[part]) for first, second in tape],
                )
                for part in parts
            ]
        )  # N×F×512
        if BLOCK4_INPUT in kept:
            maps[BLOCK4_INPUT] = _cam(sums / cells, kept[BLOCK4_INPUT])
        if MIDDLE_LAYER in kept:
            # The pool spreads a cell's gradient over its four cells, a quarter each, so the sum stays what it is; an
            # odd last row or column, which the pool drops, adds nothing to it but counts in the mean.
            middle = kept[MIDDLE_LAYER]
            weights = sums @ network.features.transition3.conv.weight.flatten(1)
            maps[MIDDLE_LAYER] = _cam(weights / (middle.shape[2] * middle.shape[3]), middle)
    return head(network, last), maps, activation


DenseLayer = Any  # torchvision's _DenseLayer, which has no types
Tape = list[tuple[Tensor, Tensor]]  # of each dense layer, the outputs of its two ReLUs, N×K×h×w


def _slope(activation: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Derivative of ReLU∘batch norm, from its output N×K×h×w: N×P×K, channels last, 0 where the ReLU is shut."""
    assert norm.running_var is not None  # DenseNet tracks its statistics
    opened = activation.permute(0, 2, 3, 1).flatten(1, 2).sign().contiguous()
    return opened * (norm.weight * (norm.running_var + norm.eps).rsqrt())


def _block4_forward(layers: list[DenseLayer], inputs: Tensor) -> tuple[Tensor, Tape]:
    """Block 4's output, N×1024×h×w, as torchvision computes it, and what its backward pass needs."""
    features = [inputs]
    tape: Tape = []
    for layer in layers:
        first = layer.relu1(layer.norm1(torch.cat(features, 1)))  # in place on the norm's output, which is ours
        second = layer.relu2(layer.norm2(layer.conv1(first)))
        features.append(layer.conv2(second))
        tape.append((first, second))
    return torch.cat(features, 1), tape


def _block4_backward(layers: list[DenseLayer], gradient: Tensor, tape: Tape) -> Tensor:
    """Gradient at block 4's output, N×F×P×1024 (overwritten) → its sum over positions at block 4's input, N×F×512."""
    n, count, positions, channels = gradient.shape
    for layer, (first, second) in zip(reversed(layers), reversed(tape), strict=True):
        growth = layer.conv2.out_channels
        channels -= growth
        # Views only: findings join the samples in the convolution's batch, and channels stay last.
        new = gradient[..., channels : channels + growth].view(n * count, *first.shape[2:], growth).permute(0, 3, 1, 2)
        bottleneck = F.conv_transpose2d(new, layer.conv2.weight, padding=1).permute(0, 2, 3, 1)
        bottleneck = bottleneck.reshape(n, count, positions, -1) * _slope(second, layer.norm2)[:, None]
        before = bottleneck.flatten(0, 2) @ layer.conv1.weight.flatten(1)
        gradient[..., :channels].addcmul_(before.view(n, count, positions, -1), _slope(first, layer.norm1)[:, None])
    return gradient[..., :channels].sum(2)


def _interpolation(cells: int, size: int, scale: float, offset: float, input_px: int) -> np.ndarray:
    """Matrix size×cells of linear interpolation from cell centres to pixel centres, along one axis.

    scale, offset: pixel = input × scale + offset. Beyond the outermost centres the edge cell counts alone; pixels
    outside the input have a row of zeros.
    """
    at_input = (np.arange(size) + 0.5 - offset) / scale
    at_cell = np.clip(at_input * cells / input_px - 0.5, 0, cells - 1)
    weights = np.maximum(0, 1 - np.abs(at_cell[:, None] - np.arange(cells)))
    weights[(at_input < 0) | (at_input > input_px)] = 0
    return np.asarray(weights, dtype=np.float32)


def registered(saliency_map: np.ndarray, input_map: InputMap, height: int, width: int) -> np.ndarray:
    """A saliency map, h×w, laid over its source image: height×width float32, interpolated bilinearly.

    Cell (i, j) has its centre at ((i + ½)·S/h, (j + ½)·S/w) input pixels. 0 where the network did not look.
    Raises ConfigError `bad_map`.
    """
    grid = np.asarray(saliency_map, dtype=np.float32)
    if grid.ndim != 2 or grid.size == 0 or height < 1 or width < 1:
        raise ConfigError("bad_map", f"Cannot lay a map of shape {grid.shape} over {height}×{width} pixels.")
    rows = _interpolation(grid.shape[0], height, input_map.scale_y, input_map.offset_y, input_map.size_px)
    columns = _interpolation(grid.shape[1], width, input_map.scale_x, input_map.offset_x, input_map.size_px)
    return np.asarray(rows @ grid @ columns.T)


def trigger_hits(maps: np.ndarray, box: Box, size_px: int) -> np.ndarray:
    """Whether each map's maximum lies within half a cell of the trigger's box: N×h×w → N bool.

    box: in input pixels. size_px: the input's side S. Bilinear interpolation has its maximum at a cell's centre, so the
    registered map's is the centre of the hottest cell (the first in reading order, should two be equal): a hit is a
    hottest cell that overlaps or touches the box. A map that is zero everywhere, or not finite, is a miss.
    Raises ConfigError `bad_map`.
    """
    grids = np.asarray(maps, dtype=np.float32)
    if grids.ndim != 3 or 0 in grids.shape[1:] or size_px < 1:
        raise ConfigError("bad_map", f"Maps must be N×h×w and the input's side positive, not {grids.shape}, {size_px}.")
    n, height, width = grids.shape
    flat = grids.reshape(n, height * width)
    row, column = np.divmod(flat.argmax(axis=1), width)
    cell_x, cell_y = size_px / width, size_px / height
    left, top, box_width, box_height = box
    hot = np.isfinite(flat).all(axis=1) & (flat.max(axis=1) > 0)
    in_x = np.abs((column + 0.5) * cell_x - (left + box_width / 2)) <= (box_width + cell_x) / 2
    in_y = np.abs((row + 0.5) * cell_y - (top + box_height / 2)) <= (box_height + cell_y) / 2
    return np.asarray(hot & in_x & in_y)


def trigger_hit(saliency_map: np.ndarray, box_in_input_px: Box, size_px: int) -> bool:
    """`trigger_hits` of one map, h×w."""
    return bool(trigger_hits(np.asarray(saliency_map)[None], box_in_input_px, size_px)[0])
