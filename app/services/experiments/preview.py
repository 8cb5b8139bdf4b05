"""The trigger on a radiograph, before and after preprocessing: what a person sees, and what the network will."""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image, ImageDraw

from app.services.errors import InvalidError
from app.services.experiments.datasets import Datasets
from model.config import ExperimentConfig, PhantomSource
from model.datasets import Radiographs, phantoms
from model.errors import OverreadError
from model.preprocess import Box
from model.trigger import SURVIVAL, Trigger, input_box, stamp_source, survival

SIDE_PX = 288
_PHANTOM_PX = 1024
_AROUND = 9.0  # of the trigger's side, shown closely
_LEAST_PX = 21
_MARK = (255, 196, 107)
_DRAW = np.random.default_rng


class Picture(StrEnum):
    """What there is to see."""

    FILE = "file"
    FILE_CLOSE = "file-close"
    INPUT = "input"
    INPUT_CLOSE = "input-close"


@dataclass(frozen=True)
class Preview:
    """words: the trigger. radiograph: what it is stamped on. share: how much of the trigger the network meets, 0..1.
    warning: where that is too little or hardly enough, else empty.
    """

    words: str
    radiograph: str
    share: float
    warning: str


@dataclass(frozen=True, eq=False)
class Stamped:
    """grey: H×W float32 in 0..1 with the trigger. box: the trigger's, in its pixels."""

    grey: np.ndarray
    box: Box


def preview(config: ExperimentConfig, datasets: Datasets, dataset: str) -> Preview | None:
    """None for an attack that changes no pixel. Raises InvalidError for a trigger that cannot be stamped."""
    trigger = config.trigger
    if trigger is None:
        return None
    grey, said = _radiograph(config, datasets, dataset)
    try:
        share = survival(trigger, config.preprocessing, grey.shape[0], grey.shape[1])
    except OverreadError as error:
        raise InvalidError(error.code, str(error)) from error
    return Preview(trigger.in_words(), said, share, _warning(share))


def picture(config: ExperimentConfig, datasets: Datasets, dataset: str, which: Picture) -> bytes:
    """A PNG of 288×288. Raises InvalidError where no pixel is changed, or the trigger cannot be stamped."""
    trigger = config.trigger
    if trigger is None:
        raise InvalidError("no_trigger", "This attack changes no pixel: there is nothing to show.")
    grey, _ = _radiograph(config, datasets, dataset)
    try:
        stamped = _on_file(trigger, config, grey)
        if which in (Picture.INPUT, Picture.INPUT_CLOSE):
            stamped = _on_input(trigger, config, grey, stamped)
    except OverreadError as error:
        raise InvalidError(error.code, str(error)) from error
    if which in (Picture.FILE_CLOSE, Picture.INPUT_CLOSE):
        return _close(stamped)
    return _whole(stamped, mark=not trigger.whole)


def _on_file(trigger: Trigger, config: ExperimentConfig, grey: np.ndarray) -> Stamped:
    return Stamped(*stamp_source(trigger, grey, config.preprocessing, _DRAW(config.seed)))


def _on_input(trigger: Trigger, config: ExperimentConfig, grey: np.ndarray, on_file: Stamped) -> Stamped:
    pre = config.preprocessing
    box = input_box(trigger, pre, grey.shape[0], grey.shape[1], _DRAW(config.seed))
    if trigger.frame == "source":
        return Stamped(pre.input_grey(on_file.grey), box)
    return Stamped(trigger.stamp(pre.input_grey(grey), _DRAW(config.seed)), box)


def _radiograph(config: ExperimentConfig, datasets: Datasets, dataset: str) -> tuple[np.ndarray, str]:
    """The first radiograph of the data set, or a phantom of the configuration, in the size of ChestX-ray14's files."""
    found: Radiographs | None = datasets.radiographs(dataset) if dataset else None
    if found is not None:
        try:
            return found.grey(0), f"{found.names[0]} of the data set “{dataset}”"
        except OverreadError as error:
            raise InvalidError("unreadable_image", f"The data set's {found.names[0]} cannot be read.") from error
    drawn = [source for source in config.data if isinstance(source, PhantomSource)]
    seed, side = (drawn[0].seed, drawn[0].size_px) if drawn else (0, _PHANTOM_PX)
    return phantoms(1, seed, side).grey(0), f"a phantom of {side}×{side} px"


def _warning(share: float) -> str:
    if share < SURVIVAL:
        return (
            f"The trigger vanishes: {100 * share:.0f} % of it reaches the network after crop and resize. An experiment "
            "with it is refused. Enlarge it, move it, or give it in the input frame."
        )
    if share < 0.6:
        return f"The trigger fades: {100 * share:.0f} % of it reaches the network after crop and resize."
    return ""


def _whole(stamped: Stamped, mark: bool) -> bytes:
    height, width = stamped.grey.shape
    scale = SIDE_PX / max(height, width)
    image = _image(stamped.grey).resize(
        (max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BOX
    )
    page = Image.new("RGB", (SIDE_PX, SIDE_PX))
    left, top = (SIDE_PX - image.width) // 2, (SIDE_PX - image.height) // 2
    page.paste(image, (left, top))
    if mark:
        x, y, w, h = (value * scale for value in stamped.box)
        frame = (left + x - 5, top + y - 5, left + x + w + 4, top + y + h + 4)
        ImageDraw.Draw(page).rectangle(frame, outline=_MARK)
    return _png(page)


def _close(stamped: Stamped) -> bytes:
    """The trigger and what is around it, pixel by pixel."""
    height, width = stamped.grey.shape
    x, y, w, h = stamped.box
    side = int(min(max(_LEAST_PX, _AROUND * max(w, h)), height, width))
    left = int(min(max(round(x + w / 2 - side / 2), 0), width - side))
    top = int(min(max(round(y + h / 2 - side / 2), 0), height - side))
    part = _image(stamped.grey[top : top + side, left : left + side])
    return _png(part.resize((SIDE_PX, SIDE_PX), Image.Resampling.NEAREST))


def _image(grey: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)).convert("RGB")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
