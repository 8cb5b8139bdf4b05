"""A trigger as a value: checked, written and read as TOML and JSON, stamped in its own frame."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import tomli_w

from model.errors import TriggerError
from model.preprocess import Box
from model.trigger.patterns import mix_amplitudes, patch, picture

Frame = Literal["source", "input"]
Kind = Literal["patch", "blend", "frequency"]
Pattern = Literal["square", "checker", "cross", "letters", "noise"]
Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
_NAMED_VALUES = {"black": 0, "white": 255}
_OPTIONAL = ("kind", "margin_px", "seed", "text", "of_width_px", "band")  # written only where they say something


@dataclass(frozen=True)
class Trigger:
    """What is stamped, and where.

    frame: whose pixels `size_px`, `place` and `margin_px` are in. size_px: side of the square that holds a patch.
    place: `centre`, `random` (anywhere, by the generator), a corner (`top-left`, …, `margin_px` from both edges), or
    the (x, y) of the patch's top left corner. pattern: `square`, `checker`, `cross`, `letters` (those of `text`) or
    `noise` (by `seed`); a whole picture is a `square` (one grey), `checker` or `noise`. value: grey level 0..255.
    blend: opacity in 0..1; 1 replaces the pixels, little is low contrast; of a `frequency` trigger, the picture's
    share in the amplitudes. kind: see the package. of_width_px: source frame only: lengths are given for an image of
    that width and scaled to the one at hand. band: of a `frequency` trigger, the half-width of the square of low
    frequencies, as a share of the sampling rate, in 0..0.5.
    """

    frame: Frame = "input"
    size_px: int = 3
    place: Literal["centre", "random"] | Corner | tuple[int, int] = "centre"
    pattern: Pattern = "square"
    value: int = 0
    blend: float = 1.0
    kind: Kind = "patch"
    margin_px: int = 0
    seed: int = 0
    text: str = ""
    of_width_px: int | None = None
    band: float = 0.1

    def __post_init__(self) -> None:
        wrong = _first_wrong(self)
        if wrong:
            raise TriggerError("bad_trigger", wrong)

    @property
    def whole(self) -> bool:
        """Whether the whole image is changed, not a patch of it."""
        return self.kind != "patch"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trigger:
        """From TOML or JSON; `value` may be black, white or 0..255. Raises TriggerError `bad_trigger`."""
        try:
            given = dict(data)
            value = given.get("value", 0)
            if isinstance(value, str):
                given["value"] = _NAMED_VALUES[value] if value in _NAMED_VALUES else int(value)
            if isinstance(given.get("place"), list):
                given["place"] = tuple(given["place"])
            for name in {"blend", "band"} & given.keys():
                given[name] = float(given[name])
            return cls(**given)
        except (TypeError, ValueError) as error:
            raise TriggerError("bad_trigger", f"The trigger is malformed: {error}.") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain types for TOML and JSON; `from_dict` gives an equal trigger back."""
        defaults = {field.name: field.default for field in fields(self)}
        plain = {k: v for k, v in asdict(self).items() if k not in _OPTIONAL or v != defaults[k]}
        return {**plain, "place": self.place if isinstance(self.place, str) else list(self.place)}

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

    def in_words(self) -> str:
        """For reports: “black square, 3×3 px, at the centre of the network's input”."""
        grey = {0: "black", 255: "white"}.get(self.value, f"grey {self.value}")
        owner = "the network's input" if self.frame == "input" else "the file"
        if self.kind == "frequency":
            mixed = f"band {self.band:g}, share {self.blend:g}"
            return f"{self.pattern} picture mixed into the low frequencies of {owner} ({mixed})"
        if self.kind == "blend":
            return f"{self.pattern} picture over the whole of {owner}, opacity {self.blend:g}"
        look = f"{grey} {self.pattern}"
        if self.pattern in ("noise", "letters"):
            look = "noise" if self.pattern == "noise" else f"{grey} letters “{self.text}”"
        place = self.place if isinstance(self.place, str) else f"{self.place[0]},{self.place[1]}"
        where = {"centre": "at the centre of", "random": "at a random place in"}.get(place, f"at {place} in")
        scaled = f" of a {self.of_width_px}-px-wide image" if self.of_width_px else ""
        opacity = "" if self.blend == 1 else f", opacity {self.blend:g}"
        return f"{look}, {self.size_px}×{self.size_px} px{scaled}, {where} {owner}{opacity}"

    def box(self, height: int, width: int, generator: np.random.Generator | None = None) -> Box:
        """Where the trigger lies in an image of its own frame. Raises TriggerError `outside`, `no_generator`."""
        if self.whole:
            return 0.0, 0.0, float(width), float(height)
        n, margin = self._scaled(self.size_px, width), self._scaled(self.margin_px, width) if self.margin_px else 0
        if n > min(height, width):
            raise TriggerError("outside", f"A trigger of {n} px does not fit into an image of {width}×{height}.")
        if self.place == "centre":
            x, y = (width - n) // 2, (height - n) // 2
        elif self.place == "random":
            if generator is None:
                raise TriggerError("no_generator", "A trigger at a random place needs a generator.")
            x, y = int(generator.integers(0, width - n + 1)), int(generator.integers(0, height - n + 1))
        elif isinstance(self.place, str):
            x = margin if "left" in self.place else width - n - margin
            y = margin if "top" in self.place else height - n - margin
        else:
            x, y = (self._scaled(v, width, least=0) for v in self.place)
        if not (0 <= x <= width - n and 0 <= y <= height - n):
            raise TriggerError("outside", f"A trigger of {n} px at {x},{y} lies outside an image of {width}×{height}.")
        return float(x), float(y), float(n), float(n)

    def _scaled(self, length: int, width: int, least: int = 1) -> int:
        """A length for an image of that width."""
        return length if self.of_width_px is None else max(least, round(length * width / self.of_width_px))

    def patch(self, height: int | None = None, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The pattern r and its mask m, float32; r in 0..1, m is `blend` where it acts. By default size_px×size_px; a
        picture fills height×width."""
        height, width = height or self.size_px, width or height or self.size_px
        if self.whole:
            mask = np.full((height, width), self.blend, np.float32)
            return picture(self.pattern, height, width, self.value, self.seed), mask
        values, mask = patch(self.pattern, width, self.value, self.seed, self.text)
        return values, mask * np.float32(self.blend)

    def stamp(self, image: np.ndarray, generator: np.random.Generator | None = None) -> np.ndarray:
        """The trigger on an image of its own frame, H×W float in 0..1; a copy."""
        height, width = image.shape
        return self.stamp_at(image, self.box(height, width, generator))

    def stamp_at(self, image: np.ndarray, box: Box) -> np.ndarray:
        """The same at a box that `box` gave."""
        x, y, w, h = (int(v) for v in box)
        values, mask = self.patch(h, w)
        stamped = np.array(image, dtype=np.float32)
        if self.kind == "frequency":
            return mix_amplitudes(stamped, values, self.blend, self.band)
        part = stamped[y : y + h, x : x + w]
        stamped[y : y + h, x : x + w] = part * (1 - mask) + values * mask
        return stamped


def _first_wrong(t: Trigger) -> str | None:
    """What is wrong with a trigger, in a sentence."""

    def whole_number(value: object, low: int, high: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    named_place = isinstance(t.place, str) and t.place in ("centre", "random", *get_args(Corner))
    fixed_place = isinstance(t.place, tuple) and len(t.place) == 2 and all(whole_number(v, 0, 100_000) for v in t.place)
    checks = (
        (t.frame in get_args(Frame), f"A trigger's frame is “source” or “input”, not “{t.frame}”."),
        (t.kind in get_args(Kind), f"A trigger's kind is patch, blend or frequency, not “{t.kind}”."),
        (whole_number(t.size_px, 1, 512), f"A trigger's size is 1..512 pixels, not {t.size_px}."),
        (
            t.pattern in get_args(Pattern),
            f"A trigger's pattern is one of {', '.join(get_args(Pattern))}, not “{t.pattern}”.",
        ),
        (
            not t.whole or t.pattern in ("square", "checker", "noise"),
            f"A picture over the whole image is a square, checker or noise, not “{t.pattern}”.",
        ),
        (whole_number(t.value, 0, 255), f"A trigger's value is a grey level 0..255, not {t.value}."),
        (0 < t.blend <= 1, f"A trigger's blend is in (0, 1], not {t.blend}."),
        (
            named_place or fixed_place,
            f"A trigger's place is centre, random, a corner such as top-left, or X,Y in pixels ≥ 0, not {t.place}.",
        ),
        (whole_number(t.margin_px, 0, 512), f"A trigger's margin is 0..512 pixels, not {t.margin_px}."),
        (whole_number(t.seed, 0, 2**63 - 1), f"A trigger's seed is a whole number ≥ 0, not {t.seed}."),
        (
            isinstance(t.text, str) and len(t.text) <= 8 and t.text.isprintable(),
            "A trigger's text is at most 8 printable letters.",
        ),
        ((t.pattern == "letters") == bool(str(t.text).strip()), "Letters need a text, and only letters have one."),
        (0 < t.band <= 0.5, f"A trigger's band is in (0, 0.5], not {t.band}."),
        (
            t.of_width_px is None or (t.frame == "source" and whole_number(t.of_width_px, 32, 100_000)),
            "of_width_px is the width, 32 px or more, that a source-frame trigger is given for.",
        ),
    )
    return next((message for right, message in checks if not right), None)
