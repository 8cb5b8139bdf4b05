"""A patient's chest as numbers, and the outlines derived from them.

Lengths are fractions of the image's side, x to the right and y down, so that the same chest is drawn at any size.
Side 0 is the patient's right lung, on the left of the image; side 1 is the patient's left.
"""

from dataclasses import dataclass, field, replace

import numpy as np

Array = np.ndarray
Point = tuple[float, float]


@dataclass(frozen=True)
class Chest:
    """Anatomy of one patient, or of one image of that patient after inspiration and findings have had their say."""

    middle_x: float
    half_width: float  # of the rib cage's inside at its widest
    apex_y: float
    dome_y: tuple[float, float]
    angle_depth: float  # from dome to costophrenic angle
    medial_depth: float
    heart_ratio: float  # cardiothoracic ratio
    heart_tilt: float
    heart_height: float
    pedicle: float
    knob: float
    wall: float  # soft tissue beyond the ribs
    shoulder_y: float
    shoulder_slope: float
    neck: float
    depth: float  # soft-tissue optical depth of the trunk
    air: float  # optical depth that full lung takes away
    vessels: float
    rib_contrast: float
    rib_slope: float
    breast: float
    gastric_air: float
    arms: float
    axilla: float  # height at which the trunk narrows below the arms
    belly: float
    texture_seed: int = field(default=0)
    portable: bool = False  # a bedside AP image: heart magnified, scapulae over the lungs, shallow breath
    shoulder_width: float = 0.36  # of the rib cage at its top, as a share of its widest
    barrel: float = 2.7  # low: a bell that widens all the way down; high: as wide above as below
    turn: float = 0.0  # rotation about the long axis: how far the front has moved against the spine
    shift: float = 0.0  # of mediastinum and heart, away from fluid or air, towards collapse; positive to the left

    @property
    def base_y(self) -> float:
        """Level of the costophrenic angles."""
        return max(self.dome_y) + self.angle_depth

    @property
    def heart_half_width(self) -> float:
        return self.heart_ratio * self.half_width

    @property
    def heart_centre(self) -> Point:
        e = self.heart_half_width
        return self.middle_x + self.shift + 0.28 * e, self.dome_y[1] - self.heart_height * 0.62

    @property
    def pedicle_y(self) -> float:
        """Level of the aortic knob."""
        return self.apex_y + 0.27 * (min(self.dome_y) - self.apex_y)

    def silhouette(self, y: Array) -> tuple[Array, Array]:
        """Distances from the midline to the right and the left border of mediastinum and heart at heights y."""
        knob_y, artery_y = self.pedicle_y, self.pedicle_y + 0.085
        # Narrowest over the arch; the veins and arteries of the arms widen it again towards the neck.
        taper = 1 - 0.22 * np.clip((knob_y - 0.03 - y) / 0.09, 0, 1)
        taper = taper + 0.4 * np.clip((self.apex_y + 0.05 - y) / 0.11, 0, 1) ** 1.5
        right = self.pedicle * taper
        left = self.pedicle * 0.85 * taper + self.knob * np.exp(-(((y - knob_y) / 0.032) ** 2))
        e, floor = self.heart_half_width, self.dome_y[1]
        tall = 1.75 * self.heart_height
        # Right atrium: a bulge. Left border: artery, appendage, ventricle down to the apex on the diaphragm.
        atrium = np.clip((y - (floor - 0.85 * tall)) / (0.56 * tall), 0, 1.5)
        right = right + (0.72 * e - right) * np.sin(0.5 * np.pi * atrium) ** 1.4
        top = max(floor - tall, artery_y - 0.03)
        apex = floor - 0.012
        t = np.clip((y - top) / (apex - top), 0, 1)
        left = left + 0.012 * np.exp(-(((y - artery_y) / 0.04) ** 2))
        left = left + np.maximum(1.28 * e - left, 0) * (1 - (1 - t) ** (1.2 + 0.7 * self.heart_tilt)) ** 1.25
        end = np.clip((y - apex) / 0.07, 0, 1)
        moved = self.shift * np.clip((y - self.apex_y) / 0.15, 0, 1)
        return right - moved, left * np.sqrt(1 - 0.5 * end**2) + moved

    def hilum(self, side: int) -> Point:
        sign = -1 if side == 0 else 1
        y = self.apex_y + (0.49 if side == 0 else 0.45) * (self.dome_y[side] - self.apex_y)
        return self.middle_x + sign * (0.06 + 0.12 * self.half_width), y

    def lateral(self, y: Array | float) -> Array:
        """Distance from the midline to the inside of the ribs at heights y."""
        t = np.clip((np.asarray(y, dtype=np.float64) - self.apex_y) / (self.base_y - self.apex_y), 0.0, 1.0)
        bulge: Array = self.half_width * (
            self.shoulder_width + (1 - self.shoulder_width) * (1 - (1 - t) ** self.barrel) ** 0.62
        )
        return bulge - 0.035 * np.clip(t - 0.75, 0, 1) ** 1.5

    def medial(self, y: Array | float) -> Array:
        """Distance from the midline to where lung begins at heights y (mediastinum lies over it)."""
        t = np.clip((np.asarray(y, dtype=np.float64) - self.apex_y) / (0.2 * (self.base_y - self.apex_y)), 0.0, 1.0)
        result: Array = self.half_width * (0.36 - 0.27 * np.sqrt(1 - (1 - t) ** 2))
        return result

    def diaphragm(self, x: Array | float, side: int) -> Array:
        """Height of a hemidiaphragm at columns x."""
        out = np.abs(np.asarray(x, dtype=np.float64) - self.middle_x) / self.half_width
        lateral = np.clip((out - 0.48) / 0.52, 0.0, 1.3) ** 2.1
        medial = np.clip((0.48 - out) / 0.48, 0.0, 1.0) ** 2.0
        result: Array = self.dome_y[side] + self.angle_depth * lateral + self.medial_depth * medial
        return result


