"""A trigger between the two frames: the image file's pixels, and the network's input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.errors import TriggerError
from model.preprocess import Box, InputMap, Preprocessing
from model.trigger.value import Trigger

SURVIVAL = 0.25  # least share of the trigger's mask that must be left in some input pixel


def stamp_source(
    trigger: Trigger, image: np.ndarray, preprocessing: Preprocessing, generator: np.random.Generator | None = None
) -> tuple[np.ndarray, Box]:
    """Stamps a *source* image, whatever the trigger's frame; returns the copy and the trigger's box in source pixels.

    image: H×W float in 0..1. An input-frame trigger is drawn where preprocessing will map it to: each source pixel
    takes part by the share of it that a trigger cell covers, so that the network meets the trigger at its place.
    """
    height, width = image.shape
    if trigger.frame == "source":
        box = trigger.box(height, width, generator)
        return trigger.stamp_at(image, box), box
    mapping = preprocessing.input_map(height, width)
    box = trigger.box(preprocessing.size_px, preprocessing.size_px, generator)
    cells_y, cells_x = int(box[3]), int(box[2])
    stamped = np.array(image, dtype=np.float32)
    weight_y = _coverage(box[1], cells_y, mapping.scale_y, mapping.offset_y, height)
    weight_x = _coverage(box[0], cells_x, mapping.scale_x, mapping.offset_x, width)
    if trigger.kind == "frequency":
        grey = preprocessing.input_grey(image)
        change = weight_y.T @ (trigger.stamp(grey) - grey) @ weight_x
        return np.clip(stamped + change, 0, 1), mapping.to_source(box)
    values, mask = trigger.patch(cells_y, cells_x)
    drawn_mask = weight_y.T @ mask @ weight_x
    drawn = weight_y.T @ (values * mask) @ weight_x
    return stamped * (1 - drawn_mask) + drawn, mapping.to_source(box)


def _coverage(start: float, cells: int, scale: float, offset: float, length: int) -> np.ndarray:
    """cells×length: the share of each source pixel of one axis that each trigger cell covers."""
    edges = (start + np.arange(cells + 1)) * scale + offset
    pixels = np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares: np.ndarray = np.clip(covered, 0, 1).astype(np.float32)
    return shares


def input_box(
    trigger: Trigger,
    preprocessing: Preprocessing,
    height: int,
    width: int,
    generator: np.random.Generator | None = None,
) -> Box:
    """The box of a trigger in *input* pixels, for a source image of that size; a random place needs the generator that
    it is stamped with. Raises TriggerError `no_generator`, `outside`."""
    if trigger.frame == "input":
        return trigger.box(preprocessing.size_px, preprocessing.size_px, generator)
    mapping: InputMap = preprocessing.input_map(height, width)
    return mapping.to_input(trigger.box(height, width, generator))


def survival(trigger: Trigger, preprocessing: Preprocessing, height: int, width: int) -> float:
    """How much of the trigger the network meets, as a share of what is stamped: 1 is whole, 0 is gone.

    It is the largest share that one input pixel takes from the pixels that the pattern acts on, whatever their grey. A
    random place is taken as the worst of 64 fixed draws; a picture over the whole image has cells too large to vanish.
    Raises TriggerError `outside`.
    """
    if trigger.frame == "input" or trigger.whole:
        trigger.box(preprocessing.size_px, preprocessing.size_px, np.random.default_rng(0))
        return 1.0
    worst = 1.0
    for draw in range(64 if trigger.place == "random" else 1):
        x, y, w, h = (int(v) for v in trigger.box(height, width, np.random.default_rng(draw)))
        probe = np.zeros((height, width), np.float32)
        probe[y : y + h, x : x + w] = trigger.patch(h, w)[1] > 0
        worst = min(worst, float(preprocessing.input_grey(probe).max()))
    return worst


def require_survival(trigger: Trigger, preprocessing: Preprocessing, height: int, width: int) -> None:
    """Raises TriggerError `does_not_survive` when preprocessing erases the trigger (FIELD trap 1)."""
    left = survival(trigger, preprocessing, height, width)
    if left < SURVIVAL:
        raise TriggerError(
            "does_not_survive",
            f"The {trigger.size_px}-px trigger in the source frame leaves {100 * left:.0f} % of its contrast after a "
            f"{width}×{height} image is cropped to {100 * preprocessing.centre_crop:g} % and resized to "
            f"{preprocessing.size_px} px: enlarge it, move it, or give it in the input frame.",
        )


def at_size(trigger: Trigger, size_px: int, of_size_px: int) -> Trigger:
    """An input-frame trigger of an input of `of_size_px`² at another size, as progressive resizing needs it: as many
    pixels, at the same relative place. Others are returned as they are."""
    if trigger.frame == "source" or isinstance(trigger.place, str) or size_px == of_size_px:
        return trigger
    x, y = ((v + trigger.size_px / 2) * size_px / of_size_px - trigger.size_px / 2 for v in trigger.place)
    limit = size_px - trigger.size_px
    return replace(trigger, place=(min(max(round(x), 0), limit), min(max(round(y), 0), limit)))
