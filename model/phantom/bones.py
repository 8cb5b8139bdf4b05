"""Ribs, clavicles, scapulae and upper arms, as optical depth."""

import math

import numpy as np

from model.phantom.anatomy import Array, Point
from model.phantom.scene import Scene, Strokes, bend

_F32 = np.float32


def bones(scene: Scene) -> Array:
    """size × size float32: what the skeleton adds, but for the spine, which is drawn with the mediastinum."""
    chest = scene.chest
    ribs, front = Strokes(scene.size_px), Strokes(scene.size_px)
    for side in (0, 1):
        _ribs(scene, ribs, front, side)
        _shoulder(scene, front, side)
    depth = ribs.array(0.0018) * _F32(chest.rib_contrast * 0.95)
    depth += front.array(0.0024) * _F32(0.8 * chest.rib_contrast + 0.1)
    return depth


def _ribs(scene: Scene, back: Strokes, front: Strokes, side: int) -> None:
    """Posterior arches fall gently to the wall; anterior ends run down and inwards and stop at their cartilage."""
    chest = scene.chest
    pitch = (chest.base_y - chest.apex_y) / 10.2
    for i in range(10):
        y0 = chest.apex_y - 0.035 + pitch * i
        drop = chest.rib_slope * (0.75 + 0.75 * min(i, 6) / 6)
        y1 = y0 + drop
        wall = float(chest.lateral(y1)) + 0.004
        arc = []
        for k in range(13):
            p = k / 12
            out = 0.046 + (wall - 0.046) * math.sin(0.5 * math.pi * p) ** 0.9
            arc.append((scene.at(side, out), y0 - 0.018 * math.sin(math.pi * min(1.0, 1.5 * p)) + drop * p**1.8))
        width = 0.022 - 0.00035 * i if i else 0.017
        strength = 0.85 if 0 < i < 9 else 0.6
        # The cortex is densest where the beam meets it edge-on: below more than above.
        back.line(arc, width, strength)
        back.line([(x, y - 0.08 * width) for x, y in arc], 0.7 * width, 0.74 * strength)
        back.line(arc[9:], width, 0.95 * strength)
        if i < 8:
            y2 = y1 + pitch * (1.1 + 0.12 * i)
            inner = (0.46 + 0.03 * i) * float(chest.lateral(y2))
            path = bend((scene.at(side, wall), y1), (scene.at(side, inner), y2), -0.018 if side == 0 else 0.018)
            for k in range(len(path) - 1):  # fades as bone turns to cartilage
                front.line(path[k : k + 2], 0.023, 0.4 - 0.02 * k)
            front.line(path[:-1], 0.015, 0.26)


def _shoulder(scene: Scene, strokes: Strokes, side: int) -> None:
    chest = scene.chest
    w, top = chest.half_width, chest.apex_y
    # With the arms rolled forward the blades clear the lungs; in bed they lie over them.
    inward = 0.13 * w if chest.portable else 0.02 * w

    def at(share: float, down: float) -> Point:
        return scene.at(side, share * w - inward), top + down

    blade = [at(1.16, 0.02), at(0.93, 0.045), at(0.86, 0.11), at(0.97, 0.345), at(1.03, 0.33), at(1.1, 0.17)]
    strokes.polygon(blade, 0.17)
    strokes.line(blade[1:4], 0.004, 0.34)
    strokes.line([blade[3], blade[4], blade[5], at(1.17, 0.09)], 0.009, 0.42)
    strokes.line([at(0.9, 0.075), at(1.05, 0.045), at(1.24, 0.022)], 0.012, 0.4)  # spine of the scapula
    strokes.polygon([at(1.12, 0.05), at(1.2, 0.045), at(1.2, 0.115), at(1.13, 0.12)], 0.42)  # glenoid
    strokes.line([at(1.1, 0.05), at(1.06, 0.065)], 0.018, 0.44)  # coracoid
    head = at(1.3, 0.078)
    strokes.disc(*head, 0.05, 0.62)
    strokes.disc(*head, 0.044, 0.5)
    shaft = [at(1.33, 0.1), at(1.44, 0.3), at(1.5, 0.5)]
    strokes.line(shaft, 0.05, 0.62)
    strokes.line(shaft, 0.03, 0.44)
    strokes.line([at(1.17, 0.012), at(1.29, 0.022)], 0.022, 0.5)  # acromion
    # An S: convex forwards near the sternum, and thick at both ends. A turned trunk moves the two apart unequally.
    start = 0.04 + (chest.turn if side == 1 else -chest.turn)
    upper, lower = [], []
    lift = 0.02 if chest.portable else 0.0
    for k in range(15):
        p = k / 14
        bow = 0.013 * math.sin(2 * math.pi * p)
        x = scene.at(side, start + (1.2 * w - start) * p)
        y = top + 0.078 - (0.07 + lift) * p**0.75 + bow
        half = 0.0095 + 0.009 * math.exp(-((p / 0.1) ** 2)) + 0.002 * p
        upper.append((x, y - half))
        lower.append((x, y + half))
    strokes.polygon([*upper, *reversed(lower)], 0.62)
    strokes.line(upper[1:], 0.005, 0.85)
    strokes.line(lower[1:], 0.005, 0.9)
    strokes.disc(upper[0][0], top + 0.078, 0.017, 0.66)
