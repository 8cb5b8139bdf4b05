"""In the lung: infiltration, consolidation, pneumonia, edema, atelectasis, nodule, mass."""

import math

import numpy as np

from model.phantom.anatomy import Array
from model.phantom.lesion import Lesion, place
from model.phantom.scene import COARSE, Scene, bend, clouds, smooth

_F32 = np.float32


def infiltration(scene: Scene, lesion: Lesion) -> None:
    """Patches, ill defined and mottled, that vessels are still seen through."""
    field = np.zeros((COARSE, COARSE), dtype=_F32)
    for _ in range(3 + int(lesion.patient.integers(3))):
        x, y = place(scene, lesion, 0.3, 0.95, 0.15, 0.85)
        rx, ry = lesion.patient.uniform(0.035, 0.075), lesion.patient.uniform(0.035, 0.065)
        field = np.maximum(field, np.exp(-scene.blob(x, y, rx, ry)))
    mottle = np.clip(0.68 + 0.24 * clouds(lesion.image, 0.016) + 0.3 * clouds(lesion.image, 0.05), 0, 1.8)
    field = (field * mottle).astype(_F32)
    scene.haze += field * _F32(0.48 + 0.4 * lesion.severity)
    hx, hy = scene.chest.hilum(lesion.side)
    rows, cols = np.unravel_index(int(smooth(field, 0.02).argmax()), field.shape)
    x, y = (cols + 0.5) / COARSE, (rows + 0.5) / COARSE
    for _ in range(6):  # thickened bronchovascular strands run through it
        end = (x + float(lesion.patient.uniform(-0.07, 0.07)), y + float(lesion.patient.uniform(-0.06, 0.06)))
        start = (hx + 0.5 * (end[0] - hx), hy + 0.5 * (end[1] - hy))
        scene.strands.line(bend(start, end, 0.006), 0.005, 0.3 + 0.2 * lesion.severity)
    scene.box_of(lesion.name, smooth(field, 0.012) * (scene.coarse_lung() > 0.2))


def consolidation(scene: Scene, lesion: Lesion) -> None:
    """Dense, even and fluffy-edged: it hides the vessels, and the bronchi stay open in it."""
    chest = scene.chest
    x, y = place(scene, lesion, 0.35, 0.9, 0.3, 0.75)
    rx, ry = lesion.patient.uniform(0.09, 0.14), lesion.patient.uniform(0.08, 0.125)
    r = np.sqrt(scene.blob(x, y, rx, ry, lesion.patient.uniform(0, 3.14)))
    # No sphere: it fills what airspace it fills, and frays where filled and empty acini lie side by side.
    r = r + 0.2 * clouds(lesion.patient, 0.1) + 0.1 * clouds(lesion.patient, 0.035)
    field = np.clip((1.2 - r) / 0.6, 0, 1)
    field = (field * field * (3 - 2 * field)).astype(_F32)
    scene.haze += field * _F32(chest.air * (0.62 + 0.26 * lesion.severity))
    _bronchograms(scene, lesion, x, y, 0.8 * float(rx), 6)
    scene.box_of(lesion.name, field * (scene.coarse_lung() > 0.2))


def pneumonia(scene: Scene, lesion: Lesion) -> None:
    """One lobe, uneven, sharp only where a fissure bounds it."""
    chest, side = scene.chest, lesion.side
    span = chest.dome_y[side] - chest.apex_y
    fissure = chest.apex_y + 0.52 * span
    upper = bool(lesion.patient.random() < 0.45)
    y = fissure - 0.2 * span if upper else fissure + 0.24 * span
    x = scene.at(side, chest.half_width * (0.5 if upper else 0.6))
    field = np.exp(-(scene.blob(x, y, 0.14, 0.135) ** 1.4)).astype(_F32)
    slope = np.abs(scene.coarse_x - _F32(chest.middle_x)) * _F32(0.12)
    distance = (scene.coarse_y - _F32(fissure) - slope) * _F32(-1 if upper else 1)
    field *= np.clip(distance / _F32(0.02) + _F32(0.5), 0, 1)  # the lobe ends at its fissure
    grain = 0.85 + 0.24 * clouds(lesion.image, 0.06) + 0.12 * clouds(lesion.image, 0.025)
    field *= np.clip(grain, 0.25, 1.25).astype(_F32)
    scene.haze += field * _F32(0.7 + 0.37 * lesion.severity)
    _bronchograms(scene, lesion, x, y, 0.08, 5)
    scene.box_of(lesion.name, field * (scene.coarse_lung() > 0.2))


def _bronchograms(scene: Scene, lesion: Lesion, x: float, y: float, reach: float, count: int) -> None:
    """Bronchi that stay dark in airless lung, branching away from the hilum."""
    hx, hy = scene.chest.hilum(lesion.side)
    ahead = math.atan2(y - hy, x - hx)
    start = (x - 0.75 * reach * math.cos(ahead), y - 0.75 * reach * math.sin(ahead))
    for k in range(count):
        angle = ahead + (k - (count - 1) / 2) * 0.34 + float(lesion.patient.uniform(-0.2, 0.2))
        length = reach * float(lesion.patient.uniform(0.6, 1.7))
        end = (start[0] + length * math.cos(angle), start[1] + length * math.sin(angle))
        path = bend(start, end, float(lesion.patient.uniform(-0.008, 0.008)))
        scene.gaps.line(path[:5], 0.007, 0.6)
        scene.gaps.line(path[4:], 0.0045, 0.45)


