"""Where to look in the pictures that prove a flag."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.schemas import Flag

Boxes = Sequence[Sequence[float]]
_LEAST_PX = 24  # of a close-up's side: a trigger of one pixel is seen with what is about it
_ROOM = 1.5  # of a close-up, about the spot
SHARE = 0.36  # of a picture's side, by a close-up's (proof.css)


@dataclass(frozen=True)
class Look:
    """Marks over a picture of size_px², in its pixels. boxes: x, y, width, height of the spots. x, y, side: of the
    square that is shown enlarged, about the strongest spot. corner: of the picture, the furthest from that spot of
    those where it hides none: nw, ne, sw or se; empty where there is none.
    """

    size_px: int
    boxes: Boxes
    x: float
    y: float
    side: float
    corner: str


def look_at(flag: Flag, kind: str, size_px: float) -> Look | None:
    """kind: of the picture; the radiograph's show what is erased, the donors' what they got. None without either."""
    details = flag.details or {}
    boxes: Boxes = details.get("regions_input_px" if kind in ("seen", "erased") else "patches_input_px") or ()
    if not boxes:
        return None
    x, y, width, height = boxes[0]
    middle_x, middle_y = x + width / 2, y + height / 2
    side = min(max(_LEAST_PX, _ROOM * max(width, height)), size_px)
    left, top = (min(max(middle - side / 2, 0), size_px - side) for middle in (middle_x, middle_y))
    corners = {"nw": (0, 0), "ne": (1, 0), "sw": (0, 1), "se": (1, 1)}

    def far(corner: str) -> float:
        to_x, to_y = corners[corner]
        return math.hypot(to_x * size_px - middle_x, to_y * size_px - middle_y)

    free = [one for one in corners if not any(_hides(corners[one], box, size_px) for box in boxes)]
    return Look(int(size_px), boxes, left, top, side, max(free, key=far, default=""))


def _hides(corner: tuple[int, int], box: Sequence[float], size_px: float) -> bool:
    """Whether what lies in that corner covers some of a box."""
    return all(
        start < size_px * SHARE if at == 0 else start + length > size_px * (1 - SHARE)
        for at, start, length in zip(corner, box[:2], box[2:], strict=True)
    )
