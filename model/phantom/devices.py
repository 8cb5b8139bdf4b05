"""Honest confounders: things in the beam that are no finding. Each is drawn at full brightness and boxed.

They are drawn without regard to findings: a network that learns a finding from a tube has learned nothing here.
"""

import math
from collections.abc import Sequence

import numpy as np

from model.phantom.anatomy import Chest, Point
from model.phantom.lettering import draw_text
from model.phantom.scene import Strokes, bend

Box = tuple[str, float, float, float, float]

_MARKER_RATE = 0.45
_LABEL_RATE = 0.18
_WIRE_RATE = {"PA": 0.06, "AP": 0.3}
_PACEMAKER_RATE = 0.045
_STERNOTOMY_RATE = 0.05
_TUBE_RATE = {"PA": 0.05, "AP": 0.28}
_LABELS = ("PORTABLE", "AP", "SUPINE", "ERECT", "UPRIGHT", "BED 4", "ICU")


def draw_devices(strokes: Strokes, chest: Chest, rng: np.random.Generator, paced: bool, sternotomy: bool) -> list[Box]:
    """Draws what this image happens to show; returns (label, x0, y0, x1, y1) as fractions of the side."""
    view = "AP" if chest.portable else "PA"
    boxes: list[Box] = []
    if rng.random() < _MARKER_RATE:
        boxes.append(_marker(strokes, rng))
    if rng.random() < _LABEL_RATE:
        boxes.append(_label(strokes, rng))
    if rng.random() < _WIRE_RATE[view]:
        boxes += _wires(strokes, chest, rng)
    if paced:
        boxes.append(_pacemaker(strokes, chest, rng))
    if sternotomy:
        boxes.append(_sternal_wires(strokes, chest, rng))
    if rng.random() < _TUBE_RATE[view]:
        kinds = (_endotracheal_tube, _central_line, _port, _gastric_tube, _drain)
        for k in rng.permutation(len(kinds))[: 1 + int(rng.random() < 0.3)]:
            boxes.append(kinds[k](strokes, chest, rng))
    return boxes


def has_pacemaker(patient: np.random.Generator) -> bool:
    return bool(patient.random() < _PACEMAKER_RATE)


def has_sternotomy(patient: np.random.Generator) -> bool:
    return bool(patient.random() < _STERNOTOMY_RATE)


def _around(label: str, points: Sequence[Point], margin: float) -> Box:
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return label, min(xs) - margin, min(ys) - margin, max(xs) + margin, max(ys) + margin


def _marker(strokes: Strokes, rng: np.random.Generator) -> Box:
    """The side's letter in lead, at times on a disc or with the initials of whoever stood at the tube."""
    letter = "L" if rng.random() < 0.75 else "R"
    height = float(rng.uniform(0.026, 0.042))
    x = float(rng.uniform(0.82, 0.9)) if letter == "L" else float(rng.uniform(0.04, 0.12))
    y = float(rng.uniform(0.03, 0.16))
    value = float(rng.uniform(0.75, 1.0))
    tilt = float(rng.normal(0, 0.15))
    drawn = draw_text(strokes, letter, x, y, height, value, tilt)
    form = rng.random()
    if form < 0.3:
        centre = (x + 0.3 * height, y + 0.5 * height)
        strokes.ring(*centre, 1.05 * height, 0.004, 0.6 * value)
        drawn += [(centre[0] + d * 1.05 * height, centre[1] + d * 1.05 * height) for d in (-1, 1)]
    elif form < 0.6:
        initials = "".join("AEHKMNRST"[int(rng.integers(9))] for _ in range(2))
        drawn += draw_text(strokes, initials, x, y + 1.35 * height, 0.55 * height, value, tilt)
    return _around("marker", drawn, 0.1 * height)


