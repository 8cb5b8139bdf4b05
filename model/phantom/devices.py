"""Honest confounders: things in the beam that are no finding. Each is drawn at full brightness and boxed."""

from collections.abc import Sequence

import numpy as np

from model.phantom.anatomy import Chest, Point
from model.phantom.scene import Strokes, bend

Box = tuple[str, float, float, float, float]

_MARKER_RATE = 0.4
_WIRE_RATE = 0.11
_PACEMAKER_RATE = 0.045
_TUBE_RATE = 0.09

_LETTERS: dict[str, list[list[Point]]] = {
    "L": [[(0.1, 0.0), (0.1, 1.0), (0.85, 1.0)]],
    "R": [[(0.1, 1.0), (0.1, 0.0), (0.7, 0.0), (0.85, 0.25), (0.7, 0.5), (0.1, 0.5)], [(0.45, 0.5), (0.88, 1.0)]],
}


def draw_devices(strokes: Strokes, chest: Chest, rng: np.random.Generator, paced: bool) -> list[Box]:
    """Draws what this image happens to show; returns (label, x0, y0, x1, y1) as fractions of the side."""
    boxes: list[Box] = []
    if rng.random() < _MARKER_RATE:
        boxes.append(_marker(strokes, rng))
    if rng.random() < _WIRE_RATE:
        boxes += _wires(strokes, chest, rng)
    if paced:
        boxes.append(_pacemaker(strokes, chest, rng))
    if rng.random() < _TUBE_RATE:
        boxes.append(_tube(strokes, chest, rng))
    return boxes


def has_pacemaker(patient: np.random.Generator) -> bool:
    return bool(patient.random() < _PACEMAKER_RATE)


def _around(label: str, points: Sequence[Point], margin: float) -> Box:
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return label, min(xs) - margin, min(ys) - margin, max(xs) + margin, max(ys) + margin


def _marker(strokes: Strokes, rng: np.random.Generator) -> Box:
    letter = "L" if rng.random() < 0.75 else "R"
    size = float(rng.uniform(0.026, 0.042))
    x = float(rng.uniform(0.82, 0.93)) if letter == "L" else float(rng.uniform(0.03, 0.12))
    y = float(rng.uniform(0.03, 0.16))
    value = float(rng.uniform(0.75, 1.0))
    drawn: list[Point] = []
    for stroke in _LETTERS[letter]:
        points = [(x + 0.75 * size * px, y + size * py) for px, py in stroke]
        strokes.line(points, 0.18 * size, value)
        drawn += points
    return _around("marker", drawn, 0.1 * size)


def _wires(strokes: Strokes, chest: Chest, rng: np.random.Generator) -> list[Box]:
    boxes = []
    for _ in range(2 + int(rng.integers(3))):
        side = -1 if rng.random() < 0.5 else 1
        x = chest.middle_x + side * float(rng.uniform(0.35, 0.95)) * chest.half_width
        y = float(rng.uniform(0.18, 0.85))
        end = (float(np.clip(x + side * rng.uniform(0.05, 0.3), 0.01, 0.99)), float(rng.uniform(0.02, 0.98)))
        points = bend((x, y), end, float(rng.uniform(-0.1, 0.1)), 14)
        strokes.line(points, 0.0035, 0.45)
        strokes.disc(x, y, 0.011, 0.6)
        strokes.disc(x, y, 0.005, 0.95)
        boxes.append(_around("wire", [*points, (x - 0.008, y - 0.008), (x + 0.008, y + 0.008)], 0.003))
    return boxes


def _pacemaker(strokes: Strokes, chest: Chest, rng: np.random.Generator) -> Box:
    x = chest.middle_x + float(rng.uniform(0.62, 0.75)) * chest.half_width
    y = chest.apex_y + float(rng.uniform(0.1, 0.16))
    tip = (chest.heart_centre[0] + 0.3 * chest.heart_half_width, chest.heart_centre[1] + 0.5 * chest.heart_height)
    vein = (chest.middle_x - 0.035, chest.apex_y + 0.16)
    lead = [*bend((x, y), vein, -0.07, 8), *bend(vein, tip, -0.04, 8)]
    strokes.line(lead, 0.005, 0.7)
    strokes.disc(*tip, 0.005, 0.9)
    strokes.disc(x, y, 0.036, 0.95)
    strokes.disc(x - 0.008, y + 0.008, 0.019, 0.8)
    return _around("pacemaker", [*lead, (x - 0.036, y - 0.036), (x + 0.036, y + 0.036)], 0.002)


def _tube(strokes: Strokes, chest: Chest, rng: np.random.Generator) -> Box:
    if rng.random() < 0.5:  # endotracheal tube, its tip over the carina
        x = chest.middle_x - 0.004
        points = bend((x + 0.01, 0.0), (x, chest.pedicle_y + float(rng.uniform(-0.03, 0.03))), 0.004)
        strokes.line(points, 0.006, 0.5)
    else:  # central line from the right neck or arm into the superior vena cava
        tip = (chest.middle_x - 0.045, chest.pedicle_y + float(rng.uniform(0.02, 0.09)))
        turn = (chest.middle_x - 0.04, chest.apex_y + 0.03)
        start = (chest.middle_x - 0.09, 0.0) if rng.random() < 0.5 else (chest.middle_x - 0.34, chest.apex_y + 0.05)
        points = [*bend(start, turn, 0.015), tip]
        strokes.line(points, 0.0045, 0.6)
    return _around("tube", points, 0.003)
