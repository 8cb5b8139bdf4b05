"""The normal chest: trunk, bones, mediastinum, heart, vessels, abdomen, as optical depth in the body's frame."""

import math
from collections.abc import Iterator

import numpy as np

from model.phantom.anatomy import Array
from model.phantom.bones import bones
from model.phantom.scene import COARSE, Scene, Strokes, bend, clouds

_F32 = np.float32


def optical_depth(scene: Scene, organs: Array, patient: np.random.Generator, image: np.random.Generator) -> Array:
    """size × size float32: the beam's optical depth, 0 in free air, about 2.5 through the mediastinum.

    To be called when the lesions have written to the scene. organs: what `mediastinum` gave.
    """
    chest = scene.chest
    depth = _trunk(scene)
    _hila(scene)
    texture = clouds(patient, 0.012) * _F32(0.035) + clouds(patient, 0.05) * _F32(0.04)
    vessels = _vessels(scene, patient) * scene.vascular
    bright = vessels * _F32(0.5 * chest.vessels * scene.vessel_gain)
    if scene.strands.used:
        bright += scene.strands.array() * _F32(0.85)
    haze = scene.haze + texture
    np.minimum(haze, chest.air * 0.96, out=haze)
    bright += scene.enlarge(haze)
    if scene.gaps.used:
        bright -= scene.gaps.array() * _F32(0.5)
    bright -= _F32(chest.air)
    bright *= scene.lung
    depth += bright
    # Lesions drawn sharply count for more over lung; together with haze they cannot exceed solid tissue by much.
    depth += scene.extra
    depth += organs
    depth += bones(scene)
    depth += scene.enlarge(_abdomen(scene, patient, image) + scene.solid)
    np.maximum(depth, 0, out=depth)
    return depth


def _trunk(scene: Scene) -> Array:
    chest = scene.chest
    x, y = scene.x[0], scene.y[:, 0]
    out = np.abs(x - chest.middle_x)
    # Shoulders: above them there is air, but for the neck and the trapezius that rises to it.
    beyond = np.maximum(out - 0.8 * chest.neck, 0)
    top = chest.shoulder_y + chest.shoulder_slope * beyond - 0.07 * np.exp(-beyond / 0.05)
    full = int(np.clip((float(top.max()) + 0.34) * scene.size_px + 1, 0, scene.size_px))
    rise = scene.y[:full] - top.astype(_F32)[None, :]
    rise *= _F32(1 / 0.34)
    np.clip(rise, 0, 1, out=rise)
    np.power(rise, _F32(0.55), out=rise)
    # Flanks: the trunk narrows below the arms.
    narrow = 1 / (1 + np.exp(-(y - chest.axilla) / 0.05))
    half = 0.8 + (chest.half_width + chest.wall + 0.012 - 0.8) * narrow
    half = half.astype(_F32)[:, None]
    side: Array = out.astype(_F32)[None, :] / half
    side *= side
    side *= side
    np.subtract(_F32(1), side, out=side)
    np.maximum(side, 0, out=side)
    np.sqrt(side, out=side)
    side[:full] *= rise
    side *= _F32(chest.depth)
    neck = np.sqrt(np.clip(1 - (out / (1.15 * chest.neck)) ** 2, 0, 1)) * (0.72 * chest.depth)
    high = side[: round(0.3 * scene.size_px)]
    np.maximum(high, neck.astype(_F32)[None, :], out=high)
    if chest.arms < 0.4:  # arms that stay in the frame beside the trunk
        arm_x = 0.55 - 0.1 * chest.arms
        arm = np.clip(1 - ((out - arm_x) / 0.075) ** 2, 0, 1).astype(_F32)[None, :]
        level = np.clip((y - 0.2) / 0.15, 0, 1).astype(_F32)[:, None]
        np.maximum(side, np.sqrt(arm) * level * _F32(1.35), out=side)
    return side


def mediastinum(scene: Scene) -> Array:
    """size × size float32: depth added by heart, great vessels, spine and airways. Takes their share off the lungs.

    To be called before the lesions are painted: none is seen where the heart has displaced the lung.
    """
    chest = scene.chest
    y = scene.y[:, 0].astype(np.float64)
    right, left = chest.silhouette(y)
    organs = np.zeros((scene.size_px, scene.size_px), dtype=_F32)
    within = _columns(scene, max(float(right.max()), float(left.max())) + 0.02)
    d = scene.x[:, within] - _F32(chest.middle_x)
    right, left = right.astype(_F32)[:, None], left.astype(_F32)[:, None]
    inside = np.minimum(left - d, d + right)
    displaced = scene.edge(inside, 0.009)
    displaced *= _F32(-0.95)
    displaced += _F32(1)
    scene.lung[:, within] *= displaced
    # Thickness of the heart: an ellipse across each row, more where the silhouette is wide.
    half = (left + right) / 2
    across = (d - (left - right) / 2) / half
    across *= across
    body = np.sqrt(np.maximum(1 - across, 0))
    wide = np.clip((half - _F32(chest.pedicle)) / _F32(0.7 * chest.half_width * 0.45), 0, 1)
    body *= _F32(0.08) + _F32(0.27) * wide
    # The heart lies on the diaphragm: its lower border is lost in the abdomen.
    body *= 1 - np.clip((scene.y - _F32(chest.dome_y[1] + 0.01)) / _F32(0.05), 0, 1)
    body += _aorta(scene, d)
    organs[:, within] = body
    middle = _columns(scene, 0.1)
    _add_spine(scene, organs[:, middle], (scene.x[0, middle] - _F32(chest.middle_x)).astype(np.float64), y)
    return organs


