"""Grad-CAM beside a bare forward pass and beside pytorch-grad-cam, in one run: `python -m bench.saliency`.

The bare pass is the network under `inference_mode`, as anybody would call it. All is timed in the ordinary memory
format and in channels last, which the CPU likes better, each against the bare pass in the same format. As
pytorch-grad-cam averages over the layers it is given, two maps take two calls; the cheapest it can do, one call whose
inner per-layer maps are taken out, is there too.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from bench.machine import machine
from model.checkpoint import BUNDLED, load_checkpoint
from model.findings import FINDINGS
from model.network import LAST_LAYER, MIDDLE_LAYER, build_network, stage_names
from model.saliency import gradcam
from model.vision import DenseNet


class Hookable(nn.Module):
    """A copy of a DenseNet that pytorch-grad-cam can hook: no ReLU works in place, and the last one is a module."""

    def __init__(self, network: DenseNet) -> None:
        super().__init__()
        self.features = copy.deepcopy(network.features)
        self.relu = nn.ReLU()
        self.classifier = copy.deepcopy(network.classifier)
        for module in self.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        self.eval().requires_grad_(True)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.relu(self.features(inputs)).mean(dim=(2, 3)))
        return logits

    def layer(self, name: str) -> nn.Module:
        """The module whose output is the named stage."""
        return self.relu if name == LAST_LAYER else self.get_submodule(name)


class RawGradCAM(GradCAM):  # type: ignore[misc]
    """pytorch-grad-cam's GradCAM with the maps it computes before it stretches them to 0..1 and to the input's size."""

    def maps(self, inputs: Tensor, finding: int) -> list[np.ndarray]:
        """N×h×w ≥ 0 of each target layer."""
        self.forward(inputs, [ClassifierOutputTarget(finding)] * len(inputs))
        held = self.activations_and_grads
        return [
            np.maximum(self.get_cam_image(inputs, layer, [], activation.numpy(), gradient.numpy()), 0)
            for layer, activation, gradient in zip(self.target_layers, held.activations, held.gradients, strict=True)
        ]


def reference_maps(
    network: DenseNet, inputs: Tensor, layers: tuple[str, ...], findings: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """pytorch-grad-cam's maps, un-normalised: layer → N×F×h×w.

    The earliest layer's output is made a leaf, since gradients before it change nothing and take most of the time.
    """
    layers = tuple(name for name in stage_names() if name in layers)  # it mixes up layers in any other order
    hookable = Hookable(network).requires_grad_(False)
    hookable.layer(layers[0]).register_forward_hook(lambda _module, _inputs, output: output.detach().requires_grad_())
    with RawGradCAM(hookable, [hookable.layer(name) for name in layers]) as cam:
        per_finding = [cam.maps(inputs, finding) for finding in findings]
    return {name: np.stack([maps[i] for maps in per_finding], axis=1) for i, name in enumerate(layers)}


BARE = "bare forward"
CHANNELS_LAST = ", channels last"
Calls = dict[str, tuple[Callable[[], object], int]]


def interleaved(calls: Calls) -> dict[str, list[float]]:
    """Seconds of each call, after a warm-up where it is repeated, taking turns so that a busy moment hits all alike.

    calls: name → (call, repeats).
    """
    for call, repeats in calls.values():
        if repeats > 1:
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(max(repeats for _, repeats in calls.values())):
        for name, (call, repeats) in calls.items():
            if turn < repeats:
                start = time.perf_counter()
                call()
                taken[name].append(time.perf_counter() - start)
    return taken


def main(argv: list[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.saliency", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=21, help="interleaved repeats of the quick rows (default 21)")
    parser.add_argument("--size", type=int, default=224, help="input side in pixels (default 224)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="CPU threads (default 2)")
    options = parser.parse_args(argv)
    if options.repeats < 1 or options.size < 32 or options.threads < 1:
        parser.error("--repeats and --threads must be at least 1, --size at least 32")
    torch.set_num_threads(options.threads)

    folder = BUNDLED / "clean"
    if (folder / "card.json").is_file():
        network, source = load_checkpoint(folder).network, "bundled checkpoint clean"
    else:
        network, source = build_network(seed=0).eval().requires_grad_(False), "untrained network, seed 0"
    inputs = torch.randn(1, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    last_inputs = inputs.contiguous(memory_format=torch.channels_last)
    hookable = Hookable(network)
    one = RawGradCAM(hookable, [hookable.layer(MIDDLE_LAYER), hookable.layer(LAST_LAYER)])
    layers = (MIDDLE_LAYER, LAST_LAYER)

    def bare(batch: Tensor) -> None:
        with torch.inference_mode():
            network(batch)

    def public(findings: int) -> None:
        for name in layers:
            with GradCAM(hookable, [hookable.layer(name)]) as cam:
                for finding in range(findings):
                    cam(inputs, [ClassifierOutputTarget(finding)])

    quick: Calls = {}
    for suffix, batch in (("", inputs), (CHANNELS_LAST, last_inputs)):
        quick[BARE + suffix] = (partial(bare, batch), options.repeats)
        quick["Overread, 1 finding" + suffix] = (partial(gradcam, network, batch, layers, (0,)), options.repeats)
        quick["Overread, 14 findings" + suffix] = (partial(gradcam, network, batch, layers), options.repeats)
    taken = interleaved(quick)
    # The slow rows apart: their large buffers would chill the quick rows' caches. The bare pass goes along again.
    few = max(2, options.repeats // 7)
    slow: Calls = {
        BARE: (partial(bare, inputs), few),
        "pytorch-grad-cam, 1 finding, one call": (partial(one.maps, inputs, 0), few),
        "pytorch-grad-cam, 1 finding": (partial(public, 1), few),
        "pytorch-grad-cam, 14 findings": (partial(public, len(FINDINGS)), 1),
    }
    slow_taken = interleaved(slow)
    one.activations_and_grads.release()

    print(f"Saliency at both layers, {options.size} px, batch 1, float32, {source}\n{machine()}")
    print(
        f"{options.repeats} interleaved repeats ({few} and 1 of pytorch-grad-cam): medians, in brackets the quickest,"
    )
    print("which a busy machine disturbs less. “×” is against the bare pass in the same memory format.\n")
    print(f"{'':40}{'ms':>17}{'×':>15}")
    for table in (taken, slow_taken):
        for name, times in table.items():
            if table is slow_taken and name == BARE:
                continue
            base = table[BARE + (CHANNELS_LAST if name.endswith(CHANNELS_LAST) else "")]
            ratio = statistics.median(times) / statistics.median(base)
            milliseconds = f"{statistics.median(times) * 1e3:.1f} ({min(times) * 1e3:.1f})"
            print(f"{name:40}{milliseconds:>17}{f'{ratio:.2f} ({min(times) / min(base):.2f})':>15}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
