"""Who is in a series of phantoms: patients, follow-ups, and which findings each image shows.

Everything here depends on (seed, index) alone, so that image 731 can be drawn without the 730 before it.
"""

from dataclasses import dataclass

import numpy as np

from model.errors import ConfigError
from model.findings import FINDINGS

# A block of 20 images belongs to 8 patients; a fixed block is what makes the n-th image addressable.
_IMAGES_PER_PATIENT = (1, 1, 2, 2, 3, 3, 4, 4)
_PATIENTS_PER_BLOCK = len(_IMAGES_PER_PATIENT)
_IMAGES_PER_BLOCK = sum(_IMAGES_PER_PATIENT)

_SEED_SLOTS = 2499
_PATIENTS_PER_SLOT = 4000
_FIRST_PATIENT_ID = 90_000_001
_FIRST_LONG_ID = 1_000_000_000
_LONG_IDS_PER_SLOT = 1_000_000

_WELL_PATIENT_RATE = 0.45
_NO_FINDING_RATE_WELL = 0.80
_NO_FINDING_RATE_ILL = 0.165
_COUNT_RATES = (0.34, 0.40, 0.26)
_FOLLOWS_HISTORY_RATE = 0.75
_PORTABLE_RATE = 0.28

_WEIGHTS = {
    "Atelectasis": 1.05,
    "Effusion": 1.0,
    "Infiltration": 1.1,
    "Cardiomegaly": 1.2,
    "Pneumothorax": 1.15,
    "Emphysema": 1.15,
    "Hernia": 1.35,
    "Nodule": 1.15,
    "Mass": 1.15,
    "Fibrosis": 1.1,
    "Pleural_Thickening": 1.1,
}
_TOGETHER = {
    ("Atelectasis", "Effusion"): 2.2,
    ("Cardiomegaly", "Effusion"): 1.8,
    ("Cardiomegaly", "Edema"): 2.2,
    ("Effusion", "Edema"): 1.8,
    ("Infiltration", "Pneumonia"): 1.8,
    ("Effusion", "Pneumonia"): 1.6,
    ("Effusion", "Consolidation"): 1.6,
    ("Atelectasis", "Consolidation"): 1.5,
    ("Emphysema", "Pneumothorax"): 2.2,
    ("Emphysema", "Fibrosis"): 1.5,
    ("Fibrosis", "Pleural_Thickening"): 2.0,
    ("Mass", "Nodule"): 2.0,
    ("Mass", "Effusion"): 1.5,
    ("Cardiomegaly", "Emphysema"): 0.0,
    ("Edema", "Emphysema"): 0.0,
    ("Pneumonia", "Consolidation"): 0.6,
    ("Pneumothorax", "Edema"): 0.3,
}


@dataclass(frozen=True)
class Visit:
    """One image's place in a series: `number` counts the seed's patients from 0, `findings` is in FINDINGS order."""

    number: int
    patient_id: int
    follow_up: int
    age: int
    sex: str
    findings: tuple[str, ...]
    view: str = "PA"  # or AP, as in ChestX-ray14; chosen without regard to findings

    @property
    def image_index(self) -> str:
        """File name in ChestX-ray14's manner, e.g. `90000012_003.png`."""
        return f"{self.patient_id:08d}_{self.follow_up:03d}.png"


def generator(seed: int, *path: int) -> np.random.Generator:
    """Independent stream for (seed, path); the same on every machine and in every process."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *path])))


def visit(seed: int, index: int) -> Visit:
    """The `index`-th image of the series `seed`.

    Raises ConfigError `phantom_seed` or `phantom_index` for negative numbers.
    """
    if seed < 0:
        raise ConfigError("phantom_seed", f"The seed is {seed}; it must be 0 or more.")
    if index < 0:
        raise ConfigError("phantom_index", f"The index is {index}; it must be 0 or more.")
    block, place = divmod(index, _IMAGES_PER_BLOCK)
    counts = generator(seed, 1, block).permutation(_IMAGES_PER_PATIENT)
    ends = np.cumsum(counts)
    slot = int(np.searchsorted(ends, place, side="right"))
    follow_up = place - int(ends[slot] - counts[slot])
    number = block * _PATIENTS_PER_BLOCK + slot
    rng = generator(seed, 2, number)
    sex = "M" if rng.random() < 0.55 else "F"
    age = int(np.clip(rng.normal(52, 17), 18, 92))
    view = "AP" if generator(seed, 13, number, follow_up).random() < _PORTABLE_RATE else "PA"
    return Visit(number, patient_id(seed, number), follow_up, age, sex, _findings(seed, number, follow_up), view)


def patient_id(seed: int, number: int) -> int:
    """Patient `number` of series `seed` as an id that no other series (seed mod 2499) has.

    The first 4000 patients (10,000 images) have 8 digits, from 90000001 on; later ones have 10 digits.
    """
    slot = seed % _SEED_SLOTS
    if number < _PATIENTS_PER_SLOT:
        return _FIRST_PATIENT_ID + slot * _PATIENTS_PER_SLOT + number
    return _FIRST_LONG_ID + slot * _LONG_IDS_PER_SLOT + number


def _findings(seed: int, number: int, follow_up: int) -> tuple[str, ...]:
    patient = generator(seed, 3, number)
    well = patient.random() < _WELL_PATIENT_RATE
    history = _draw_findings(patient, 3)
    image = generator(seed, 4, number, follow_up)
    if image.random() < (_NO_FINDING_RATE_WELL if well else _NO_FINDING_RATE_ILL):
        return ()
    count = 1 + int(image.choice(3, p=_COUNT_RATES))
    follows = image.random() < _FOLLOWS_HISTORY_RATE
    chosen = history[:count] if follows else _draw_findings(image, count)
    return tuple(name for name in FINDINGS if name in chosen)


def _draw_findings(rng: np.random.Generator, count: int) -> list[str]:
    weights = np.array([_WEIGHTS.get(name, 1.0) for name in FINDINGS])
    chosen: list[str] = []
    for _ in range(count):
        name = str(rng.choice(FINDINGS, p=weights / weights.sum()))
        chosen.append(name)
        weights[FINDINGS.index(name)] = 0.0
        for (one, other), factor in _TOGETHER.items():
            if name == one:
                weights[FINDINGS.index(other)] *= factor
            elif name == other:
                weights[FINDINGS.index(one)] *= factor
    return chosen