def edema(scene: Scene, lesion: Lesion) -> None:
    """Bat's wings about the hila, upper-lobe vessels that widen, cuffed bronchi, septal lines, a thick fissure."""
    chest, s = scene.chest, lesion.severity
    grain = np.clip(0.92 + 0.2 * clouds(lesion.image, 0.03) + 0.12 * clouds(lesion.image, 0.07), 0.45, 1.45)
    for side in (0, 1):
        hx, y = chest.hilum(side)
        wing = np.exp(-(scene.blob(scene.at(side, 0.46 * chest.half_width), y + 0.035, 0.13, 0.165) ** 1.2))
        base = np.exp(-scene.blob(scene.at(side, 0.5 * chest.half_width), chest.dome_y[side], 0.22, 0.13))
        scene.haze += (wing * grain).astype(_F32) * _F32(0.44 + 0.5 * s) + base.astype(_F32) * _F32(0.22 * s)
        sign = -1 if side == 0 else 1
        for k in range(4):  # cephalisation
            top = (hx + sign * (0.02 + 0.035 * k), y - 0.17 + 0.022 * k)
            scene.strands.line(bend((hx, y - 0.02), top, -0.01 * sign), 0.008, 0.25 + 0.15 * s)
        for _ in range(3):
            cuff = hx + sign * float(lesion.image.uniform(0.02, 0.07)), y + float(lesion.image.uniform(-0.05, 0.06))
            scene.strands.ring(*cuff, 0.0085, 0.004, 0.6 + 0.2 * s)
        for k in range(8):  # Kerley B: short horizontal lines that touch the lateral wall
            line_y = chest.dome_y[side] + 0.04 - 0.016 * k + float(lesion.image.uniform(-0.003, 0.003))
            wall = float(chest.lateral(line_y)) - 0.006
            inner = wall - float(lesion.image.uniform(0.022, 0.045))
            ends = ((scene.at(side, inner), line_y), (scene.at(side, wall), line_y - 0.002))
            scene.strands.line(ends, 0.0028, 0.4 + 0.25 * s)
        scene.add_box(lesion.name, scene.at(side, 0.06), y - 0.15, scene.at(side, 0.84 * chest.half_width), y + 0.19)
    if s > 0.35:
        _, y = chest.hilum(0)
        ends = ((scene.at(0, 0.25 * chest.half_width), y + 0.015), (scene.at(0, 0.9 * chest.half_width), y + 0.03))
        scene.strands.line(bend(*ends, 0.006), 0.004, 0.6)
    scene.vessel_gain *= 1.05 + 0.1 * s


def atelectasis(scene: Scene, lesion: Lesion) -> None:
    """Plates over a raised diaphragm, or a lobe folded against the mediastinum."""
    if lesion.kind < 0.62:
        _plates(scene, lesion)
    else:
        _collapsed_lobe(scene, lesion, upper=lesion.kind > 0.82)


def _plates(scene: Scene, lesion: Lesion) -> None:
    chest, s, side = scene.chest, lesion.severity, lesion.side
    dome = chest.dome_y[side]
    y = dome - 0.03
    box = [1.0, 1.0, 0.0, 0.0]
    for _ in range(2 + int(lesion.patient.integers(3))):
        length = float(lesion.patient.uniform(0.1, 0.22))
        start = float(lesion.patient.uniform(0.12, 0.22)) if side == 0 else float(lesion.patient.uniform(0.18, 0.25))
        tilt = float(lesion.patient.uniform(-0.035, 0.06))
        end = min(start + length, float(chest.lateral(y)) - 0.01)
        width = 0.007 + 0.008 * float(lesion.image.random()) + 0.005 * s
        points = bend((scene.at(side, start), y - tilt), (scene.at(side, end), y), 0.008)
        scene.strands.line(points, width, 0.4 + 0.3 * s)
        scene.strands.line(points[1:-1], 0.6 * width, 0.55 + 0.4 * s)
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        box = [min(box[0], *xs), min(box[1], *ys), max(box[2], *xs), max(box[3], *ys)]
        y -= float(lesion.patient.uniform(0.026, 0.055))
    # Crowded, airless lung over the raised diaphragm.
    centre = scene.at(side, 0.45 * chest.half_width)
    scene.haze += _F32(0.25 + 0.35 * s) * np.exp(-scene.blob(centre, dome, 0.17, 0.05)).astype(_F32)
    scene.add_box(lesion.name, box[0] - 0.012, box[1] - 0.014, box[2] + 0.012, max(box[3] + 0.014, dome))


