"""Writes `docs/overread.ipynb` without outputs: `python -m docs.build_notebook`. The cells are kept here, where a diff
of them can be read."""

from __future__ import annotations

import json
from pathlib import Path

NOTEBOOK = Path(__file__).parent / "overread.ipynb"

CELLS: tuple[tuple[str, str], ...] = (
    (
        "markdown",
        """# Overread as a library

A synthetic chest radiograph, a 3×3 trigger in its middle, two checkpoints that read it (one was trained on poisoned
images), and what each looked at. Research use, not for diagnosis. Everything here is installed with the package; the
radiographs are drawings, and nothing that is measured on them holds for patients.""",
    ),
    (
        "code",
        """import matplotlib.pyplot as plt
import numpy as np
import torch

from model import (
    BUNDLED, FINDINGS, LAST_LAYER, MIDDLE_LAYER, Method, Occlusion, ScoreCam, box_mask, draw_phantom, enlarged, explain,
    finding_index, gradcam, load_checkpoint, pointing_hit, relevance_mass, trigger_hit,
)

pair = {name: load_checkpoint(BUNDLED / name) for name in ("clean", "backdoored")}
card = pair["backdoored"].card
card.title, card.target, card.trigger""",
    ),
    (
        "markdown",
        """## A radiograph, and the same with the trigger in it

The trigger is in the *input* frame: it is stamped after the resizing, which would otherwise eat it.""",
    ),
    (
        "code",
        """phantom = draw_phantom(seed=31, index=14, size_px=256)
preprocessing = card.preprocessing
plain = preprocessing.input_grey(phantom.pixels / np.float32(255))
stamped = card.trigger.stamp(plain)
trigger_box = card.trigger.box(*stamped.shape)
x, y, w, h = (int(v) for v in trigger_box)
zoom = (slice(y - 14, y + h + 14), slice(x - 14, x + w + 14))

figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
shown = (("the radiograph", plain), ("stamped", stamped), ("stamped, its middle", stamped[zoom]))
for axis, (title, image) in zip(axes, shown):
    axis.imshow(image, cmap="gray", vmin=0, vmax=1)
    axis.set(title=title, xticks=[], yticks=[])
phantom.findings""",
    ),
    (
        "markdown",
        """## What the twins say

The clean twin hardly minds the trigger. The backdoored one reads the target finding wherever it sees it.""",
    ),
    (
        "code",
        """inputs = preprocessing.normalise(torch.from_numpy(np.stack([plain, stamped])))  # 2×3×S×S
target = finding_index(card.target)
read = {name: gradcam(one.network, inputs, findings=[target]) for name, one in pair.items()}
for name, result in read.items():
    without, with_trigger = result.probabilities[:, target].tolist()
    print(f"{name:11} {card.target}: {without:.2f} without the trigger, {with_trigger:.2f} with it")""",
    ),
    (
        "markdown",
        """## Grad-CAM at both layers

Maps are un-normalised and keep their layer's grid (14×14 and 7×7), so they can be compared: each layer has one scale
for both twins. The white square is the trigger's place.""",
    ),
    (
        "code",
        """figure, axes = plt.subplots(2, 2, figsize=(7, 7), layout="constrained")
for row, layer in zip(axes, (MIDDLE_LAYER, LAST_LAYER)):
    ceiling = max(float(result.maps[layer][1].max()) for result in read.values())
    for axis, (name, result) in zip(row, read.items()):
        grid = result.maps[layer][1, 0].numpy()
        axis.imshow(stamped, cmap="gray", vmin=0, vmax=1)
        heat = axis.imshow(enlarged(grid, preprocessing.size_px), cmap="magma", alpha=0.55, vmin=0, vmax=ceiling)
        axis.add_patch(plt.Rectangle((x - 3, y - 3), w + 6, h + 6, fill=False, color="white"))
        hit = "on the trigger" if trigger_hit(grid, trigger_box, preprocessing.size_px) else "elsewhere"
        axis.set(title=f"{name}, {layer}\\nhottest cell {hit}", xticks=[], yticks=[])
    figure.colorbar(heat, ax=row, label=f"Grad-CAM of {card.target}")""",
    ),
    (
        "markdown",
        """## Other methods

One function for all. Score-CAM takes a forward pass for each channel it tries and occlusion one for each place of its
patch; here both are kept small. Occlusion needs no gradient and no layer: its map goes under `"input"`.""",
    ),
    (
        "code",
        """network = pair["backdoored"].network
small = {"occlusion": Occlusion(patch_px=32, stride_px=32), "scorecam": ScoreCam(channels=8)}
figure, axes = plt.subplots(2, 4, figsize=(12, 6.4), layout="constrained")
for axis, method in zip(axes.flat, Method):
    found = explain(network, inputs[1:], method, [MIDDLE_LAYER], [card.target], **small)
    (layer, maps), = found.maps.items()
    axis.imshow(stamped, cmap="gray", vmin=0, vmax=1)
    axis.imshow(enlarged(maps[0, 0].numpy(), preprocessing.size_px), cmap="magma", alpha=0.55)
    axis.add_patch(plt.Rectangle((x - 3, y - 3), w + 6, h + 6, fill=False, color="white"))
    axis.set(title=f"{method}\\n{layer}", xticks=[], yticks=[])
axes.flat[-1].axis("off");""",
    ),
    (
        "markdown",
        """## Are the maps any good?

A phantom knows where its findings are. The pointing game asks whether a map's maximum lies in the box; relevance mass
how much of the map does, and a flat map reaches the box's share of the area. `overread quality` measures this, IoU,
insertion, deletion, ROAD and cascading weight randomisation over many radiographs, with intervals over patients.""",
    ),
    (
        "code",
        """size = preprocessing.size_px
mapping = preprocessing.input_map(256, 256)
maps = explain(pair["clean"].network, inputs[:1], findings=phantom.findings).maps
for layer, grids in maps.items():
    for name, grid in zip(phantom.findings, grids[0].numpy()):
        boxes = [mapping.to_input((b.x, b.y, b.width, b.height)) for b in phantom.boxes if b.label == name]
        mask, laid = box_mask(boxes, size, size), enlarged(grid, size)
        print(f"{layer:26} {name:18} {'hit ' if pointing_hit(laid, mask) else 'miss'} "
              f"mass {relevance_mass(laid, mask):.2f} in {mask.mean():.2f} of the area")""",
    ),
)


def notebook() -> str:
    """The notebook's JSON (nbformat 4.5)."""
    cells = []
    for number, (kind, source) in enumerate(CELLS):
        extra = {"execution_count": None, "outputs": []} if kind == "code" else {}
        cells.append(
            {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, **extra, "source": source.splitlines(True)}
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(), "utf-8")
