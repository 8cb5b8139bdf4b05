"""The radiograph under construction: optical-depth layers in the body's frame, then display grey levels."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

from model.phantom.anatomy import Array, Chest, Point

COARSE = 128  # side of the grid on which everything blurred is drawn
_STROKE_SIDES_PX = (256, 512)
_F32 = np.float32


class Strokes:
    """A grey layer for lines, with more pixels than a small image has, so that its strokes are the same."""

    def __init__(self, size_px: int) -> None:
        self._size_px = size_px
        self._side = next((side for side in _STROKE_SIDES_PX if side >= 2 * size_px), max(512, size_px))
        self._image = Image.new("L", (self._side, self._side), 0)
        self._draw = ImageDraw.Draw(self._image)
        self.used = False

    def line(self, points: Sequence[Point], width: float, value: float) -> None:
        """Overdraws a polyline; width as a fraction of the side, value 0..1."""
        side = self._side
        self.used = True
        wide, fill = self._pen(width, value)
        self._draw.line([(x * side, y * side) for x, y in points], fill=fill, width=wide)

    def _pen(self, width: float, value: float) -> tuple[int, int]:
        """Width in pixels and grey; what is thinner than a pixel is as much fainter."""
        wide = width * self._side
        return max(1, round(wide)), round(255 * value * min(1.0, wide))

    def polygon(self, points: Sequence[Point], value: float) -> None:
        side = self._side
        self.used = True
        self._draw.polygon([(x * side, y * side) for x, y in points], fill=round(255 * value))

    def disc(self, x: float, y: float, radius: float, value: float) -> None:
        side = self._side
        self.used = True
        box = ((x - radius) * side, (y - radius) * side, (x + radius) * side, (y + radius) * side)
        self._draw.ellipse(box, fill=round(255 * value))

    def ring(self, x: float, y: float, radius: float, width: float, value: float) -> None:
        self.arc(x, y, radius, 0, 360, width, value)

    def arc(self, x: float, y: float, radius: float, start: int, end: int, width: float, value: float) -> None:
        """From `start` to `end` degrees, clockwise from three o'clock."""
        side = self._side
        self.used = True
        box = ((x - radius) * side, (y - radius) * side, (x + radius) * side, (y + radius) * side)
        wide, fill = self._pen(width, value)
        self._draw.arc(box, start, end, fill=fill, width=wide)

    def array(self, blur: float = 0.0014) -> Array:
        """size × size float32 in 0..1, softened by `blur` (fraction of the side)."""
        image = self._image
        if self._side != self._size_px:
            image = image.resize((self._size_px, self._size_px), Image.Resampling.BOX)
        # One box as wide as the Gaussian of this deviation; three boxes would cost three times as much.
        radius = math.sqrt(3) * blur * self._size_px - 0.5
        if radius > 0:
            image = image.filter(ImageFilter.BoxBlur(radius))
        return np.asarray(image, dtype=_F32) * _F32(1 / 255)