def draw_chest(rng: np.random.Generator, age: int, sex: str) -> Chest:
    """A patient's anatomy in health."""
    woman = sex == "F"
    habitus = float(np.clip(rng.normal(0, 1), -2, 2.2))
    half = float(np.clip(rng.normal(0.382 - 0.012 * woman, 0.023), 0.325, 0.428))
    dome = float(np.clip(rng.normal(0.65, 0.04), 0.56, 0.74))
    return Chest(
        middle_x=0.5 + float(rng.normal(0, 0.008)),
        half_width=half,
        apex_y=float(np.clip(rng.normal(0.1, 0.018), 0.06, 0.15)),
        dome_y=(dome, dome + float(rng.uniform(0.008, 0.03))),
        angle_depth=float(rng.uniform(0.085, 0.125)),
        medial_depth=float(rng.uniform(0.02, 0.045)),
        heart_ratio=float(np.clip(rng.normal(0.43 + 0.0006 * (age - 50), 0.022), 0.37, 0.48)),
        heart_tilt=float(rng.uniform(0.55, 0.8)),
        heart_height=float(rng.uniform(0.155, 0.18)),
        pedicle=float(rng.uniform(0.052, 0.068)) + 0.0002 * (age - 50),
        knob=float(rng.uniform(0.014, 0.026)) + 0.0002 * max(age - 50, 0),
        wall=float(np.clip(0.06 + 0.028 * habitus, 0.026, 0.14)),
        shoulder_y=float(rng.uniform(-0.03, 0.04)),
        shoulder_slope=float(rng.uniform(0.16, 0.36)),
        neck=float(rng.uniform(0.095, 0.125)),
        depth=float(2.35 + 0.14 * habitus),
        air=float(rng.uniform(1.42, 1.6)),
        vessels=float(rng.uniform(0.8, 1.15)),
        rib_contrast=float(np.clip(rng.normal(0.34 - 0.0012 * (age - 50) - 0.03 * habitus, 0.05), 0.18, 0.48)),
        rib_slope=float(rng.uniform(0.055, 0.095)),
        breast=float(np.clip(rng.normal(0.3, 0.12), 0.08, 0.6)) if woman else 0.0,
        gastric_air=float(rng.uniform(0.0, 1.0)),
        arms=float(rng.uniform(0.0, 1.0)),
        axilla=float(rng.uniform(0.34, 0.75)),
        belly=float(rng.uniform(0.2, 0.6)),
        texture_seed=int(rng.integers(2**31)),
        shoulder_width=float(rng.uniform(0.3, 0.43)),
        barrel=float(np.clip(rng.normal(2.65, 0.4), 1.9, 3.6)),
    )


def position(chest: Chest, rng: np.random.Generator, portable: bool = False) -> Chest:
    """The same patient on another day: framing, rotation, inspiration, and standing or in bed."""
    breath = float(rng.normal(-0.025 if portable else 0.0, 0.02))
    zoom = float(np.clip(rng.normal(1.0, 0.045), 0.88, 1.1))
    shift = float(rng.normal(0, 0.018))
    return replace(
        chest,
        middle_x=chest.middle_x + float(rng.normal(0, 0.016)),
        half_width=chest.half_width * zoom,
        apex_y=chest.apex_y + shift,
        dome_y=(
            chest.dome_y[0] * zoom + shift + breath,
            chest.dome_y[1] * zoom + shift + breath + float(rng.normal(0, 0.004)),
        ),
        shoulder_y=chest.shoulder_y + shift,
        heart_height=chest.heart_height * zoom,
        gastric_air=float(np.clip(chest.gastric_air + rng.normal(0, 0.2), 0, 1)),
        turn=float(np.clip(rng.normal(0, 0.014 if portable else 0.007), -0.03, 0.03)),
        heart_ratio=min(chest.heart_ratio * (1.06 if portable else 1.0), 0.488),
        arms=chest.arms * 0.6 if portable else chest.arms,
        portable=portable,
    )
