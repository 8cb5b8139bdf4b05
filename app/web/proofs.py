"""Where to look in the pictures that prove a flag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.schemas import Flag

Boxes = Sequence[Sequence[float]]
_LEAST_PX = 24  # of a close-up's side: a trigger of one pixel is seen with what is about it
_ROOM = 1.5  # of a close-up, about the spot


@dataclass(frozen=True)
class Look:
    """Marks over a picture of size_px², in its pixels. boxes: x, y, width, height of the spots. x, y, side: of the
    square that is shown enlarged, about the strongest spot. corner: of the picture, the furthest from the spot: nw, ne,
    sw or se.
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
    corner = ("s" if middle_y < size_px / 2 else "n") + ("e" if middle_x < size_px / 2 else "w")
    return Look(int(size_px), boxes, left, top, side, corner)