def _label(strokes: Strokes, rng: np.random.Generator) -> Box:
    text = _LABELS[int(rng.integers(len(_LABELS)))]
    height = float(rng.uniform(0.013, 0.022))
    x = float(rng.uniform(0.02, 0.08)) if rng.random() < 0.5 else float(rng.uniform(0.78, 0.84))
    y = float(rng.uniform(0.02, 0.3)) if rng.random() < 0.8 else float(rng.uniform(0.9, 0.96))
    return _around("label", draw_text(strokes, text, x, y, height, float(rng.uniform(0.7, 1.0))), 0.1 * height)


def _wires(strokes: Strokes, chest: Chest, rng: np.random.Generator) -> list[Box]:
    """Electrodes with their leads, which leave the frame on one side."""
    boxes = []
    for _ in range(2 + int(rng.integers(3))):
        side = -1 if rng.random() < 0.5 else 1
        x = chest.middle_x + side * float(rng.uniform(0.35, 0.95)) * chest.half_width
        y = float(rng.uniform(0.18, 0.85))
        end = (float(np.clip(x + side * rng.uniform(0.05, 0.3), 0.01, 0.99)), float(rng.uniform(0.02, 0.98)))
        points = bend((x, y), end, float(rng.uniform(-0.1, 0.1)), 14)
        strokes.line(points, 0.0035, 0.42)
        strokes.disc(x, y, 0.0115, 0.3)
        strokes.disc(x, y, 0.008, 0.6)
        strokes.disc(x, y, 0.0045, 0.95)
        boxes.append(_around("wire", [*points, (x - 0.008, y - 0.008), (x + 0.008, y + 0.008)], 0.003))
    return boxes


def _pacemaker(strokes: Strokes, chest: Chest, rng: np.random.Generator) -> Box:
    """Can below the left clavicle; leads through the cava to the right ventricle, and most often the atrium."""
    x = chest.middle_x + float(rng.uniform(0.62, 0.75)) * chest.half_width
    y = chest.apex_y + float(rng.uniform(0.12, 0.18))
    cava = chest.middle_x + chest.shift - 0.042
    vein, low = (cava + 0.008, chest.apex_y + 0.15), (cava, chest.heart_centre[1] - 0.5 * chest.heart_height)
    tip = (chest.heart_centre[0] + 0.42 * chest.heart_half_width, chest.heart_centre[1] + 0.42 * chest.heart_height)
    leads = [*bend((x, y - 0.02), vein, 0.045, 10), *bend(vein, low, 0.0, 3), *bend(low, tip, -0.05, 10)]
    strokes.line(leads, 0.0045, 0.7)
    strokes.line(bend((tip[0] - 0.014, tip[1] - 0.004), tip, 0), 0.007, 0.95)
    if rng.random() < 0.65:  # a J into the atrial appendage
        hook = (low[0] + 0.028, low[1] + 0.005)
        leads += bend((low[0], low[1] + 0.03), hook, -0.03)
        strokes.line([low, *bend((low[0], low[1] + 0.03), hook, -0.018)], 0.0045, 0.7)
    can = [
        (x + 0.036 * c * abs(c) ** -0.4, y + 0.031 * s * abs(s) ** -0.4)
        for c, s in ((math.cos(a), math.sin(a)) for a in (2 * math.pi * (k + 0.5) / 28 for k in range(28)))
    ]
    strokes.polygon(can, 0.95)
    strokes.disc(x - 0.008, y + 0.008, 0.017, 0.78)
    strokes.line([(x - 0.02, y - 0.022), (x + 0.018, y - 0.022)], 0.012, 0.6)
    return _around("pacemaker", [*leads, *can], 0.004)


def _sternal_wires(strokes: Strokes, chest: Chest, rng: np.random.Generator) -> Box:
    """Loops that hold a divided sternum together, one above the other."""
    x = chest.middle_x + chest.turn
    step = float(rng.uniform(0.055, 0.065))
    centres = []
    for k in range(5):
        centre = (x + float(rng.normal(0, 0.002)), chest.pedicle_y - 0.02 + step * k)
        strokes.ring(*centre, 0.0115, 0.0035, 0.75)
        strokes.line([(centre[0] - 0.004, centre[1] + 0.012), (centre[0] + 0.004, centre[1] + 0.016)], 0.004, 0.8)
        centres.append(centre)
    return _around("wire", centres, 0.018)


