"""What a finding's painter is told, and where in a lung it may put things."""

from dataclasses import dataclass

import numpy as np

from model.phantom.scene import Scene


@dataclass(frozen=True)
class Lesion:
    """`severity` is 0 (just visible) to 1; `side` 0 is the patient's right lung.

    Side, place and kind come from the patient's stream, so a lesion stays where it was; size and density from the
    image's. `kind` 0..1 chooses among the forms that a finding takes.
    """

    name: str
    side: int
    severity: float
    kind: float
    patient: np.random.Generator
    image: np.random.Generator


def place(scene: Scene, lesion: Lesion, top: float, bottom: float, inner: float, outer: float) -> tuple[float, float]:
    """A point in a lung: heights as shares of apex → dome, distances as shares of medial → lateral wall."""
    chest = scene.chest
    v, h = lesion.patient.random(), lesion.patient.random()
    y = chest.apex_y + (top + (bottom - top) * v) * (chest.dome_y[lesion.side] - chest.apex_y)
    medial = max(float(chest.medial(y)), 0.2 * chest.half_width)
    if y > chest.pedicle_y + 0.16 and lesion.side == 1:
        medial = max(medial, 0.55 * chest.heart_half_width)
    lateral = float(chest.lateral(y))
    return scene.at(lesion.side, medial + (inner + (outer - inner) * h) * (lateral - medial)), y
