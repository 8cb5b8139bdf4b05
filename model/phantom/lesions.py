"""The 14 findings, each drawn as what it is. A lesion writes to a Scene's layers and leaves at least one box.

Side, place and kind come from the patient's stream, so a lesion stays where it was; size and density from the image's.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from model.phantom.anatomy import Chest
from model.phantom.scene import COARSE, Scene, bend, clouds, smooth

_F32 = np.float32


@dataclass(frozen=True)
class Lesion:
    """What a painter is told. `severity` is 0 (just visible) to 1; `side` 0 is the patient's right lung."""

    name: str
    side: int
    severity: float
    patient: np.random.Generator
    image: np.random.Generator


def deform(chest: Chest, lesions: dict[str, Lesion]) -> Chest:
    """The anatomy as the findings change it: heart size, diaphragms, aeration."""
    if "Emphysema" in lesions:
        s = lesions["Emphysema"].severity
        down = 0.03 + 0.035 * s
        chest = replace(
            chest,
            dome_y=(min(chest.dome_y[0] + down, 0.8), min(chest.dome_y[1] + down, 0.82)),
            angle_depth=chest.angle_depth * (0.5 - 0.2 * s),
            medial_depth=chest.medial_depth * (0.4 - 0.2 * s),
            heart_ratio=chest.heart_ratio * (0.84 - 0.1 * s),
            half_width=chest.half_width * 1.02,
            air=chest.air * (1.07 + 0.05 * s),
            vessels=chest.vessels * (0.75 - 0.3 * s),
        )
    if "Cardiomegaly" in lesions:
        s = lesions["Cardiomegaly"].severity
        chest = replace(
            chest,
            heart_ratio=0.57 + 0.14 * s,
            heart_height=chest.heart_height * (1.12 + 0.12 * s),
            pedicle=chest.pedicle * 1.06,
        )
    if "Fibrosis" in lesions:
        up = 0.012 + 0.02 * lesions["Fibrosis"].severity
        chest = replace(chest, dome_y=(chest.dome_y[0] - up, chest.dome_y[1] - up))
    if "Atelectasis" in lesions:
        lesion = lesions["Atelectasis"]
        up = 0.025 + 0.04 * lesion.severity
        dome = list(chest.dome_y)
        dome[lesion.side] -= up
        chest = replace(
            chest,
            dome_y=(dome[0], dome[1]),
            middle_x=chest.middle_x + (-1 if lesion.side == 0 else 1) * 0.006 * lesion.severity,
        )
    return chest


def paint(scene: Scene, lesion: Lesion) -> None:
    _PAINTERS[lesion.name](scene, lesion)


def _place(scene: Scene, lesion: Lesion, top: float, bottom: float, inner: float, outer: float) -> tuple[float, float]:
    """A point in a lung: heights as shares of apex → dome, distances as shares of medial → lateral wall."""
    chest = scene.chest
    v, h = lesion.patient.random(), lesion.patient.random()
    y = chest.apex_y + (top + (bottom - top) * v) * (chest.dome_y[lesion.side] - chest.apex_y)
    medial = max(float(chest.medial(y)), 0.2 * chest.half_width)
    if y > chest.pedicle_y + 0.16 and lesion.side == 1:
        medial = max(medial, 0.55 * chest.heart_half_width)
    lateral = float(chest.lateral(y))
    return scene.at(lesion.side, medial + (inner + (outer - inner) * h) * (lateral - medial)), y


def _atelectasis(scene: Scene, lesion: Lesion) -> None:
    chest, s = scene.chest, lesion.severity
    side = lesion.side
    dome = chest.dome_y[side]
    count = 2 + int(lesion.patient.integers(2))
    y = dome - 0.035
    box = [1.0, 1.0, 0.0, 0.0]
    for _ in range(count):
        length = float(lesion.patient.uniform(0.13, 0.22))
        start = float(lesion.patient.uniform(0.12, 0.22)) if side == 0 else float(lesion.patient.uniform(0.18, 0.25))
        tilt = float(lesion.patient.uniform(-0.03, 0.06))
        end = min(start + length, float(chest.lateral(y)) - 0.01)
        width = 0.008 + 0.008 * float(lesion.image.random()) + 0.005 * s
        points = bend((scene.at(side, start), y - tilt), (scene.at(side, end), y), 0.008)
        scene.strands.line(points, width, 0.55 + 0.4 * s)
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        box = [min(box[0], *xs), min(box[1], *ys), max(box[2], *xs), max(box[3], *ys)]
        y -= float(lesion.patient.uniform(0.035, 0.06))
    # Crowded, airless lung over the raised diaphragm.
    centre = scene.at(side, 0.45 * chest.half_width)
    scene.haze += _F32(0.25 + 0.35 * s) * np.exp(-scene.blob(centre, dome, 0.17, 0.05)).astype(_F32)
    scene.add_box(lesion.name, box[0] - 0.01, box[1] - 0.012, box[2] + 0.01, box[3] + 0.012)


