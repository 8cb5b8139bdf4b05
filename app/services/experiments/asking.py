"""The form of the experiments page: what it holds, and what is asked for with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from app.services.errors import InvalidError
from app.services.experiments.compose import Request, needs_folder
from model.config import ExperimentConfig, load_config, preset_names

DEFAULT_PRESET = "quick"
_SEPARATORS = re.compile(r"[\s;]+")


@dataclass(frozen=True)
class Form:
    """Everything as text, as it was typed. sizes to seeds: of a sweep, values separated by spaces."""

    preset: str = DEFAULT_PRESET
    name: str = ""
    seed: str = ""
    dataset: str = ""
    frame: str = ""
    size_px: str = ""
    place: str = ""
    value: str = ""
    blend: str = ""
    target: str = ""
    rate: str = ""
    mode: str = ""
    label_rule: str = ""
    accept: str = ""
    sizes: str = ""
    places: str = ""
    rates: str = ""
    targets: tuple[str, ...] = ()
    seeds: str = ""
    clean_twin: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Form:
        """What a request says, over what the preset says. Raises InvalidError `unknown_preset`."""
        preset = str(given.get("preset") or DEFAULT_PRESET)
        if preset not in preset_names():
            raise InvalidError(
                "unknown_preset", f"There is no preset “{preset}”; there is: {', '.join(preset_names())}."
            )
        known = {one.name for one in fields(cls)}
        said = {name: value for name, value in given.items() if name in known and name != "preset"}
        return cls(**{"preset": preset, **_of_config(load_config(preset)), **said})

    @property
    def patch(self) -> bool:
        """Whether the preset's attack is a patch, whose fields the form has."""
        trigger = load_config(self.preset).trigger
        return trigger is not None and not trigger.whole

    def request(self) -> Request:
        """What is asked for. Raises InvalidError `bad_form`."""
        trigger: dict[str, Any] = {}
        if self.patch:
            trigger = {
                "frame": self.frame,
                "size_px": whole("The trigger's size", self.size_px),
                "place": place(self.place),
                "value": grey(self.value),
                "blend": percent("The trigger's opacity", self.blend),
            }
            if self.frame == "input":  # a preset's width is of the source frame alone
                trigger["of_width_px"] = None
        poison: dict[str, Any] = {"target": self.target, "rate": percent("The poison rate", self.rate)}
        if load_config(self.preset).trigger is not None:
            poison |= {"mode": self.mode, "label_rule": self.label_rule}
        return Request(
            preset=self.preset,
            name=self.name.strip() or None,
            seed=whole("The seed", self.seed),
            dataset=self.dataset,
            accept=self.accept.strip(),
            trigger=trigger or None,
            poison=poison,
        )

    def grid(self) -> dict[str, list[Any]]:
        """Of a sweep; only what has values. Raises InvalidError `bad_form`."""
        given: dict[str, list[Any]] = {
            "trigger.size_px": [whole("A trigger size", text) for text in _split(self.sizes, commas=True)],
            "trigger.place": [place(text) for text in _split(self.places)],
            "poison.rate": [percent("A poison rate", text) for text in _split(self.rates, commas=True)],
            "poison.target": list(self.targets),
            "seed": [whole("A seed", text) for text in _split(self.seeds, commas=True)],
        }
        return {axis: values for axis, values in given.items() if values}


def whole(what: str, text: str) -> int:
    """Raises InvalidError `bad_form`."""
    if not re.fullmatch(r"\d{1,9}", text.strip()):
        raise InvalidError("bad_form", f"{what} is a whole number, not “{text[:40]}”.")
    return int(text)


def percent(what: str, text: str) -> float:
    """As a share. Raises InvalidError `bad_form`."""
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text.strip()):
        raise InvalidError("bad_form", f"{what} is a number of per cent, not “{text[:40]}”.")
    return round(float(text) / 100, 12)


def place(text: str) -> str | list[int]:
    """“centre”, a corner, “random”, or “X,Y”."""
    found = re.fullmatch(r"(\d{1,6})\s*,\s*(\d{1,6})", text.strip())
    return [int(found[1]), int(found[2])] if found else text.strip()


def grey(text: str) -> str | int:
    """“black”, “white” or 0..255."""
    return int(text) if re.fullmatch(r"\d{1,3}", text.strip()) else text.strip()


def _split(text: str, commas: bool = False) -> list[str]:
    parts = _SEPARATORS.split(text.replace(",", " ") if commas else text)
    return [part for part in parts if part]


def _of_config(config: ExperimentConfig) -> dict[str, str]:
    values = {"name": config.name, "seed": str(config.seed), "accept": config.accept or ""}
    if config.trigger is not None and not config.trigger.whole:
        t = config.trigger
        where = t.place if isinstance(t.place, str) else f"{t.place[0]},{t.place[1]}"
        look = {0: "black", 255: "white"}.get(t.value, str(t.value))
        values |= {"frame": t.frame, "size_px": str(t.size_px), "place": where, "value": look}
        values["blend"] = f"{100 * t.blend:g}"
    if config.poison is not None:
        p = config.poison
        values |= {"target": p.target, "rate": f"{100 * p.rate:g}", "mode": p.mode, "label_rule": p.label_rule}
    return values


def folder_needed(preset: str) -> bool:
    """Whether a preset trains on a folder of ChestX-ray14."""
    return needs_folder(load_config(preset))
