"""Pixels → network input, as the checkpoint's card says; and the exact map back to source pixels.

One implementation serves training, evaluation, the dashboard and the command line. The steps, in order: the source's
grey image (0 black, 1 white) is made square (padding with black, or cutting the longer side), the centre crop is taken,
it is resized to `size_px`, and normalised. A trigger in the *input* frame is stamped between resizing and normalising.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.errors import ConfigError

Box = tuple[float, float, float, float]  # x, y, width, height, in pixels of some frame; edges, not centres

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputMap:
    """The affine map between a network's input and one source image, pixel edges to pixel edges.

    source = input × scale + offset, per axis. `scale_x` and `scale_y` are source pixels per input pixel.
    """

    size_px: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def to_source(self, box: Box) -> Box:
        """A box in input pixels → the same box in source pixels."""
        x, y, w, h = box
        return (x * self.scale_x + self.offset_x, y * self.scale_y + self.offset_y, w * self.scale_x, h * self.scale_y)

    def to_input(self, box: Box) -> Box:
        """A box in source pixels → the same box in input pixels (parts outside the crop get coordinates outside)."""
        x, y, w, h = box
        return (
            (x - self.offset_x) / self.scale_x,
            (y - self.offset_y) / self.scale_y,
            w / self.scale_x,
            h / self.scale_y,
        )


@dataclass(frozen=True)
class Preprocessing:
    """How a checkpoint wants its input; stored in the card, a value.

    size_px: side of the square input. square: `pad` with black or `cut` the longer side. centre_crop: share of the
    square's side that is kept, 0..1. resize: `antialias` (bilinear with a support that grows with the scale) or
    `nearest` (the paper's code). mean, std: per channel, on grey values in 0..1; there are as many channels as numbers,
    three or one. Other scales are a mean and a deviation too: −1024..1024 is (0.5,) and (1/2048,).
    """

    size_px: int = 224
    square: Literal["pad", "cut"] = "pad"
    centre_crop: float = 1.0
    resize: Literal["antialias", "nearest"] = "antialias"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not 32 <= self.size_px <= 2048:
            raise ConfigError("bad_preprocessing", f"size_px must be in 32..2048, not {self.size_px}.")
        if not 0.1 <= self.centre_crop <= 1.0:
            raise ConfigError("bad_preprocessing", f"centre_crop must be in 0.1..1, not {self.centre_crop}.")
        if self.square not in ("pad", "cut") or self.resize not in ("antialias", "nearest"):
            raise ConfigError("bad_preprocessing", f"Unknown square “{self.square}” or resize “{self.resize}”.")
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean) or not min(self.std) > 0:
            raise ConfigError("bad_preprocessing", "mean and std need three numbers each, or one; std above zero.")

    @property
    def channels(self) -> int:
        """Of the network's input."""
        return len(self.mean)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Preprocessing:
        """From the card's JSON. Raises ConfigError `bad_preprocessing` for unknown or missing keys."""
        try:
            return cls(**{**data, "mean": tuple(data["mean"]), "std": tuple(data["std"])})
        except (KeyError, TypeError) as error:
            raise ConfigError("bad_preprocessing", f"The card's preprocessing is malformed: {error}.") from error

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def _window(self, height: int, width: int) -> tuple[float, float, float]:
        """Left, top and side of the square that becomes the input, in source pixels (may lie outside when padding)."""
        side = max(height, width) if self.square == "pad" else min(height, width)
        kept = max(1, round(side * self.centre_crop))
        # Where the middle falls between two pixels, cutting takes the later one, as TorchXRayVision does.
        left, top = (n // 2 - side // 2 if self.square == "cut" else (n - side) // 2 for n in (width, height))
        return left + (side - kept) // 2, top + (side - kept) // 2, kept

    def input_map(self, height: int, width: int) -> InputMap:
        """The map for a source image of that size."""
        left, top, kept = self._window(height, width)
        return InputMap(self.size_px, kept / self.size_px, kept / self.size_px, left, top)

    def input_grey(self, grey: np.ndarray) -> np.ndarray:
        """Source grey image, H×W float32 in 0..1 → input grey image, S×S float32 in 0..1."""
        height, width = grey.shape
        left, top, kept = (int(v) for v in self._window(height, width))
        pad = (max(0, -left), max(0, left + kept - width), max(0, -top), max(0, top + kept - height))
        image = torch.from_numpy(np.ascontiguousarray(grey, dtype=np.float32))[None, None]
        image = image[..., max(0, top) : top + kept, max(0, left) : left + kept]
        if any(pad):
            image = F.pad(image, pad)
        if kept != self.size_px:
            if self.resize == "nearest":
                image = F.interpolate(image, size=(self.size_px, self.size_px), mode="nearest-exact")
            else:
                image = F.interpolate(image, size=(self.size_px, self.size_px), mode="bilinear", antialias=True)
        return image[0, 0].clamp(0, 1).numpy()

    def normalise(self, grey: Tensor) -> Tensor:
        """Input grey images, N×S×S float in 0..1 → network input N×C×S×S float32, C channels."""
        mean = torch.tensor(self.mean, device=grey.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=grey.device).view(1, -1, 1, 1)
        return (grey.float().unsqueeze(1) - mean) / std

    def tensor(self, grey: np.ndarray) -> Tensor:
        """Source grey image H×W in 0..1 → network input 1×C×S×S float32."""
        return self.normalise(torch.from_numpy(self.input_grey(grey))[None])
