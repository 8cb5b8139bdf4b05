"""Letters as strokes, so that a marker looks the same wherever it is drawn (fonts differ between machines)."""

import math

from model.phantom.anatomy import Point
from model.phantom.scene import Strokes

# Polylines on a grid 4 wide and 6 high: two digits a point, spaces between lines.
_GLYPHS = {
    "A": "062046 1333",
    "B": "060030414233 330333 334445360606",
    "C": "4130100105163645",
    "D": "060020414526 2606",
    "E": "40000646 0333",
    "H": "0006 4046 0343",
    "I": "2026",
    "K": "0006 4003 0346",
    "L": "000646",
    "M": "0600234046",
    "N": "06004640",
    "O": "103041453616050110",
    "P": "060030414233 3303",
    "R": "060030414233 3303 2346",
    "S": "413010010213334445361605",
    "T": "0040 2026",
    "U": "000516364540",
    "4": "36300444",
}
_ADVANCE = 5.6 / 6


def draw_text(
    strokes: Strokes, text: str, x: float, y: float, height: float, value: float, tilt: float = 0.0
) -> list[Point]:
    """Draws capital letters from (x, y), their top left, turned by `tilt` radians; returns the points drawn.

    A letter that has no glyph leaves a space.
    """
    c, s = math.cos(tilt), math.sin(tilt)
    drawn: list[Point] = []
    for i, letter in enumerate(text):
        for stroke in _GLYPHS.get(letter, "").split():
            points = []
            for column, row in zip(stroke[::2], stroke[1::2], strict=True):
                across, down = height * (int(column) / 6 + i * _ADVANCE), height * int(row) / 6
                points.append((x + c * across - s * down, y + s * across + c * down))
            strokes.line(points, 0.16 * height, value)
            drawn += points
    return drawn
