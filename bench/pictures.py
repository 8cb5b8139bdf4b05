"""Pictures that are no chest radiographs, grey, drawn from a seed: families to tune on, and others to be judged on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

Draw = Callable[[np.random.Generator], np.ndarray]
SIDE = 384
_Y, _X = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
_WORDS = ("patient history lung", "was seen again", "without change", "report signed", "by the department", "of")


def _grey(values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    out: np.ndarray = ((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)
    return out


def _clouds(rng: np.random.Generator, power: float) -> np.ndarray:
    """Noise whose spectrum falls with that power; 0..1."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    frequency[0, 0] = 1 / SIDE
    spectrum = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    values = np.fft.irfft2(spectrum / frequency**power, s=(SIDE, SIDE))
    return (values - values.min()) / np.ptp(values)


def _ellipse(x: float, y: float, a: float, b: float, angle: float = 0.0) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    u, v = (_X - x) * c + (_Y - y) * s, -(_X - x) * s + (_Y - y) * c
    return (u / a) ** 2 + (v / b) ** 2 < 1


# To tune on


def _noise(rng: np.random.Generator) -> np.ndarray:
    return _grey(_clouds(rng, rng.uniform(0, 2.2)))


def _gradient(rng: np.random.Generator) -> np.ndarray:
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-1, 1)
    return _grey(_X * np.cos(angle) + _Y * np.sin(angle) + bend * (_X**2 + _Y**2) + 0.02 * rng.normal(size=_X.shape))


def _checkers(rng: np.random.Generator) -> np.ndarray:
    n = rng.uniform(2, 60)
    values = (np.floor(_X * n) + np.floor(_Y * n * rng.uniform(0.5, 2))) % 2
    return _grey(gaussian_filter(values, rng.uniform(0, 3)) + 0.05 * rng.normal(size=values.shape))


def _text(rng: np.random.Generator) -> np.ndarray:
    image = Image.new("L", (SIDE, SIDE), int(rng.integers(200, 256)))
    draw, size = ImageDraw.Draw(image), int(rng.integers(9, 26))
    for y in range(int(rng.integers(4, 40)), SIDE, int(size * rng.uniform(1.1, 2))):
        if rng.random() < 0.85:
            line = " ".join(rng.choice(_WORDS, int(rng.integers(2, 14))))
            draw.text((int(rng.integers(4, 40)), y), line, fill=20, font=ImageFont.load_default(size))
    return np.asarray(image)