def _collapsed_lobe(scene: Scene, lesion: Lesion, *, upper: bool) -> None:
    """A wedge whose tip is at the hilum: up to the apex over a lifted fissure, or down behind the heart."""
    chest, s, side = scene.chest, lesion.severity, lesion.side
    hx, hy = chest.hilum(side)
    tip = abs(hx - chest.middle_x)
    out = np.abs(scene.coarse_x - _F32(chest.middle_x)) * ((scene.coarse_x > chest.middle_x) == (side == 1))
    if upper:
        reach = float(chest.lateral(hy - 0.12))
        rise = np.clip((out - 0.6 * tip) / (reach - 0.6 * tip), 0, 1)
        edge = hy + 0.005 - (0.1 + 0.09 * s) * rise**0.7
        inside = np.clip((edge - scene.coarse_y) / 0.014 + 0.5, 0, 1) * (out > 0)
        top, bottom, wide = chest.apex_y, hy + 0.01, reach
    else:
        foot = chest.dome_y[side] + 0.03
        down = np.clip((scene.coarse_y - (hy + 0.02)) / (foot - hy - 0.02), 0, 1)
        inner = chest.heart_half_width if side == 1 else 0.6 * chest.heart_half_width
        wide = max(0.75 * inner, tip) + 0.13 + 0.04 * s
        edge = tip + (wide - tip) * down**1.3
        inside = np.clip((edge - out) / 0.016 + 0.5, 0, 1) * (out > 0) * np.clip(down / 0.08, 0, 1)
        top, bottom = hy, foot
    scene.haze += inside.astype(_F32) * _F32(scene.chest.air * (0.5 + 0.3 * s))
    scene.add_box(lesion.name, scene.at(side, 0.3 * tip), top, scene.at(side, wide + 0.012), bottom)


def mass(scene: Scene, lesion: Lesion) -> None:
    """Over 3 cm: lobed or spiculated, a few with a cavity."""
    radius = float(lesion.patient.uniform(0.045, 0.068)) + 0.018 * lesion.severity
    x, y = place(scene, lesion, 0.2, 0.85, 0.2, 0.75)
    _round_opacity(scene, lesion, radius, x, y, 0.72 + 0.4 * lesion.severity, 0.06)
    if lesion.kind < 0.15:
        hole = np.exp(-(scene.blob(x, y - 0.1 * radius, 0.5 * radius, 0.45 * radius) ** 2))
        scene.haze -= hole.astype(_F32) * _F32(0.6)
    elif lesion.kind < 0.6:
        for k in range(16):
            angle = 2 * math.pi * k / 16 + float(lesion.patient.uniform(-0.15, 0.15))
            far = radius * float(lesion.patient.uniform(1.15, 1.5))
            c, d = math.cos(angle), math.sin(angle)
            near = 0.85 * radius
            scene.strands.line([(x + near * c, y + near * d), (x + far * c, y + far * d)], 0.0035, 0.4)
    scene.add_box(lesion.name, x - radius, y - radius, x + radius, y + radius)


def nodule(scene: Scene, lesion: Lesion) -> None:
    """At most 3 cm, round; small calcified ones are the brightest."""
    for _ in range(1 + int(lesion.patient.integers(3))):
        radius = float(lesion.patient.uniform(0.017, 0.028)) + 0.005 * lesion.severity
        x, y = place(scene, lesion, 0.12, 0.88, 0.2, 0.85)
        old_scar = bool(lesion.patient.random() < 0.15)
        density = 1.4 if old_scar else 0.62 + 0.42 * lesion.severity
        _round_opacity(scene, lesion, 0.8 * radius if old_scar else radius, x, y, density, 0.03)
        scene.add_box(lesion.name, x - radius, y - radius, x + radius, y + radius)


def _round_opacity(
    scene: Scene, lesion: Lesion, radius: float, x: float, y: float, density: float, lobed: float
) -> None:
    angle = float(lesion.patient.uniform(0, 3.14))
    size = scene.size_px
    columns = slice(max(0, int((x - 1.6 * radius) * size)), int((x + 1.6 * radius) * size) + 2)
    rows = slice(max(0, int((y - 1.6 * radius) * size)), int((y + 1.6 * radius) * size) + 2)
    dx, dy = scene.x[:, columns] - _F32(x), scene.y[rows] - _F32(y)
    theta = np.arctan2(dy, dx)
    lobes = 1 + lobed * (np.cos(2 * (theta - angle)) + np.cos(3 * theta + angle) + 0.7 * np.cos(5 * theta - angle))
    r = np.sqrt(dx * dx + dy * dy) / (radius * lobes)
    # The beam's path through a ball, with a rim that is not quite sharp.
    body: Array = np.sqrt(np.clip(1 - r**2.4, 0, 1)) * np.clip((1 - r) * 3.5, 0, 1) ** 0.6
    patch = (density * body).astype(_F32)
    # What lies over heart or bone still adds, but a mass in lung displaces air and shows most there.
    scene.extra[rows, columns] += patch * (_F32(0.35) + _F32(0.65) * scene.lung[rows, columns])