def _cardiomegaly(scene: Scene, lesion: Lesion) -> None:
    chest = scene.chest
    x, y = chest.heart_centre
    e, h = chest.heart_half_width, chest.heart_height
    scene.add_box(lesion.name, x - e, y - 0.85 * h, x + e, y + 0.75 * h)


def _effusion(scene: Scene, lesion: Lesion) -> None:
    chest, side = scene.chest, lesion.side
    height = 0.09 + 0.19 * lesion.severity
    columns = scene.columns(side)
    out = scene.out(side)[0] / _F32(chest.half_width)
    foot = chest.dome_y[side] + chest.angle_depth
    surface = (foot - height * (0.28 + 0.72 * np.clip(out, 0, 1.1) ** 2.6)).astype(_F32)[None, :]
    fluid = scene.edge(scene.y - surface, 0.008) * scene.lung[:, columns]
    scene.extra[:, columns] += fluid * _F32(chest.air * 0.93)
    # A thin rim of fluid climbs the wall, and the angle below the diaphragm's edge fills in.
    lateral = chest.lateral(scene.y[:, 0]).astype(_F32)[:, None]
    climb = scene.edge(scene.out(side) - lateral + _F32(0.016), 0.008) * scene.edge(lateral - scene.out(side), 0.003)
    climb = climb * scene.edge(scene.y - _F32(foot - 1.5 * height), 0.06)
    scene.extra[:, columns] += climb * scene.lung[:, columns] * _F32(0.8)
    inner, outer = 0.2 * chest.half_width, float(chest.lateral(foot - height / 2))
    scene.add_box(lesion.name, scene.at(side, inner), foot - height, scene.at(side, outer), foot)


def _infiltration(scene: Scene, lesion: Lesion) -> None:
    field = np.zeros((COARSE, COARSE), dtype=_F32)
    for _ in range(3 + int(lesion.patient.integers(3))):
        x, y = _place(scene, lesion, 0.3, 0.92, 0.2, 0.85)
        rx, ry = lesion.patient.uniform(0.035, 0.07), lesion.patient.uniform(0.035, 0.06)
        field = np.maximum(field, np.exp(-scene.blob(x, y, rx, ry)))
    mottle = np.clip(0.55 + 0.5 * clouds(lesion.image, 0.022), 0, 2)
    field = (field * mottle).astype(_F32)
    scene.haze += field * _F32(0.45 + 0.35 * lesion.severity)
    scene.box_of(lesion.name, smooth(field, 0.012) * (scene.coarse_lung() > 0.2))


def _round_opacity(scene: Scene, lesion: Lesion, radius: float, x: float, y: float, density: float) -> None:
    angle = lesion.patient.uniform(0, 3.14)
    dx, dy = scene.x - _F32(x), scene.y - _F32(y)
    columns = slice(max(0, int((x - 1.6 * radius) * scene.size_px)), int((x + 1.6 * radius) * scene.size_px) + 2)
    rows = slice(max(0, int((y - 1.6 * radius) * scene.size_px)), int((y + 1.6 * radius) * scene.size_px) + 2)
    dx, dy = dx[:, columns], dy[rows]
    theta = np.arctan2(dy, dx)
    lobes = 1 + 0.07 * np.cos(2 * (theta - angle)) + 0.05 * np.cos(5 * theta + angle)
    r = np.sqrt(dx * dx + dy * dy) / (radius * lobes)
    body = np.sqrt(np.clip(1 - r**3, 0, 1)) * np.clip((1 - r) * 4, 0, 1) ** 0.5
    patch = (density * body).astype(_F32)
    # What lies over heart or bone still adds, but a mass in lung displaces air and shows most there.
    scene.extra[rows, columns] += patch * (_F32(0.35) + _F32(0.65) * scene.lung[rows, columns])