def _landscape(rng: np.random.Generator) -> np.ndarray:
    """A sky over hills, with clouds above and texture below."""
    line = rng.uniform(-0.4, 0.6) + 0.5 * (_clouds(rng, 2.0)[SIDE // 2][None] - 0.5)
    sky = rng.uniform(0.5, 1) + 0.4 * (_clouds(rng, 1.6) - 0.5) + rng.uniform(-0.3, 0.3) * _Y
    ground = rng.uniform(0, 0.6) + 0.7 * (_clouds(rng, rng.uniform(0.7, 1.5)) - 0.5)
    return _grey(np.clip(np.where(line > _Y, sky, ground), 0, 1))


def _objects(rng: np.random.Generator) -> np.ndarray:
    """Shaded blobs before a background, as a still life is."""
    values = rng.uniform(0, 1) + 0.4 * _clouds(rng, 1.8) + rng.uniform(-0.4, 0.4) * _X
    for _ in range(int(rng.integers(1, 9))):
        x, y, a, b = *rng.uniform(-0.9, 0.9, 2), *rng.uniform(0.1, 0.7, 2)
        shape = _ellipse(x, y, a, b, rng.uniform(0, np.pi))
        shade = rng.uniform(0, 1) + rng.uniform(-0.8, 0.8) * (_X - x) + rng.uniform(-0.8, 0.8) * (_Y - y)
        values = np.where(shape, shade + 0.2 * _clouds(rng, 1.2), values)
    return _grey(np.clip(gaussian_filter(values, rng.uniform(0, 2)), -0.3, 1.3))


def _slice(rng: np.random.Generator) -> np.ndarray:
    """A cross-section: a bright body in black, dark lungs or none, a bright spine."""
    body = _ellipse(0, 0, rng.uniform(0.7, 0.95), rng.uniform(0.5, 0.75))
    values = np.where(body, 0.55, 0.02)
    if rng.random() < 0.7:
        for side in (-1, 1):
            lung = _ellipse(side * rng.uniform(0.35, 0.45), -0.05, rng.uniform(0.2, 0.3), rng.uniform(0.25, 0.4))
            values = np.where(lung & body, 0.08, values)
    values = np.where(_ellipse(0, rng.uniform(0.3, 0.45), 0.11, 0.11), 0.95, values)
    return _grey(gaussian_filter(values, 1.2) + 0.03 * rng.normal(size=values.shape))


def _hand(rng: np.random.Generator) -> np.ndarray:
    """Five fingers of bone in soft tissue on black."""
    values, tilt = np.zeros_like(_X), rng.uniform(-0.3, 0.3)
    values[_ellipse(0, 0.5, 0.42, 0.5)] = 0.35
    for finger in range(5):
        angle = tilt + (finger - 2) * rng.uniform(0.2, 0.3)
        for joint in range(4):
            reach = 0.15 + 0.3 * joint
            x, y = reach * np.sin(angle), 0.35 - reach * np.cos(angle)
            values[_ellipse(x, y, 0.11, 0.2, angle)] += 0.15
            values[_ellipse(x, y, 0.045, 0.14, angle)] += 0.4
    return _grey(gaussian_filter(np.minimum(values, 1), 2) + 0.01 * rng.normal(size=values.shape))


# To be judged on


def _abdomen(rng: np.random.Generator) -> np.ndarray:
    """A bright belly, a spine and a pelvis, bubbles of gas."""
    values = 0.55 - 0.3 * (_X / 0.95) ** 4 + 0.12 * (_clouds(rng, 1.8) - 0.5)
    values += 0.25 * np.exp(-((_X / 0.1) ** 2)) * (1 + 0.3 * np.sin(28 * _Y))
    for side in (-1, 1):
        values[_ellipse(side * 0.55, 0.75, 0.4, 0.35, side * 0.5)] += 0.2
    for _ in range(int(rng.integers(4, 14))):
        x, y, a, b = *rng.uniform(-0.7, 0.7, 2), *rng.uniform(0.04, 0.16, 2)
        values -= 0.25 * gaussian_filter(_ellipse(x, y, a, b).astype(float), 4)
    return _grey(gaussian_filter(values, 1.5) + 0.015 * rng.normal(size=values.shape))


def _limb(rng: np.random.Generator) -> np.ndarray:
    """A long bone or two in soft tissue, at some angle, with a joint."""
    angle = rng.uniform(-0.6, 0.6)
    across, along = _X * np.cos(angle) + _Y * np.sin(angle), -_X * np.sin(angle) + _Y * np.cos(angle)
    values = 0.3 * (np.abs(across) < rng.uniform(0.4, 0.7))
    for centre in rng.uniform(-0.2, 0.2, int(rng.integers(1, 3))):
        width = 0.1 + 0.08 * along**2
        bone = np.abs(across - centre) < width
        values = values + bone * (0.25 + 0.3 * (np.abs(across - centre) / width) ** 2) * (np.abs(along) > 0.03)
    return _grey(gaussian_filter(np.minimum(values, 1), 2) + 0.02 * rng.normal(size=values.shape))


def _skull(rng: np.random.Generator) -> np.ndarray:
    values = np.where(_ellipse(0, -0.1, 0.7, 0.85), 0.5, 0.02) + 0.35 * (
        _ellipse(0, -0.1, 0.7, 0.85) & ~_ellipse(0, -0.1, 0.64, 0.79)
    )
    for side in (-1, 1):
        values[_ellipse(side * 0.27, 0.05, 0.16, 0.14)] -= rng.uniform(0.1, 0.25)
    values[_ellipse(0, 0.3, 0.1, 0.18)] -= 0.2
    values[_ellipse(0, 0.62, 0.3, 0.12)] += 0.3
    return _grey(gaussian_filter(values + 0.1 * _clouds(rng, 1.6), 3))


def _ultrasound(rng: np.random.Generator) -> np.ndarray:
    """A fan of speckle on black."""
    depth, angle = np.hypot(_X, _Y + 1.1), np.arctan2(_X, _Y + 1.1)
    fan = (depth > 0.3) & (depth < 2) & (np.abs(angle) < rng.uniform(0.5, 0.8))
    tissue = _clouds(rng, 1.4) * rng.rayleigh(0.6, _X.shape)
    return _grey(np.where(fan, np.clip(tissue * np.exp(-depth * rng.uniform(0, 1)), 0, 1), 0))


def _fundus(rng: np.random.Generator) -> np.ndarray:
    values = np.where(np.hypot(_X, _Y) < 0.95, 0.45 + 0.2 * _clouds(rng, 2.0), 0.01)
    x, y = rng.uniform(-0.4, 0.4), rng.uniform(-0.2, 0.2)
    values = values + 0.5 * np.exp(-(((_X - x) / 0.13) ** 2 + ((_Y - y) / 0.15) ** 2))
    for bend in rng.uniform(-1.5, 1.5, 6):
        values = values - 0.15 * (np.abs(_Y - y - bend * (_X - x) ** 2) < 0.02)
    return _grey(gaussian_filter(values, 1))


def _chart(rng: np.random.Generator) -> np.ndarray:
    """A plot with axes and curves."""
    image = Image.new("L", (SIDE, SIDE), 255)
    draw = ImageDraw.Draw(image)
    draw.line([(40, 20), (40, 344), (370, 344)], fill=0, width=2)
    for _ in range(int(rng.integers(1, 6))):
        y = 180 + np.cumsum(rng.normal(0, 8, 33))
        draw.line(list(zip(range(42, 372, 10), y.tolist(), strict=True)), fill=int(rng.integers(0, 180)), width=3)
    for bar in range(int(rng.integers(0, 8))):
        draw.rectangle((60 + 40 * bar, int(rng.integers(60, 330)), 85 + 40 * bar, 343), fill=int(rng.integers(60, 220)))
    return np.asarray(image)


def _window_of_a_program(rng: np.random.Generator) -> np.ndarray:
    """A screenshot: bars, panels, lines of text."""
    image = Image.new("L", (SIDE, SIDE), int(rng.choice([30, 235])))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 9))):
        x, y = rng.integers(0, 320, 2).tolist()
        box = (x, y, x + int(rng.integers(40, 300)), y + int(rng.integers(20, 200)))
        draw.rectangle(box, fill=int(rng.integers(0, 256)), outline=128)
        draw.text((x + 5, y + 5), " ".join(rng.choice(_WORDS, 5)), fill=int(rng.integers(0, 256)))
    return np.asarray(image)