def _columns(scene: Scene, reach: float) -> slice:
    """The columns within `reach` of the midline."""
    near = np.flatnonzero(np.abs(scene.x[0] - scene.chest.middle_x) < reach)
    return slice(int(near[0]), int(near[-1]) + 1)


def _aorta(scene: Scene, d: Array) -> Array:
    """The knob and the descending aorta: a stripe left of the spine that shows through the heart."""
    chest = scene.chest
    y = scene.y[:, 0].astype(np.float64)
    knob = chest.pedicle_y
    edge = 0.8 * chest.pedicle + chest.shift + 0.6 * chest.knob - 0.02 * np.clip((y - knob) / 0.4, 0, 1)
    present = np.clip((y - knob + 0.03) / 0.03, 0, 1) * np.clip((chest.dome_y[1] + 0.03 - y) / 0.08, 0, 1)
    band: Array = scene.edge(edge.astype(_F32)[:, None] - d, 0.006) * scene.edge(d, 0.02)
    band *= (0.09 * present).astype(_F32)[:, None]
    return band


def _add_spine(scene: Scene, body: Array, d: Array, y: Array) -> None:
    """Vertebrae with discs and pedicles, spinous processes, and the airway in front of them, in place."""
    chest = scene.chest
    pitch = (chest.base_y - chest.apex_y) / 10.5
    turn = 2 * math.pi * (y - chest.apex_y) / pitch
    plates = 0.24 + 0.06 * np.tanh(3 * np.cos(turn) + 1.8)
    # Thoracic vertebrae widen downwards: two profiles, blended by height.
    lower = np.clip((y - chest.apex_y) / (chest.base_y - chest.apex_y), 0, 1)
    for share, width in ((1 - lower, 0.036), (lower, 0.046)):
        column = np.clip((width - np.abs(d)) / 0.012, 0, 1)
        body += np.outer(plates * share, column).astype(_F32)
        pedicles = np.exp(-(((np.abs(d) - 0.62 * width) / 0.007) ** 2))
        body += np.outer(0.09 * share * np.clip(np.cos(turn + 0.6), 0, 1), pedicles).astype(_F32)
    process = np.exp(-(((d - chest.turn) / 0.006) ** 2))
    body += np.outer(0.13 * np.clip(np.cos(turn + 1.4), 0, 1), process).astype(_F32)
    carina = chest.pedicle_y + 0.06
    # The arch pushes the trachea to the right; what shifts the mediastinum takes it along.
    middle = 0.7 * chest.shift - 0.006 * np.exp(-(((y - chest.pedicle_y) / 0.05) ** 2)) - 0.4 * chest.turn
    above = slice(0, int(carina * scene.size_px) + 1)
    hollow = _tunnel(d, middle[above], 0.0185)
    hollow *= (0.46 * np.clip((carina - y[above]) / 0.02, 0, 1)).astype(_F32)[:, None]
    body[above] -= hollow
    for sign, reach, fall in ((-1, 0.05, 0.06), (1, 0.07, 0.05)):  # main bronchi
        course = np.clip((y - carina) / fall, 0, 1) * reach * sign + 0.7 * chest.shift - 0.002
        rows = slice(int((carina - 0.01) * scene.size_px), int((carina + fall) * scene.size_px))
        body[rows] -= _tunnel(d, course[rows], 0.014) * _F32(0.26)


def _tunnel(d: Array, course: Array, radius: float) -> Array:
    """rows × columns: 1 within a pipe that runs at `course`, falling off steeply at `radius`."""
    r = (d.astype(_F32)[None, :] - course.astype(_F32)[:, None]) * _F32(1 / radius)
    r *= r
    r *= r
    result: Array = np.exp(-r)
    return result


def _hila(scene: Scene) -> None:
    for side in (0, 1):
        x, y = scene.chest.hilum(side)
        gain = _F32(0.34 * min(scene.vessel_gain, 1.5))
        scene.haze += np.exp(-scene.blob(x, y, 0.03, 0.055)).astype(_F32) * gain
        scene.haze += np.exp(-scene.blob(x, y + 0.03, 0.075, 0.12)).astype(_F32) * _F32(0.12)