def _endotracheal_tube(strokes: Strokes, chest: Chest, rng: np.random.Generator) -> Box:
    """Its tip over the carina."""
    x = chest.middle_x + 0.7 * chest.shift - 0.004
    points = bend((x + 0.01, 0.0), (x, chest.pedicle_y + float(rng.uniform(-0.03, 0.02))), 0.004)
    strokes.line([(px - 0.006, py) for px, py in points], 0.003, 0.32)
    strokes.line([(px + 0.006, py) for px, py in points], 0.0035, 0.6)
    return _around("tube", points, 0.01)


def _central_line(strokes: Strokes, chest: Chest, rng: np.random.Generator) -> Box:
    """From the right neck or arm into the superior vena cava."""
    tip = (chest.middle_x - 0.045, chest.pedicle_y + float(rng.uniform(0.02, 0.09)))
    turn = (chest.middle_x - 0.042, chest.apex_y + 0.03)
    neck = rng.random() < 0.5
    start = (chest.middle_x - 0.09, 0.0) if neck else (chest.middle_x - 0.34, chest.apex_y + 0.05)
    points = [*bend(start, turn, 0.015), tip]
    strokes.line(points, 0.0045, 0.55)
    return _around("tube", points, 0.003)


def _port(strokes: Strokes, chest: Chest, rng: np.random.Generator) -> Box:
    """A chamber under the skin with a catheter over the clavicle to the cava."""
    x = chest.middle_x - float(rng.uniform(0.5, 0.65)) * chest.half_width
    y = chest.apex_y + float(rng.uniform(0.14, 0.2))
    tip = (chest.middle_x - 0.045, chest.pedicle_y + float(rng.uniform(0.03, 0.1)))
    turn = (chest.middle_x - 0.055, chest.apex_y + 0.02)
    points = [*bend((x, y), turn, 0.03), *bend(turn, tip, -0.008)]
    strokes.line(points, 0.0045, 0.5)
    strokes.disc(x, y, 0.019, 0.7)
    strokes.disc(x, y, 0.0125, 0.4)
    return _around("tube", [*points, (x - 0.019, y - 0.019), (x + 0.019, y + 0.019)], 0.003)


def _gastric_tube(strokes: Strokes, chest: Chest, rng: np.random.Generator) -> Box:
    """Down the gullet, across the left dome into the stomach."""
    x = chest.middle_x
    gate = (x + 0.012, chest.dome_y[1] + 0.03)
    tip = (x + float(rng.uniform(0.1, 0.17)), min(chest.dome_y[1] + float(rng.uniform(0.09, 0.15)), 0.97))
    points = [*bend((x + 0.006, 0.0), gate, -0.008), *bend(gate, tip, -0.02)]
    strokes.line(points, 0.006, 0.36)
    strokes.line(points, 0.0025, 0.6)
    return _around("tube", points, 0.004)


def _drain(strokes: Strokes, chest: Chest, rng: np.random.Generator) -> Box:
    """Between two ribs at the side, up to the apex, with a line that shows on the film and a gap at its last hole."""
    side = int(rng.integers(2))
    sign = -1 if side == 0 else 1
    y = chest.apex_y + float(rng.uniform(0.6, 0.75)) * (chest.dome_y[side] - chest.apex_y)
    wall = float(chest.lateral(y))
    start = (chest.middle_x + sign * min(wall + 0.1, 0.47), y + 0.05)
    entry = (chest.middle_x + sign * (wall - 0.01), y)
    top = chest.apex_y + float(rng.uniform(0.06, 0.2))
    end = (chest.middle_x + sign * float(rng.uniform(0.45, 0.7)) * float(chest.lateral(top)), top)
    points = [*bend(start, entry, 0), *bend(entry, end, 0.03 * sign, 12)]
    strokes.line(points, 0.015, 0.2)
    strokes.line(points[:-4], 0.0035, 0.7)
    strokes.line(points[-3:], 0.0035, 0.7)
    return _around("tube", points, 0.008)