def _bordered_blank(rng: np.random.Generator) -> np.ndarray:
    values = np.full(_X.shape, rng.uniform(0.1, 1))
    edge = int(rng.integers(4, 90))
    values[:edge], values[-edge:], values[:, :edge], values[:, -edge:] = (rng.uniform(0, 1),) * 4
    return np.clip((values + 0.01 * rng.normal(size=values.shape)) * 255, 0, 255).astype(np.uint8)


def _cells_of_voronoi(rng: np.random.Generator) -> np.ndarray:
    points = rng.uniform(-1, 1, (int(rng.integers(5, 80)), 2))
    nearest = np.argmin((_X[..., None] - points[:, 0]) ** 2 + (_Y[..., None] - points[:, 1]) ** 2, axis=-1)
    return _grey(gaussian_filter(rng.uniform(0, 1, len(points))[nearest], rng.uniform(0, 4)))


def _corridor(rng: np.random.Generator) -> np.ndarray:
    """A rendered room in perspective, lit from the end or from above."""
    distance = np.maximum(np.abs(_X) * rng.uniform(0.7, 1.3), np.abs(_Y - rng.uniform(-0.2, 0.2)))
    tiles = np.sin(12 / np.maximum(distance, 0.05)) > 0
    light = np.where(np.abs(_X) < _Y, 0.5, np.where(np.abs(_X) < -_Y, 0.9, 0.7)) * rng.choice(
        [distance, 1 - distance / 2]
    )
    return _grey(gaussian_filter(light + 0.15 * tiles * (np.abs(_X) < _Y), 1) + 0.01 * rng.normal(size=_X.shape))


TUNED_ON: dict[str, Draw] = {
    "noise": _noise, "gradient": _gradient, "checkers": _checkers, "text": _text, "landscape": _landscape,
    "objects": _objects, "CT slice": _slice, "hand": _hand,
}  # fmt: skip
JUDGED_ON: dict[str, Draw] = {
    "abdomen": _abdomen, "limb": _limb, "skull": _skull, "ultrasound": _ultrasound, "fundus": _fundus, "chart": _chart,
    "screenshot": _window_of_a_program, "blank with a border": _bordered_blank, "Voronoi cells": _cells_of_voronoi,
    "corridor": _corridor,
}  # fmt: skip


def draw(family: str, seed: int) -> np.ndarray:
    """384×384 uint8."""
    names = [*TUNED_ON, *JUDGED_ON]
    return (TUNED_ON | JUDGED_ON)[family](np.random.default_rng([names.index(family), seed]))