def _vessels(scene: Scene, patient: np.random.Generator) -> Array:
    chest = scene.chest
    strokes = Strokes(scene.size_px)
    segments: list[tuple[float, float, float, float, float, float]] = []

    dice: Iterator[float] = iter(
        patient.random(1000).tolist()
    )  # a call for each number would cost more than the drawing

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * next(dice)

    def grow(x: float, y: float, angle: float, width: float, length: float, order: int) -> None:
        sag = uniform(-0.1, 0.1) * length
        nx, ny = x + length * math.cos(angle), y + length * math.sin(angle)
        segments.append((x, y, nx, ny, width, sag))
        if order == 0:
            return
        side_branch = uniform(0.35, 0.8) * (1 if next(dice) < 0.5 else -1)
        drift = -0.25 * side_branch + uniform(-0.12, 0.12)
        shrink = uniform(0.72, 0.92)
        grow(nx, ny, angle + drift, width * 0.8, length * shrink, order - 1)
        grow(nx, ny, angle + side_branch, width * 0.62, length * shrink * 0.8, order - 1)

    for side in (0, 1):
        x, y = chest.hilum(side)
        sign = 1 if side == 1 else -1
        for k in range(9):
            # From apex to base; the lower-lobe vessels are the larger and leave the hilum lower down.
            angle = (-1.42, -1.0, -0.5, 0.0, 0.35, 0.65, 0.95, 1.2, 1.5)[k] + uniform(-0.15, 0.15)
            length = uniform(0.05, 0.07) * (1.25 if k >= 5 else 0.95)
            width = 0.0098 if k >= 5 else 0.0068
            x0 = x + sign * uniform(-0.012, 0.012)
            y0 = y - 0.035 + 0.0105 * k + uniform(-0.01, 0.01)
            grow(x0, y0, angle if side == 1 else math.pi - angle, width, length, 3)
        strokes.line(bend((x, y - 0.03), (x + sign * 0.012, y + 0.075), 0.01 * sign), 0.02, 0.5)
    for x0, y0, x1, y1, width, sag in sorted(segments, key=lambda s: s[4]):
        strokes.line(bend((x0, y0), (x1, y1), sag, 3), width, min(1.0, 0.2 + width * 62))
    return strokes.array(0.0019)


def _abdomen(scene: Scene, patient: np.random.Generator, image: np.random.Generator) -> Array:
    """Coarse layer of what lies below the diaphragm, and breasts."""
    chest = scene.chest
    field = np.zeros((COARSE, COARSE), dtype=_F32)
    below = np.clip((scene.coarse_y - _F32(max(chest.dome_y))) / _F32(0.16), 0, 1)
    out = np.abs(scene.coarse_x - _F32(chest.middle_x)) / _F32(chest.half_width + chest.wall)
    field += below * _F32(chest.belly) * np.clip(1.05 - out**4, 0, 1)
    if chest.gastric_air > 0.35:
        x = scene.at(1, 0.5 * chest.half_width)
        y = chest.dome_y[1] + 0.055
        reach = 0.075 * chest.gastric_air + 0.025
        if chest.portable:
            bubble = np.exp(-(scene.blob(x, y + 0.01, reach, 0.035, 0.2) ** 2))
        else:  # air under the dome, over a level of fluid
            away = (scene.coarse_x - _F32(x)) / _F32(reach)
            roof = y - 0.032 + 0.04 * away**2
            bubble = np.clip((scene.coarse_y - roof) / 0.016, 0, 1) * np.clip((1.1 - np.abs(away)) / 0.35, 0, 1)
            bubble *= np.clip((y + 0.05 * chest.gastric_air - scene.coarse_y) / 0.009, 0, 1)
        field -= bubble.astype(_F32) * _F32(0.35 + 0.4 * chest.gastric_air)
        gas = np.clip(clouds(image, 0.05) - 1.1, 0, 1.2) * np.clip((scene.coarse_y - _F32(y + 0.06)) / _F32(0.05), 0, 1)
        field -= gas * _F32(0.5) * (scene.coarse_x > chest.middle_x)
    if chest.breast > 0:
        for side in (0, 1):
            x = scene.at(side, (0.64 + 0.06 * chest.breast) * chest.half_width)
            y = chest.apex_y + 0.46 + 0.1 * chest.breast
            rx, ry = 0.14 + 0.06 * chest.breast, 0.13 + 0.07 * chest.breast
            # Round below, and fading into the chest wall above.
            thick = np.sqrt(np.clip(1 - scene.blob(x, y, rx, ry, -0.25 if side == 0 else 0.25), 0, 1))
            lower = np.clip((scene.coarse_y - _F32(y - 0.8 * ry)) / _F32(1.3 * ry), 0, 1)
            field += thick * lower * _F32(0.2 + 0.5 * chest.breast)
    return field
