"""One phantom, from (seed, index) to pixels and boxes."""

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from scipy import ndimage

from model.errors import ConfigError
from model.phantom.anatomy import Array, Chest, draw_chest, position
from model.phantom.body import mediastinum, optical_depth
from model.phantom.devices import Box, draw_devices, has_pacemaker, has_sternotomy
from model.phantom.lesion import Lesion
from model.phantom.lesions import deform, paint
from model.phantom.scene import Scene, Strokes
from model.phantom.series import Visit, generator, visit

MIN_SIZE_PX = 64
_F32 = np.float32
_COLLIMATED_RATE = 0.22
_TWO_BYTES = math.sqrt((256**2 - 1) / 6)  # deviation of the sum of two uniform bytes
_SINGLE_SIDED = ("Pneumothorax", "Effusion", "Pleural_Thickening", "Consolidation", "Pneumonia", "Atelectasis")


@dataclass(frozen=True)
class PhantomBox:
    """Where something is, in pixels of the phantom's own frame, inside the frame; label is a finding or a device."""

    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Phantom:
    """A synthetic frontal chest radiograph.

    image_index: file name, patient id and follow-up, e.g. `90000012_003.png`.
    pixels: size × size uint8, bone and soft tissue bright, air dark.
    findings: names in FINDINGS order; empty means No Finding.
    boxes: at least one for each finding. confounders: `marker`, `label`, `wire`, `pacemaker`,
    `tube`, `collimation`. view: PA or AP.
    """

    image_index: str
    patient_id: int
    follow_up: int
    age: int
    sex: str
    pixels: np.ndarray
    findings: tuple[str, ...]
    boxes: tuple[PhantomBox, ...]
    confounders: tuple[PhantomBox, ...]
    view: str = "PA"


def draw_phantom(seed: int, index: int, size_px: int = 512) -> Phantom:
    """Image number `index` of the series `seed`: depends on these and the size alone, and shows the same at any size.

    Processors that round exponentials otherwise may differ by one grey level in one pixel of some million.

    Raises ConfigError `phantom_size` below 64 px, `phantom_seed` or `phantom_index` for negative numbers.
    """
    who = visit(seed, index)
    return render(seed, who, size_px)


def render(seed: int, who: Visit, size_px: int) -> Phantom:
    """Draws a visit, whatever findings it names (tests plant them here). Raises ConfigError `phantom_size`."""
    if size_px < MIN_SIZE_PX:
        raise ConfigError("phantom_size", f"A phantom of {size_px} px is too small: at least {MIN_SIZE_PX} px.")
    base = draw_chest(generator(seed, 5, who.number), who.age, who.sex)
    image = generator(seed, 6, who.number, who.follow_up)
    chest = position(base, image, who.view == "AP")
    lesions = _lesions(seed, who)
    chest = deform(chest, lesions)
    scene = Scene(chest, size_px)
    organs = mediastinum(scene)
    for lesion in lesions.values():
        paint(scene, lesion)
    depth = optical_depth(scene, organs, generator(seed, 7, who.number), image)
    turn = float(np.clip(image.normal(0, 1.6), -4, 4))
    depth = _rotate(depth, turn)
    devices = Strokes(size_px)
    history = generator(seed, 8, who.number)
    confounders = draw_devices(devices, chest, image, has_pacemaker(history), has_sternotomy(history))
    if devices.used:
        depth += devices.array(0.001) * _F32(1.9)
    pixels = _expose(depth, who.view == "AP", image, generator(seed, 9, who.number, who.follow_up))
    confounders += _collimate(pixels, generator(seed, 14, who.number, who.follow_up))
    boxes = [_turn_box(box, turn) for box in scene.boxes]
    return Phantom(
        image_index=who.image_index,
        patient_id=who.patient_id,
        follow_up=who.follow_up,
        age=who.age,
        sex=who.sex,
        pixels=pixels,
        findings=who.findings,
        boxes=tuple(_to_pixels(box, size_px) for box in boxes),
        confounders=tuple(_to_pixels(box, size_px) for box in confounders),
        view=who.view,
    )


def chest_of(seed: int, who: Visit) -> Chest:
    """The anatomy that `render` draws, findings included."""
    base = draw_chest(generator(seed, 5, who.number), who.age, who.sex)
    return deform(position(base, generator(seed, 6, who.number, who.follow_up), who.view == "AP"), _lesions(seed, who))


def _lesions(seed: int, who: Visit) -> dict[str, Lesion]:
    lesions: dict[str, Lesion] = {}
    for name in who.findings:
        # A stable number for the name; hash() differs from process to process.
        code = sum(ord(letter) * (i + 1) for i, letter in enumerate(name))
        patient = generator(seed, 10, who.number, code)
        image = generator(seed, 11, who.number, who.follow_up, code)
        side = int(patient.integers(2))
        severity = float(np.clip(image.beta(1.7, 1.5), 0.05, 1.0))
        kind = float(patient.random())
        lesions[name] = Lesion(name, side, severity, kind, patient, image)
    collapsed = lesions.get("Pneumothorax")
    if collapsed is not None:  # an opacity in a lung that has collapsed would be drawn over air
        for name in (*_SINGLE_SIDED[1:], "Infiltration", "Mass", "Nodule"):
            if name in lesions:
                lesions[name] = replace(lesions[name], side=1 - collapsed.side)
    return lesions


