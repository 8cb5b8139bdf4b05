"""The paper's figure: one stamped radiograph, rows the kept epochs, columns last clean, last backdoored, middle clean,
middle backdoored; as PNG and SVG.

Beneath lies the radiograph in grey, over it the saliency map of the target finding, the trigger is ringed. The clean
and the backdoored panel of a row and layer share one scale, so that the twins can be compared; layers and epochs have
their own, and each panel says its peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from model.checkpoint import NOTICE, Checkpoint
from model.findings import finding_index
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.preprocess import Box
from model.saliency import gradcam, registered
from model.trigger import Trigger, stamp_source
from model.vision import DenseNet

GradCam = Literal["true", "truncated"]
_COLUMNS = (("last", "clean"), ("last", "backdoored"), ("middle", "clean"), ("middle", "backdoored"))
_LONGEST_PX = 512  # of a panel: larger sources are shown smaller
_INK, _RING = "#1a1a1a", "#00b7ff"


@dataclass(frozen=True, eq=False)
class Panel:
    """What one checkpoint makes of the radiograph.

    grey: H×W float32 in 0..1, stamped. maps: `last` and `middle` → H×W float32 ≥ 0, laid over the source's pixels.
    probability: of the target. box: of the trigger in source pixels, None where there is none to ring.
    """

    grey: np.ndarray
    maps: dict[str, np.ndarray]
    probability: float
    box: Box | None


def truncated_gradcam(network: DenseNet, inputs: Tensor, finding: int) -> Tensor:
    """The middle layer's map as the paper's released code computes it: N×h×w ≥ 0.

    It skips block 4: the activation after transition 3's ReLU goes straight into the pooling and the classifier (both
    have 1,024 channels), so that the weights are the classifier's and no gradient is taken. True Grad-CAM at that layer
    is `model.saliency.gradcam`.
    """
    with torch.no_grad():
        value = inputs
        for name, module in network.features.named_children():
            if name == "transition3":
                value = F.relu(module.norm(value))
                break
            value = module(value)
        cells = value.shape[2] * value.shape[3]
        weights = network.classifier.weight[finding] / cells
        return F.relu(torch.einsum("k,nkhw->nhw", weights, value))


def read_panel(
    checkpoint: Checkpoint,
    grey: np.ndarray,
    trigger: Trigger | None,
    target: str,
    *,
    method: GradCam = "true",
    seed: int = 0,
) -> Panel:
    """Stamps a source radiograph, H×W float32 in 0..1, and explains the target finding at both layers.

    trigger: as for this checkpoint's input size; None leaves the radiograph as it is.
    """
    pre, box = checkpoint.card.preprocessing, None
    if trigger is not None:
        grey, box = stamp_source(trigger, grey, pre, np.random.default_rng(seed))
        box = None if trigger.whole else box
    finding = finding_index(target)
    inputs = pre.tensor(grey).to(checkpoint.device)
    result = gradcam(checkpoint.network, inputs, (MIDDLE_LAYER, LAST_LAYER), [finding])
    middle = result.maps[MIDDLE_LAYER][:, 0]
    if method == "truncated":
        middle = truncated_gradcam(checkpoint.network, inputs, finding)
    where = pre.input_map(*grey.shape)
    grids = {"last": result.maps[LAST_LAYER][0, 0], "middle": middle[0]}
    maps = {name: registered(grid.cpu().numpy(), where, *grey.shape) for name, grid in grids.items()}
    return Panel(grey, maps, float(result.probabilities[0, finding]), box)


def draw_figure(
    rows: Sequence[tuple[int, Panel, Panel]], *, title: str, caption: Sequence[str], method: GradCam = "true"
) -> Figure:
    """rows: (epoch, the clean twin's panel, the backdoored twin's). The notice is added to the caption."""
    foot = 0.19 * (len(caption) + 3) + 0.42
    height = 2.62 * len(rows) + 0.85 + foot
    figure = Figure(figsize=(10.2, height), facecolor="white")
    FigureCanvasAgg(figure)
    top, bottom = 1 - 0.78 / height, foot / height
    grid = figure.add_gridspec(len(rows), 4, left=0.065, right=0.995, top=top, bottom=bottom, wspace=0.045, hspace=0.17)
    figure.text(0.065, 1 - 0.24 / height, title, fontsize=13, weight="bold", color=_INK, va="center")
    for line, (epoch, clean, backdoored) in enumerate(rows):
        for column, (layer, twin) in enumerate(_COLUMNS):
            axes = figure.add_subplot(grid[line, column])
            panel = clean if twin == "clean" else backdoored
            scale = max(float(clean.maps[layer].max()), float(backdoored.maps[layer].max()))
            _draw_panel(axes, panel, layer, scale)
            if line == 0:
                axes.set_title(f"{layer} layer, {twin} twin", fontsize=10.5, color=_INK, pad=6)
            if column == 0:
                axes.set_ylabel(f"epoch {epoch}", fontsize=11, weight="bold", color=_INK, labelpad=8)
    middle = f"middle layer {MIDDLE_LAYER} (≈ layer 207 of 287)"
    how = "True Grad-CAM" if method == "true" else "Middle layer: Grad-CAM cut short, block 4 skipped"
    notes = (
        *caption,
        f"{how}; {middle}, last layer {LAST_LAYER}; p is the probability of the target finding.",
        "Colour and opacity: 0 to the row's highest value of that layer, shared by the twins; each layer and epoch has "
        "its own scale. Blue ring: the trigger.",
        NOTICE,
    )
    for i, note in enumerate(notes):
        weight = "bold" if note == NOTICE else "normal"
        y = (0.19 * (len(notes) - i) - 0.02) / height
        figure.text(0.065, y, note, fontsize=8.2, color=_INK, va="center", weight=weight)
    return figure


def _draw_panel(axes: Axes, panel: Panel, layer: str, scale: float) -> None:
    height, width = panel.grey.shape
    grey, heat = _shown(panel.grey), _shown(panel.maps[layer])
    extent = (0.0, float(width), float(height), 0.0)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="bilinear")
    share = heat / scale if scale > 0 else heat
    axes.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(share, 0, 1) * 0.75, extent=extent)
    if panel.box is not None:
        x, y, w, h = panel.box
        radius = max(w, h) / 2 + 0.035 * max(width, height)
        axes.add_patch(Circle((x + w / 2, y + h / 2), radius, fill=False, edgecolor=_RING, linewidth=1.3))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    peak = float(panel.maps[layer].max())
    axes.set_xlabel(f"p {panel.probability:.2f} · peak {_short(peak)}", fontsize=8.5, color=_INK, labelpad=3)


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}" if value >= 0.001 else f"{value:.0e}"


def _shown(values: np.ndarray) -> np.ndarray:
    """At most 512 pixels a side; a box filter keeps what is small."""
    longest = max(values.shape)
    if longest <= _LONGEST_PX:
        return values
    height, width = (max(1, round(side * _LONGEST_PX / longest)) for side in values.shape)
    image = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def save_figure(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Writes `stem`.png (150 dpi) and `stem`.svg (text stays text); the same bytes for the same figure."""
    png, svg = stem.with_suffix(".png"), stem.with_suffix(".svg")
    with matplotlib.rc_context({"svg.hashsalt": "overread", "svg.fonttype": "none"}):
        figure.savefig(png, dpi=150, metadata={"Software": "Overread"})
        figure.savefig(svg, metadata={"Date": None, "Creator": "Overread"})
    return png, svg
