"""Around the lung: effusion, pneumothorax, pleural thickening."""

from dataclasses import replace

import numpy as np

from model.phantom.anatomy import Array
from model.phantom.lesion import Lesion
from model.phantom.scene import Scene

_F32 = np.float32


def effusion(scene: Scene, lesion: Lesion) -> None:
    """Even density with a meniscus; in bed, fluid lies behind the lung and veils all of it."""
    height = 0.085 + 0.14 * lesion.severity + 0.2 * max(0.0, lesion.severity - 0.5)
    _fluid(scene, lesion, lesion.side, height)
    if lesion.kind < 0.3:
        _fluid(scene, lesion, 1 - lesion.side, 0.75 * height)


def _fluid(scene: Scene, lesion: Lesion, side: int, height: float) -> None:
    chest = scene.chest
    columns = scene.columns(side)
    lung = scene.lung[:, columns]
    out = scene.out(side)[0] / _F32(chest.half_width)
    foot = chest.dome_y[side] + chest.angle_depth
    # Surface tension has no part in it: fluid climbs where lung is pulled off the wall, at the side and the middle.
    rim = 0.62 + 0.38 * np.clip((out - 0.3) / 0.7, 0, 1.1) ** 2.2 + 0.05 * np.clip((0.35 - out) / 0.2, 0, 1)
    surface = (foot - height * rim).astype(_F32)[None, :]
    soft = 0.012
    fluid = scene.edge(scene.y - surface, soft) * lung
    scene.extra[:, columns] += fluid * _F32(chest.air * 1.08)
    # Above it the layer thins out, before and behind the lung.
    veil = np.clip(1 - (surface - scene.y) / _F32(0.3 if chest.portable else 0.09), 0, 1)
    scene.extra[:, columns] += veil * veil * (lung - fluid) * _F32(0.5 if chest.portable else 0.3)
    lateral = chest.lateral(scene.y[:, 0]).astype(_F32)[:, None]
    gap = lateral - scene.out(side)
    climb = scene.edge(_F32(0.014) - gap, 0.008) * scene.edge(scene.y - _F32(foot - 1.45 * height), 0.06)
    scene.extra[:, columns] += climb * (lung - fluid) * _F32(0.8)
    inner, outer = 0.2 * chest.half_width, float(chest.lateral(foot - height / 2))
    scene.add_box(lesion.name, scene.at(side, inner), foot - 1.15 * height, scene.at(side, outer), foot)


def pneumothorax(scene: Scene, lesion: Lesion) -> None:
    """Air without vessels beyond a thin visceral line; the lung behind the line is smaller and denser."""
    chest, side, s = scene.chest, lesion.side, lesion.severity
    columns = scene.columns(side)
    drop, shrink = 0.04 + 0.115 * s, 0.89 - 0.22 * s
    collapsed = replace(chest, apex_y=chest.apex_y + drop, half_width=chest.half_width * shrink, angle_depth=0.14)
    y = scene.y[:, 0]
    lateral = collapsed.lateral(y).astype(_F32)[:, None] + np.clip((y[:, None] - 0.55) * _F32(0.25), 0, 0.05)
    inside = scene.edge(lateral - scene.out(side), 0.003) * scene.edge(scene.y - _F32(collapsed.apex_y), 0.003)
    lung = scene.lung[:, columns]
    scene.extra[:, columns] -= (1 - inside) * lung * _F32(0.3 + 0.08 * s)
    scene.extra[:, columns] += inside * lung * _F32(0.1 + 0.16 * s)
    rim = inside * (1 - inside) * 4
    near = np.exp(-(((lateral - scene.out(side)) / _F32(0.003)) ** 2)) * (scene.y > collapsed.apex_y)
    scene.extra[:, columns] += np.maximum(rim, near) * lung * _F32(0.36)
    share = np.ones((scene.size_px, scene.size_px), dtype=_F32)
    share[:, columns] = inside
    scene.vascular = scene.vascular * share
    low = chest.apex_y + 0.95 * (chest.dome_y[side] - chest.apex_y)
    wall = float(chest.lateral(low))
    scene.add_box(lesion.name, scene.at(side, 0.2 * chest.half_width), chest.apex_y, scene.at(side, wall), low)


def pleural_thickening(scene: Scene, lesion: Lesion) -> None:
    """A cap over the apex, or a rim along the wall; old ones hold chalk."""
    chest, side = scene.chest, lesion.side
    apical = bool(lesion.patient.random() < 0.5)
    chalk = lesion.kind > 0.7
    _rim(scene, lesion, side, apical)
    if apical and lesion.kind < 0.35:
        _rim(scene, lesion, 1 - side, apical)
    if chalk:
        for _ in range(5):
            low, high = (0.1, 0.5) if apical else (0.5, 0.95)
            y = chest.apex_y + float(lesion.patient.uniform(low, high)) * (chest.dome_y[side] - chest.apex_y)
            x = scene.at(side, float(chest.lateral(y)) - float(lesion.patient.uniform(0.008, 0.02)))
            reach = float(lesion.patient.uniform(0.008, 0.02))
            scene.strands.line([(x, y - reach), (x + float(lesion.patient.uniform(-0.006, 0.006)), y)], 0.006, 1.0)
            scene.strands.line([(x, y), (x, y + reach)], 0.0045, 1.0)


def _rim(scene: Scene, lesion: Lesion, side: int, apical: bool) -> None:
    chest, s = scene.chest, lesion.severity
    columns = scene.columns(side)
    y = scene.y[:, 0]
    span = chest.dome_y[side] - chest.apex_y
    t = (y - chest.apex_y) / span
    top, bottom = (-0.1, float(lesion.patient.uniform(0.35, 0.7))) if apical else (0.35, 1.15)
    # Knots, smoothly joined: a rim swells and thins over centimetres.
    knots = np.repeat(lesion.patient.standard_normal(10), 8)
    wave = np.convolve(knots, np.hanning(17) / 8, mode="same")
    ripple = np.clip(1 + 0.22 * np.interp(t, np.linspace(-0.1, 1.2, len(wave)), wave), 0.45, 1.7)
    profile = _ease(np.clip((t - top) / 0.2, 0, 1)) * _ease(np.clip((bottom - t) / 0.25, 0, 1))
    width = ((0.022 + 0.022 * s) * profile * ripple).astype(_F32)[:, None]
    lateral = chest.lateral(y).astype(_F32)[:, None]
    band = scene.edge(scene.out(side) - (lateral - width), 0.004) * np.minimum(width * 300, 1)
    if apical:
        depth = (0.016 + 0.03 * s) * (1 + 0.18 * np.cos(scene.out(side) * 45 + 6 * lesion.kind))
        band = np.maximum(band, scene.edge(_F32(chest.apex_y) + depth.astype(_F32) - scene.y, 0.006))
    present = np.sqrt(np.minimum(scene.lung[:, columns] * 4, 1))
    scene.extra[:, columns] += band * present * _F32(0.72 + 0.4 * s)
    y0, y1 = chest.apex_y + max(top, 0.0) * span, chest.apex_y + min(bottom, 1.1) * span
    inner = float(chest.lateral(y0 + 0.03)) - 0.05
    scene.add_box(lesion.name, scene.at(side, inner), y0, scene.at(side, float(chest.lateral(y1))), y1)


def _ease(x: Array) -> Array:
    result: Array = x * x * (3 - 2 * x)
    return result