def _rotate(depth: Array, degrees: float) -> Array:
    """Turns the body in the frame; what comes in from outside repeats the edge."""
    size = depth.shape[0]
    pad = math.ceil(0.04 * size)
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle = (size - 1) / 2
    # PIL maps output to input: (x, y) → (a x + b y + c, d x + e y + f), pixel centres at +0.5.
    offset_x = middle - c * middle + s * middle + pad
    offset_y = middle - s * middle - c * middle + pad
    corner = 0.5 * (1 - c + s), 0.5 * (1 - s - c)
    source = Image.fromarray(np.pad(depth, pad, mode="edge"))
    matrix = (c, -s, offset_x + corner[0], s, c, offset_y + corner[1])
    turned = source.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.array(turned, dtype=_F32)


def _turn_box(box: Box, degrees: float) -> Box:
    label, x0, y0, x1, y1 = box
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = (x0 + x1) / 2 - 0.5, (y0 + y1) / 2 - 0.5
    # The centre turns; the extent is kept, since a box around a turned box would be too wide for what it holds.
    dx, dy = c * x + s * y + 0.5, c * y - s * x + 0.5
    w, h = (x1 - x0) / 2, (y1 - y0) / 2
    return label, dx - w, dy - h, dx + w, dy + h


def _to_pixels(box: Box, size_px: int) -> PhantomBox:
    label, x0, y0, x1, y1 = box
    x0, x1 = (min(max(v, 0.0), 1.0) for v in (x0, x1))
    y0, y1 = (min(max(v, 0.0), 1.0) for v in (y0, y1))
    return PhantomBox(label, x0 * size_px, y0 * size_px, (x1 - x0) * size_px, (y1 - y0) * size_px)


def _expose(depth: Array, portable: bool, image: np.random.Generator, grain: np.random.Generator) -> Array:
    """Optical depth → 8-bit grey: scatter, exposure, the detector's curve, noise."""
    size = depth.shape[0]
    small = Image.fromarray(depth).resize((64, 64), Image.Resampling.BOX)
    scatter = ndimage.gaussian_filter(np.asarray(small, dtype=_F32), 4)
    veil = np.asarray(Image.fromarray(scatter).resize((size, size), Image.Resampling.BICUBIC), dtype=_F32)
    share = float(np.clip(image.normal(0.16, 0.05), 0.05, 0.3))
    depth = depth * _F32(1 - share) + veil * _F32(share)
    # The window: most images are dense and contrasty, some portable ones are pale and flat.
    pale = max(0.0, float(image.normal(0.15 if portable else 0.0, 0.15)))
    gain = float(np.clip(image.normal(1.0, 0.09), 0.8, 1.25))
    knee = float(np.clip(image.normal(1.62, 0.12), 1.35, 1.95))
    power = float(np.clip(image.normal(1.45, 0.12), 1.15, 1.75))
    white = float(np.clip(image.normal(226, 10), 200, 248))
    black = float(np.clip(image.normal(9, 5), 0, 22))
    steps = np.arange(4096, dtype=np.float64) / 4096 * 6.0
    curve = black + (white - black) * (1 - np.exp(-(((steps * gain + 0.6 * pale) / knee) ** power)))
    grey = curve.astype(_F32)[np.minimum(depth * _F32(4096 / 6.0), 4095).astype(np.int16)]
    sigma = float(np.clip(image.normal(2.2, 0.7), 0.8, 4.5)) * math.sqrt(size / 512)
    # The sum of two bytes is near enough to normal, and five times as fast to draw.
    dice = grain.integers(0, 256, (2, size, size), dtype=np.uint8)
    grey += (dice[0].astype(_F32) + dice[1] - _F32(255)) * _F32(sigma / _TWO_BYTES)
    pixels: Array = np.clip(grey + _F32(0.5), 0, 255).astype(np.uint8)
    return pixels


def _collimate(pixels: Array, rng: np.random.Generator) -> list[Box]:
    """Where the beam was shut off or the plate ended: bands at the edges, white or black, in place."""
    if rng.random() >= _COLLIMATED_RATE:
        return []
    size = pixels.shape[0]
    white = rng.random() < 0.5
    boxes: list[Box] = []
    for edge in rng.permutation(4)[: 1 + int(rng.integers(3))]:
        width = float(rng.uniform(0.012, 0.045))
        level = int(rng.integers(225, 250)) if white else int(rng.integers(0, 12))
        # Never quite parallel to the frame.
        slope = float(rng.normal(0, 0.006))
        along = (np.arange(size) + 0.5) / size
        depth = np.maximum(width + slope * (along - 0.5), 0.004)[:, None]
        band = along[None, :] < depth
        view = (pixels, pixels[:, ::-1], pixels.T, pixels.T[:, ::-1])[edge]
        view[band] = level
        near, far = (0.0, float(depth.max())) if edge % 2 == 0 else (1.0 - float(depth.max()), 1.0)
        boxes.append(("collimation", *((near, 0.0, far, 1.0) if edge < 2 else (0.0, near, 1.0, far))))
    return boxes
