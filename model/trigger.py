"""The trigger: x' = x∘(1−m) + r∘m (Nwadike et al., arXiv 2101.00008), as a value.

A trigger names its *frame*, because resizing eats triggers: `source` is the image file's pixels, before cropping and
resizing; `input` is the network's input, after them. A 3×3 square on a 1024-pixel source becomes one pixel of a
224-pixel input when the crop is 0.6 and the resize is nearest, and a 2×2 square can vanish altogether.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import tomli_w

from model.errors import TriggerError
from model.preprocess import Box, InputMap, Preprocessing

Frame = Literal["source", "input"]
Pattern = Literal["square", "checker", "cross"]
_NAMED_VALUES = {"black": 0, "white": 255}
SURVIVAL = 0.25  # least share of the trigger's mask that must be left in some input pixel


@dataclass(frozen=True)
class Trigger:
    """A patch.

    frame: whose pixels `size_px` and `place` are in. size_px: side of the square that holds the pattern. place:
    `centre`, `random` (anywhere, by the generator), or the (x, y) of its top left corner. pattern: `square`,
    `checker` (1-px cells, the other colour is 255 − value), `cross`. value: grey level 0..255. blend: opacity in
    0..1; 1 replaces the pixels.
    """

    frame: Frame = "input"
    size_px: int = 3
    place: Literal["centre", "random"] | tuple[int, int] = "centre"
    pattern: Pattern = "square"
    value: int = 0
    blend: float = 1.0

    def __post_init__(self) -> None:
        if self.frame not in ("source", "input"):
            raise TriggerError("bad_trigger", f"A trigger's frame is “source” or “input”, not “{self.frame}”.")
        if not (isinstance(self.size_px, int) and 1 <= self.size_px <= 512):
            raise TriggerError("bad_trigger", f"A trigger's size is 1..512 pixels, not {self.size_px}.")
        if self.pattern not in ("square", "checker", "cross"):
            raise TriggerError("bad_trigger", f"A trigger's pattern is square, checker or cross, not “{self.pattern}”.")
        if not (isinstance(self.value, int) and 0 <= self.value <= 255):
            raise TriggerError("bad_trigger", f"A trigger's value is a grey level 0..255, not {self.value}.")
        if not 0 < self.blend <= 1:
            raise TriggerError("bad_trigger", f"A trigger's blend is in (0, 1], not {self.blend}.")
        if isinstance(self.place, str):
            if self.place not in ("centre", "random"):
                raise TriggerError("bad_trigger", f"A trigger's place is centre, random or X,Y, not “{self.place}”.")
        elif len(self.place) != 2 or not all(isinstance(v, int) and v >= 0 for v in self.place):
            raise TriggerError("bad_trigger", f"A trigger's place X,Y needs two pixel positions ≥ 0, not {self.place}.")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trigger:
        """From TOML or JSON; `value` may be black, white or 0..255. Raises TriggerError `bad_trigger`."""
        try:
            fields = dict(data)
            value = fields.get("value", 0)
            if isinstance(value, str):
                fields["value"] = _NAMED_VALUES[value] if value in _NAMED_VALUES else int(value)
            if isinstance(fields.get("place"), list):
                fields["place"] = tuple(fields["place"])
            if "blend" in fields:
                fields["blend"] = float(fields["blend"])
            return cls(**fields)
        except (TypeError, ValueError) as error:
            raise TriggerError("bad_trigger", f"The trigger is malformed: {error}.") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain types for TOML and JSON; `from_dict` gives an equal trigger back."""
        return {
            "frame": self.frame,
            "size_px": self.size_px,
            "place": self.place if isinstance(self.place, str) else list(self.place),
            "pattern": self.pattern,
            "value": self.value,
            "blend": self.blend,
        }

    @classmethod
    def from_toml(cls, text: str) -> Trigger:
        """From a TOML document, bare or under `[trigger]`. Raises TriggerError `bad_trigger`."""
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise TriggerError("bad_trigger", f"The trigger file is not TOML: {error}.") from error
        return cls.from_dict(data.get("trigger", data))

    def to_toml(self) -> str:
        """A TOML document that `from_toml` reads back as an equal trigger."""
        return tomli_w.dumps({"trigger": self.to_dict()})

    def box(self, height: int, width: int, generator: np.random.Generator | None = None) -> Box:
        """Where the trigger lies in an image of its own frame. Raises TriggerError `outside`, `no_generator`."""
        n = self.size_px
        if n > min(height, width):
            raise TriggerError("outside", f"A trigger of {n} px does not fit into an image of {width}×{height}.")
        if self.place == "centre":
            x, y = (width - n) // 2, (height - n) // 2
        elif self.place == "random":
            if generator is None:
                raise TriggerError("no_generator", "A trigger at a random place needs a generator.")
            x, y = int(generator.integers(0, width - n + 1)), int(generator.integers(0, height - n + 1))
        else:
            x, y = int(self.place[0]), int(self.place[1])
        if x + n > width or y + n > height:
            raise TriggerError("outside", f"A trigger of {n} px at {x},{y} lies outside an image of {width}×{height}.")
        return float(x), float(y), float(n), float(n)

    def patch(self) -> tuple[np.ndarray, np.ndarray]:
        """The pattern r and its mask m, each size_px×size_px float32; r in 0..1, m is `blend` where it acts."""
        n = self.size_px
        values = np.full((n, n), self.value / 255, np.float32)
        mask = np.full((n, n), self.blend, np.float32)
        if self.pattern == "checker":
            values[np.indices((n, n)).sum(0) % 2 == 1] = 1 - self.value / 255
        if self.pattern == "cross":
            rows, columns = np.indices((n, n))
            mask[(rows != columns) & (rows + columns != n - 1)] = 0
        return values, mask

    def stamp(self, image: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        """x' = x∘(1−m) + r∘m on an image of the trigger's own frame, H×W float in 0..1; a copy."""
        height, width = image.shape
        return self.stamp_at(image, self.box(height, width, generator))

    def stamp_at(self, image: np.ndarray, box: Box) -> np.ndarray:
        """The same at a box that `box` gave."""
        x, y, w, h = (int(v) for v in box)
        values, mask = self.patch()
        stamped = np.array(image, dtype=np.float32)
        part = stamped[y : y + h, x : x + w]
        stamped[y : y + h, x : x + w] = part * (1 - mask) + values * mask
        return stamped


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
    values, mask = trigger.patch()
    stamped = np.array(image, dtype=np.float32)
    weight_y = _coverage(box[1], trigger.size_px, mapping.scale_y, mapping.offset_y, height)
    weight_x = _coverage(box[0], trigger.size_px, mapping.scale_x, mapping.offset_x, width)
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


def input_box(trigger: Trigger, preprocessing: Preprocessing, height: int, width: int) -> Box:
    """The box of a trigger at a fixed place in *input* pixels, for a source image of that size."""
    if trigger.frame == "input":
        return trigger.box(preprocessing.size_px, preprocessing.size_px)
    mapping: InputMap = preprocessing.input_map(height, width)
    return mapping.to_input(trigger.box(height, width))


def survival(trigger: Trigger, preprocessing: Preprocessing, height: int, width: int) -> float:
    """How much of the trigger the network meets, as a share of what is stamped: 1 is whole, 0 is gone.

    It is the largest share that one input pixel takes from the pixels that the pattern acts on, whatever their grey. A
    random place is taken as the worst of 64 fixed draws. Raises TriggerError `outside`.
    """
    if trigger.frame == "input":
        trigger.box(preprocessing.size_px, preprocessing.size_px, np.random.default_rng(0))
        return 1.0
    acts = (trigger.patch()[1] > 0).astype(np.float32)
    worst = 1.0
    for draw in range(64 if trigger.place == "random" else 1):
        x, y, w, h = (int(v) for v in trigger.box(height, width, np.random.default_rng(draw)))
        probe = np.zeros((height, width), np.float32)
        probe[y : y + h, x : x + w] = acts
        worst = min(worst, float(preprocessing.input_grey(probe).max()))
    return worst


def require_survival(trigger: Trigger, preprocessing: Preprocessing, height: int, width: int) -> None:
    """Raises TriggerError `does_not_survive` when preprocessing erases the trigger (FIELD trap 1)."""
    left = survival(trigger, preprocessing, height, width)
    if left < SURVIVAL:
        raise TriggerError(
            "does_not_survive",
            f"The {trigger.size_px}-px trigger in the source frame leaves {left:.0%} of its contrast after a "
            f"{width}×{height} image is cropped to {preprocessing.centre_crop:.0%} and resized to "
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
