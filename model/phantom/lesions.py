"""The 14 findings: how each changes the anatomy, and who paints it.

A lesion writes to a Scene's layers and leaves at least one box.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from model.phantom import airspace, pleura
from model.phantom.anatomy import Chest
from model.phantom.lesion import Lesion
from model.phantom.scene import Scene, clouds

_F32 = np.float32


def deform(chest: Chest, lesions: dict[str, Lesion]) -> Chest:
    """The anatomy as the findings change it: heart size, diaphragms, aeration, where the mediastinum lies."""
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
            heart_ratio=0.555 + 0.15 * s,
            heart_height=chest.heart_height * (1.1 + 0.14 * s),
            heart_tilt=chest.heart_tilt * 1.1,
            pedicle=chest.pedicle * 1.06,
        )
    if "Fibrosis" in lesions:
        up = 0.012 + 0.025 * lesions["Fibrosis"].severity
        chest = replace(chest, dome_y=(chest.dome_y[0] - up, chest.dome_y[1] - up))
    if "Atelectasis" in lesions:
        lesion = lesions["Atelectasis"]
        up = 0.025 + 0.04 * lesion.severity
        dome = list(chest.dome_y)
        dome[lesion.side] -= up
        chest = _shifted(replace(chest, dome_y=(dome[0], dome[1])), lesion.side, 0.008 + 0.016 * lesion.severity)
    if "Effusion" in lesions:
        lesion = lesions["Effusion"]
        chest = _shifted(chest, 1 - lesion.side, 0.05 * max(0.0, lesion.severity - 0.6))
    if "Pneumothorax" in lesions:
        lesion = lesions["Pneumothorax"]
        chest = _shifted(chest, 1 - lesion.side, 0.07 * max(0.0, lesion.severity - 0.55))
    return chest


def _shifted(chest: Chest, towards: int, by: float) -> Chest:
    return replace(chest, shift=chest.shift + (by if towards == 1 else -by))


def paint(scene: Scene, lesion: Lesion) -> None:
    _PAINTERS[lesion.name](scene, lesion)


def _cardiomegaly(scene: Scene, lesion: Lesion) -> None:
    chest = scene.chest
    x, y = chest.heart_centre
    e, h = chest.heart_half_width, chest.heart_height
    scene.add_box(lesion.name, x - e, y - 0.85 * h, x + e, y + 0.75 * h)


def _emphysema(scene: Scene, lesion: Lesion) -> None:
    """What `deform` did not: bullae with hair-thin walls."""
    chest, s = scene.chest, lesion.severity
    for _ in range(4):
        side = int(lesion.patient.integers(2))
        out = float(lesion.patient.uniform(0.45, 0.72)) * chest.half_width
        y = chest.apex_y + float(lesion.patient.uniform(0.15, 0.4)) * (chest.dome_y[side] - chest.apex_y)
        rx = float(lesion.patient.uniform(0.04, 0.065))
        bulla = scene.blob(scene.at(side, out), y, rx, 1.15 * rx)
        scene.haze -= np.exp(-(bulla**2)).astype(_F32) * _F32(0.12 + 0.12 * s)
        start = int(lesion.patient.integers(0, 360))
        scene.strands.arc(scene.at(side, out), y, rx, start, start + 130, 0.0022, 0.24 + 0.12 * s)
    left, right = scene.at(0, chest.half_width), scene.at(1, chest.half_width)
    scene.add_box(lesion.name, left, chest.apex_y, right, max(chest.dome_y))


def _fibrosis(scene: Scene, lesion: Lesion) -> None:
    """A net of septa and honeycombs beneath the pleura, at the bases or (after tuberculosis) the apices."""
    chest, s = scene.chest, lesion.severity
    apical = bool(lesion.patient.random() < 0.3)
    # Reticulation: the zero crossings of noise form a net.
    net = np.clip(1 - 2.2 * np.abs(clouds(lesion.patient, 0.018)), 0, 1)
    for side in (0, 1):
        span = chest.dome_y[side] - chest.apex_y
        low, high = (0.06, 0.4) if apical else (0.6, 1.04)
        for k in range(110):
            v = float(lesion.patient.random())
            y = chest.apex_y + (low + (high - low) * (1 - v**1.6 if not apical else v**1.6)) * span
            # Thickest beneath the pleura, thinning out towards the hilum.
            x = scene.at(side, float(chest.lateral(y)) * (0.98 - 0.62 * float(lesion.patient.random()) ** 1.8))
            if k % 2:
                angle = float(lesion.patient.uniform(0, 3.14))
                reach = float(lesion.patient.uniform(0.006, 0.016))
                dx, dy = reach * float(np.cos(angle)), reach * float(np.sin(angle))
                scene.strands.line(((x - dx, y - dy), (x + dx, y + dy)), 0.0022, 0.25 + 0.25 * s)
            else:
                radius = float(lesion.patient.uniform(0.0045, 0.0085))
                scene.strands.ring(x, y, radius, 0.0025, 0.3 + 0.25 * s)
        y = chest.apex_y + (low + high) / 2 * span
        centre = scene.at(side, 0.66 * float(chest.lateral(y)))
        zone = np.exp(-(scene.blob(centre, y, 0.19, 0.13) ** 2)).astype(_F32)
        scene.haze += zone * (_F32(0.1 + 0.1 * s) + net * _F32(0.3 + 0.34 * s))
        inner, outer = 0.32 * float(chest.lateral(y)), float(chest.lateral(y))
        scene.add_box(
            lesion.name, scene.at(side, inner), chest.apex_y + low * span, scene.at(side, outer), y + 0.24 * span
        )


def _hernia(scene: Scene, lesion: Lesion) -> None:
    """Stomach behind the heart: a soft round density, most often with air over a level of fluid."""
    chest, s = scene.chest, lesion.severity
    radius = float(lesion.patient.uniform(0.068, 0.088)) + 0.034 * s
    x = chest.middle_x + float(lesion.patient.uniform(-0.01, 0.055))
    y = max(chest.dome_y[1] - 0.6 * radius, 0.6)
    dx, dy = (scene.x - _F32(x)) / _F32(1.2), scene.y - _F32(y)
    tilt = float(lesion.patient.uniform(-0.2, 0.2))
    r = np.sqrt(dx**2 + (dy + tilt * dx) ** 2) / _F32(radius)
    # Fluid and wall: no outline of their own, only a border that fades over some millimetres.
    soft = np.clip((1.06 - r) / 0.2, 0, 1)
    scene.extra += (soft * np.sqrt(np.clip(1.25 - r * r, 0, 1)) * (0.34 + 0.16 * s)).astype(_F32)
    level = y + float(lesion.patient.uniform(0.0, 0.35)) * radius
    if lesion.kind < 0.8:
        dome = np.clip((0.97 - r) / 0.24, 0, 1)
        air = dome * scene.edge(_F32(level) - scene.y, 0.006)
        scene.extra -= (air * (0.95 + 0.35 * s)).astype(_F32)
    else:  # pockets of gas without a level
        for _ in range(3):
            gx, gy = (
                x + float(lesion.patient.uniform(-0.6, 0.6)) * radius,
                y - float(lesion.patient.random()) * radius / 2,
            )
            gas = np.exp(-(scene.blob(gx, gy, 0.55 * radius, 0.4 * radius))).astype(_F32)
            scene.solid -= gas * _F32(0.42 + 0.15 * s)
    scene.add_box(lesion.name, x - 1.2 * radius, y - radius, x + 1.2 * radius, y + radius)


_PAINTERS: dict[str, Callable[[Scene, Lesion], None]] = {
    "Atelectasis": airspace.atelectasis,
    "Cardiomegaly": _cardiomegaly,
    "Effusion": pleura.effusion,
    "Infiltration": airspace.infiltration,
    "Mass": airspace.mass,
    "Nodule": airspace.nodule,
    "Pneumonia": airspace.pneumonia,
    "Pneumothorax": pleura.pneumothorax,
    "Consolidation": airspace.consolidation,
    "Edema": airspace.edema,
    "Emphysema": _emphysema,
    "Fibrosis": _fibrosis,
    "Pleural_Thickening": pleura.pleural_thickening,
    "Hernia": _hernia,
}