class Scene:
    """Layers that lesions write to.

    haze: COARSE × COARSE, optical depth added where there is lung (negative: darker).
    solid: COARSE × COARSE, optical depth added everywhere.
    strands, gaps: strokes that brighten and darken lung.
    lung: size × size, 1 where the full thickness of lung is in the beam.
    vascular: size × size or 1, share of the normal vessels that is left.
    """

    def __init__(self, chest: Chest, size_px: int) -> None:
        self.chest = chest
        self.size_px = size_px
        self.x = ((np.arange(size_px, dtype=_F32) + _F32(0.5)) / _F32(size_px))[None, :]
        self.y = ((np.arange(size_px, dtype=_F32) + _F32(0.5)) / _F32(size_px))[:, None]
        coarse = (np.arange(COARSE, dtype=_F32) + _F32(0.5)) / _F32(COARSE)
        self.coarse_x, self.coarse_y = coarse[None, :], coarse[:, None]
        self.haze = np.zeros((COARSE, COARSE), dtype=_F32)
        self.solid = np.zeros((COARSE, COARSE), dtype=_F32)
        self.strands = Strokes(size_px)
        self.gaps = Strokes(size_px)
        self.extra = np.zeros((size_px, size_px), dtype=_F32)
        self.vascular: Array = np.ones((1, 1), dtype=_F32)
        self.vessel_gain = 1.0
        self.boxes: list[tuple[str, float, float, float, float]] = []
        self.split = min(max(round(chest.middle_x * size_px), 1), size_px - 1)
        self.lung = self._draw_lungs()

    def columns(self, side: int) -> slice:
        return slice(0, self.split) if side == 0 else slice(self.split, self.size_px)

    def out(self, side: int) -> Array:
        """1 × columns: distance from the midline, growing outwards."""
        x = self.x[:, self.columns(side)]
        return (x - _F32(self.chest.middle_x)) * _F32(-1 if side == 0 else 1)

    def at(self, side: int, outwards: float) -> float:
        """Column at `outwards` from the midline on a side."""
        return self.chest.middle_x + (-outwards if side == 0 else outwards)

    def edge(self, distance: Array, softness: float = 0.004) -> Array:
        """Soft step: 0 below −softness, 1 above +softness."""
        soft = max(softness, 0.5 / self.size_px)
        result: Array = np.clip(distance * _F32(0.5 / soft) + _F32(0.5), 0, 1)
        return result

    def lung_shape(self, side: int, chest: Chest) -> Array:
        """size × columns: thickness 0..1 of one lung of `chest`."""
        y = self.y[:, 0]
        lateral = chest.lateral(y).astype(_F32)[:, None]
        medial = chest.medial(y).astype(_F32)[:, None]
        half = np.maximum((lateral - medial) / 2, _F32(1e-4))
        s = (self.out(side) - (lateral + medial) / 2) / half
        s *= s
        s *= s
        np.subtract(_F32(1), s, out=s)
        np.maximum(s, 0, out=s)
        np.sqrt(s, out=s)
        apex = np.clip((y - chest.apex_y) / 0.13, 0, 1).astype(_F32)[:, None]
        s *= np.sqrt(np.sqrt(apex)) * (y > chest.apex_y)[:, None]
        floor = chest.diaphragm(self.x[0, self.columns(side)], side).astype(_F32)[None, :]
        s *= self.edge(floor - self.y, 0.003)
        return s

    def _draw_lungs(self) -> Array:
        return np.concatenate([self.lung_shape(side, self.chest) for side in (0, 1)], axis=1)

    def coarse_lung(self) -> Array:
        """The lungs on the coarse grid."""
        image = Image.fromarray(self.lung).resize((COARSE, COARSE), Image.Resampling.BOX)
        return np.asarray(image, dtype=_F32)

    def blob(self, x: float, y: float, rx: float, ry: float, tilt: float = 0.0) -> Array:
        """COARSE × COARSE squared elliptical distance from (x, y): 1 on the ellipse."""
        dx, dy = self.coarse_x - _F32(x), self.coarse_y - _F32(y)
        c, s = math.cos(tilt), math.sin(tilt)
        a: Array = ((dx * c + dy * s) / _F32(rx)) ** 2 + ((dy * c - dx * s) / _F32(ry)) ** 2
        return a.astype(_F32)

    def enlarge(self, coarse: Array) -> Array:
        """COARSE × COARSE → size × size, bicubic."""
        image = Image.fromarray(np.ascontiguousarray(coarse, dtype=_F32))
        return np.asarray(image.resize((self.size_px, self.size_px), Image.Resampling.BICUBIC), dtype=_F32)

    def add_box(self, label: str, x0: float, y0: float, x1: float, y1: float) -> None:
        self.boxes.append((label, min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))

    def box_of(self, label: str, coarse: Array, share: float = 0.35) -> None:
        """Box around where a coarse field exceeds `share` of its maximum."""
        top = float(coarse.max())
        if top <= 0:
            return
        rows = np.flatnonzero((coarse > share * top).any(axis=1))
        cols = np.flatnonzero((coarse > share * top).any(axis=0))
        self.add_box(label, cols[0] / COARSE, rows[0] / COARSE, (cols[-1] + 1) / COARSE, (rows[-1] + 1) / COARSE)


def clouds(rng: np.random.Generator, scale: float) -> Array:
    """COARSE × COARSE of smooth noise, mean 0, standard deviation 1; `scale` is its grain as a share of the side."""
    cells = max(4, min(COARSE, round(1 / scale)))
    grain = rng.standard_normal((cells, cells), dtype=_F32)
    field = np.asarray(Image.fromarray(grain).resize((COARSE, COARSE), Image.Resampling.BICUBIC), dtype=_F32)
    field = field - field.mean()
    result: Array = field / max(float(field.std()), 1e-6)
    return result


def smooth(coarse: Array, sigma: float) -> Array:
    """Gaussian blur of a coarse field; sigma as a share of the side."""
    return np.asarray(ndimage.gaussian_filter(coarse, sigma * COARSE), dtype=_F32)


def bend(start: Point, end: Point, sag: float, steps: int = 8) -> list[Point]:
    """A shallow arc between two points; `sag` is its height over the chord, to the right of start → end."""
    (x0, y0), (x1, y1) = start, end
    nx, ny = -(y1 - y0), x1 - x0
    length = math.hypot(nx, ny) or 1.0
    points = []
    for i in range(steps + 1):
        p = i / steps
        h = 4 * sag * p * (1 - p) / length
        points.append((x0 + (x1 - x0) * p + nx * h, y0 + (y1 - y0) * p + ny * h))
    return points