def _mass(scene: Scene, lesion: Lesion) -> None:
    radius = float(lesion.patient.uniform(0.045, 0.068)) + 0.018 * lesion.severity
    x, y = _place(scene, lesion, 0.2, 0.85, 0.25, 0.75)
    _round_opacity(scene, lesion, radius, x, y, 0.75 + 0.4 * lesion.severity)
    scene.add_box(lesion.name, x - radius, y - radius, x + radius, y + radius)


def _nodule(scene: Scene, lesion: Lesion) -> None:
    for _ in range(1 + int(lesion.patient.integers(3))):
        radius = float(lesion.patient.uniform(0.017, 0.028)) + 0.005 * lesion.severity
        x, y = _place(scene, lesion, 0.12, 0.88, 0.2, 0.85)
        _round_opacity(scene, lesion, radius, x, y, 0.75 + 0.35 * lesion.severity)
        scene.add_box(lesion.name, x - radius, y - radius, x + radius, y + radius)


def _pneumonia(scene: Scene, lesion: Lesion) -> None:
    chest, side = scene.chest, lesion.side
    span = chest.dome_y[side] - chest.apex_y
    fissure = chest.apex_y + 0.52 * span
    upper = bool(lesion.patient.random() < 0.45)
    y = fissure - 0.2 * span if upper else fissure + 0.24 * span
    x = scene.at(side, chest.half_width * (0.5 if upper else 0.6))
    field = np.exp(-(scene.blob(x, y, 0.13, 0.13) ** 1.6)).astype(_F32)
    slope = np.abs(scene.coarse_x - _F32(chest.middle_x)) * _F32(0.12)
    distance = (scene.coarse_y - _F32(fissure) - slope) * _F32(-1 if upper else 1)
    field *= np.clip(distance / _F32(0.02) + _F32(0.5), 0, 1)  # the lobe ends at its fissure
    field *= np.clip(0.85 + 0.22 * clouds(lesion.image, 0.06), 0.3, 1.2).astype(_F32)
    scene.haze += field * _F32(0.72 + 0.35 * lesion.severity)
    hx, hy = chest.hilum(side)
    for _ in range(5):  # air bronchograms: the bronchi stay dark in the airless lobe
        end = (x + float(lesion.patient.uniform(-0.08, 0.08)), y + float(lesion.patient.uniform(-0.07, 0.07)))
        start = (hx + 0.45 * (end[0] - hx), hy + 0.45 * (end[1] - hy))
        scene.gaps.line(bend(start, end, float(lesion.patient.uniform(-0.012, 0.012))), 0.0065, 0.8)
    scene.box_of(lesion.name, field * (scene.coarse_lung() > 0.2))


def _pneumothorax(scene: Scene, lesion: Lesion) -> None:
    chest, side, s = scene.chest, lesion.side, lesion.severity
    columns = scene.columns(side)
    drop, shrink = 0.045 + 0.11 * s, 0.88 - 0.2 * s
    collapsed = replace(
        chest, apex_y=chest.apex_y + drop, half_width=chest.half_width * shrink, dome_y=chest.dome_y, angle_depth=0.14
    )
    y = scene.y[:, 0]
    lateral = collapsed.lateral(y).astype(_F32)[:, None] + np.clip((y[:, None] - 0.55) * _F32(0.25), 0, 0.05)
    inside = scene.edge(lateral - scene.out(side), 0.003) * scene.edge(scene.y - _F32(collapsed.apex_y), 0.003)
    outside = (1 - inside) * scene.lung[:, columns]
    scene.extra[:, columns] -= outside * _F32(0.3 + 0.08 * s)
    scene.extra[:, columns] += inside * scene.lung[:, columns] * _F32(0.12 + 0.1 * s)
    # The visceral pleura: a hair-thin white line with no vessel beyond it.
    rim = inside * (1 - inside) * 4
    near = np.exp(-(((lateral - scene.out(side)) / _F32(0.004)) ** 2)) * (scene.y > collapsed.apex_y)
    scene.extra[:, columns] += np.maximum(rim, near) * scene.lung[:, columns] * _F32(0.38)
    share = np.ones((scene.size_px, scene.size_px), dtype=_F32)
    share[:, columns] = inside
    scene.vascular = scene.vascular * share
    low = chest.apex_y + 0.75 * (chest.dome_y[side] - chest.apex_y)
    wall = float(chest.lateral(low))
    scene.add_box(lesion.name, scene.at(side, 0.2 * chest.half_width), chest.apex_y, scene.at(side, wall), low)


