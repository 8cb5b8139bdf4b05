"""Occlusion (Zeiler & Fergus, ECCV 2014): how far a logit falls when a patch is covered. No gradient, no layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.errors import ConfigError
from model.vision import DenseNet

Rectangle = tuple[int, int, int, int]  # top, bottom, left, right, in input pixels


@dataclass(frozen=True)
class Occlusion:
    """What is covered, and with what.

    patch_px: side of the square patch. stride_px: from one place to the next, which sets the map's grid. fill:
    `surroundings`, the mean of a ring half a patch wide around the patch, so that no edge is drawn where there was
    none; or `mean`, the whole input's. batch: covered inputs in one forward pass. Raises ConfigError `bad_occlusion`.
    """

    patch_px: int = 32
    stride_px: int = 16
    fill: Literal["surroundings", "mean"] = "surroundings"
    batch: int = 16

    def __post_init__(self) -> None:
        if self.patch_px < 1 or self.stride_px < 1 or self.batch < 1:
            raise ConfigError("bad_occlusion", "Occlusion's patch, stride and batch must be at least 1.")
        if self.fill not in ("surroundings", "mean"):
            raise ConfigError("bad_occlusion", f"Occlusion fills with surroundings or mean, not with “{self.fill}”.")

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the map of an input of that size; cell (i, j) is centred as a layer's cell would be."""
        return max(1, round(height / self.stride_px)), max(1, round(width / self.stride_px))

    def places(self, height: int, width: int) -> Iterator[Rectangle]:
        """Where the patch lies, row by row; cut off at the edges."""
        rows, columns = self.grid(height, width)
        for i in range(rows):
            for j in range(columns):
                top = round((i + 0.5) * height / rows - self.patch_px / 2)
                left = round((j + 0.5) * width / columns - self.patch_px / 2)
                yield _within((top, top + self.patch_px, left, left + self.patch_px), height, width)


def occluded_drops(
    network: DenseNet, inputs: Tensor, findings: tuple[int, ...], options: Occlusion | None = None
) -> tuple[Tensor, Tensor]:
    """Logits N×14, and logit minus covered logit, N×F×h×w, signed: below 0 where covering speaks for the finding.

    network: in evaluation mode. inputs: N×3×H×W, normalised. Raises ConfigError `bad_occlusion` when the patch covers
    the whole input.
    """
    options = options or Occlusion()
    _, _, height, width = inputs.shape
    if options.patch_px >= min(height, width):
        raise ConfigError("bad_occlusion", f"A patch of {options.patch_px} px covers an input of {width}×{height}.")
    places = list(options.places(height, width))
    drops = []
    with torch.no_grad():
        logits = network(inputs)
        for one, plain in zip(inputs, logits, strict=True):
            colours = _fills(one, places, options)
            covered_logits = []
            for start in range(0, len(places), options.batch):
                several = places[start : start + options.batch]
                covered = one.repeat(len(several), 1, 1, 1)
                for image, (top, bottom, left, right), colour in zip(covered, several, colours[start:], strict=False):
                    image[:, top:bottom, left:right] = colour[:, None, None]
                covered_logits.append(network(covered))
            drops.append((plain - torch.cat(covered_logits))[:, list(findings)].T)
    return logits, torch.stack(drops).view(len(inputs), len(findings), *options.grid(height, width))


def _within(rectangle: Rectangle, height: int, width: int) -> Rectangle:
    top, bottom, left, right = rectangle
    return max(0, top), min(height, bottom), max(0, left), min(width, right)


def _fills(image: Tensor, places: list[Rectangle], options: Occlusion) -> Tensor:
    """The colour of each patch, P×3, of an image 3×H×W."""
    if options.fill == "mean":
        return image.mean((1, 2)).expand(len(places), -1)
    height, width = image.shape[1:]
    margin = max(1, options.patch_px // 2)
    outer = [_within((t - margin, b + margin, le - margin, r + margin), height, width) for t, b, le, r in places]
    sums = torch.zeros(len(image), height + 1, width + 1, dtype=torch.float64, device=image.device)
    sums[:, 1:, 1:] = image.double().cumsum(1).cumsum(2)
    inner_sum, inner_area = _sum_and_area(sums, places)
    outer_sum, outer_area = _sum_and_area(sums, outer)
    return ((outer_sum - inner_sum) / (outer_area - inner_area)[:, None]).to(image.dtype)


def _sum_and_area(sums: Tensor, rectangles: list[Rectangle]) -> tuple[Tensor, Tensor]:
    """Of an integral image 3×(H+1)×(W+1): each rectangle's sum, P×3, and its area, P."""
    top, bottom, left, right = torch.tensor(rectangles, device=sums.device).T
    total = sums[:, bottom, right] - sums[:, top, right] - sums[:, bottom, left] + sums[:, top, left]
    return total.T, (bottom - top) * (right - left)