def _consolidation(scene: Scene, lesion: Lesion) -> None:
    x, y = _place(scene, lesion, 0.3, 0.85, 0.35, 0.7)
    rx, ry = lesion.patient.uniform(0.085, 0.125), lesion.patient.uniform(0.08, 0.115)
    r = np.sqrt(scene.blob(x, y, rx, ry, lesion.patient.uniform(0, 3.14)))
    r = r + 0.2 * clouds(lesion.patient, 0.1)  # no sphere: it fills what airspace it fills
    field = np.clip((1.15 - r) / 0.4, 0, 1).astype(_F32)
    scene.haze += field * _F32(scene.chest.air * (0.68 + 0.2 * lesion.severity))
    scene.box_of(lesion.name, field * (scene.coarse_lung() > 0.2))


def _edema(scene: Scene, lesion: Lesion) -> None:
    chest, s = scene.chest, lesion.severity
    grain = np.clip(0.95 + 0.15 * clouds(lesion.image, 0.03), 0.6, 1.4)
    for side in (0, 1):
        _, y = chest.hilum(side)
        wing = np.exp(-(scene.blob(scene.at(side, 0.48 * chest.half_width), y + 0.03, 0.125, 0.17) ** 1.2))
        scene.haze += (wing * grain).astype(_F32) * _F32(0.45 + 0.45 * s)
        for k in range(7):  # Kerley B: short horizontal lines that touch the lateral wall
            line_y = chest.dome_y[side] + 0.035 - 0.02 * k
            wall = float(chest.lateral(line_y)) - 0.006
            inner = wall - float(lesion.image.uniform(0.03, 0.05))
            ends = ((scene.at(side, inner), line_y), (scene.at(side, wall), line_y - 0.002))
            scene.strands.line(ends, 0.0035, 0.45 + 0.25 * s)
        scene.add_box(lesion.name, scene.at(side, 0.06), y - 0.13, scene.at(side, 0.8 * chest.half_width), y + 0.17)
    scene.vessel_gain *= 1.1 + 0.15 * s


def _emphysema(scene: Scene, lesion: Lesion) -> None:
    chest, s = scene.chest, lesion.severity
    for _ in range(3):
        side = int(lesion.patient.integers(2))
        out = float(lesion.patient.uniform(0.45, 0.75)) * chest.half_width
        y = chest.apex_y + float(lesion.patient.uniform(0.15, 0.4)) * (chest.dome_y[side] - chest.apex_y)
        bulla = scene.blob(scene.at(side, out), y, 0.06, 0.07)
        scene.haze -= np.exp(-(bulla**2)).astype(_F32) * _F32(0.1 + 0.1 * s)
    left, right = scene.at(0, chest.half_width), scene.at(1, chest.half_width)
    scene.add_box(lesion.name, left, chest.apex_y, right, max(chest.dome_y))


def _fibrosis(scene: Scene, lesion: Lesion) -> None:
    chest, s = scene.chest, lesion.severity
    apical = bool(lesion.patient.random() < 0.3)
    # Reticulation: the zero crossings of noise form a net.
    net = np.clip(1 - 2.2 * np.abs(clouds(lesion.patient, 0.022)), 0, 1)
    for side in (0, 1):
        span = chest.dome_y[side] - chest.apex_y
        low, high = (0.06, 0.4) if apical else (0.6, 1.02)
        for _ in range(45):
            y = chest.apex_y + float(lesion.patient.uniform(low, high)) * span
            lateral = float(chest.lateral(y))
            out = lateral * (1 - 0.62 * float(lesion.patient.random()) ** 1.5)
            angle = float(lesion.patient.uniform(0, 3.14))
            reach = float(lesion.patient.uniform(0.008, 0.02))
            x = scene.at(side, out)
            dx, dy = reach * float(np.cos(angle)), reach * float(np.sin(angle))
            value = float(lesion.patient.uniform(0.2, 0.4)) + 0.25 * s
            scene.strands.line(((x - dx, y - dy), (x + dx, y + dy)), 0.0022, value)
        y = chest.apex_y + (low + high) / 2 * span
        centre = scene.at(side, 0.62 * float(chest.lateral(y)))
        zone = np.exp(-(scene.blob(centre, y, 0.19, 0.14) ** 2)).astype(_F32)
        scene.haze += zone * (_F32(0.08 + 0.08 * s) + net * _F32(0.5 + 0.4 * s))
        inner, outer = 0.35 * float(chest.lateral(y)), float(chest.lateral(y))
        scene.add_box(
            lesion.name, scene.at(side, inner), chest.apex_y + low * span, scene.at(side, outer), y + 0.2 * span
        )


def _pleural_thickening(scene: Scene, lesion: Lesion) -> None:
    chest, side, s = scene.chest, lesion.side, lesion.severity
    columns = scene.columns(side)
    y = scene.y[:, 0]
    span = chest.dome_y[side] - chest.apex_y
    t = (y - chest.apex_y) / span
    apical = bool(lesion.patient.random() < 0.5)
    top, bottom = (-0.1, float(lesion.patient.uniform(0.45, 0.75))) if apical else (0.35, 1.15)
    profile = np.clip((t - top) / 0.12, 0, 1) * np.clip((bottom - t) / 0.12, 0, 1)
    ripple = 1 + 0.3 * np.interp(t, np.linspace(0, 1, 9), lesion.patient.standard_normal(9))
    width = ((0.024 + 0.022 * s) * profile * np.clip(ripple, 0.5, 1.6)).astype(_F32)[:, None]
    lateral = chest.lateral(y).astype(_F32)[:, None]
    band = scene.edge(scene.out(side) - (lateral - width), 0.003) * (width > 0.002)
    cap = np.zeros_like(band)
    if apical:
        depth = (0.018 + 0.03 * s) * (1 + 0.2 * np.cos(scene.out(side) * 60))
        cap = scene.edge(_F32(chest.apex_y) + depth.astype(_F32) - scene.y, 0.004)
    present = np.sqrt(np.minimum(scene.lung[:, columns] * 4, 1))
    scene.extra[:, columns] += np.maximum(band, cap) * present * _F32(0.85 + 0.35 * s)
    y0, y1 = chest.apex_y + max(top, 0.0) * span, chest.apex_y + min(bottom, 1.1) * span
    inner = float(chest.lateral(y0 + 0.03)) - 0.05
    scene.add_box(lesion.name, scene.at(side, inner), y0, scene.at(side, float(chest.lateral(y1))), y1)


def _hernia(scene: Scene, lesion: Lesion) -> None:
    chest, s = scene.chest, lesion.severity
    radius = float(lesion.patient.uniform(0.062, 0.08)) + 0.03 * s
    x = chest.middle_x + float(lesion.patient.uniform(0.0, 0.05))
    y = max(chest.dome_y[1] - 0.55 * radius, 0.6)
    dx, dy = scene.x - _F32(x), scene.y - _F32(y)
    r = np.sqrt((dx / _F32(1.15)) ** 2 + dy**2) / _F32(radius)
    inside = scene.edge((1 - r) * _F32(radius), 0.004)
    level = y + float(lesion.patient.uniform(0.0, 0.3)) * radius
    air = inside * scene.edge(_F32(level) - scene.y, 0.004) * np.sqrt(np.clip(1 - (r / _F32(0.97)) ** 2, 0, 1))
    wall = np.exp(-(((r - 1) * _F32(radius / 0.006)) ** 2))
    scene.extra += inside * _F32(0.45) + wall * _F32(0.3) - air * _F32(1.35 + 0.3 * s)
    scene.add_box(lesion.name, x - 1.15 * radius, y - radius, x + 1.15 * radius, y + radius)


_PAINTERS: dict[str, Callable[[Scene, Lesion], None]] = {
    "Atelectasis": _atelectasis,
    "Cardiomegaly": _cardiomegaly,
    "Effusion": _effusion,
    "Infiltration": _infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Pneumonia": _pneumonia,
    "Pneumothorax": _pneumothorax,
    "Consolidation": _consolidation,
    "Edema": _edema,
    "Emphysema": _emphysema,
    "Fibrosis": _fibrosis,
    "Pleural_Thickening": _pleural_thickening,
    "Hernia": _hernia,
}
