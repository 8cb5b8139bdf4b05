"""Calibrating the detector for a checkpoint, from the radiographs to the file: the same for the command and the job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.services.experiments.datasets import for_calibration
from app.services.readings import code_version
from app.settings import Settings
from model.checkpoint import load_checkpoint
from model.datasets import Part, Radiographs, chestxray14, join, phantoms
from model.detector import Calibration, Plan, calibration_folders, fit_calibration, read_history, write_calibration
from model.detector.conformal import ALPHA
from model.detector.fit import Progress
from model.network import resolve_device

SEED = 5502  # of phantoms that nothing else is drawn from
PHANTOMS = 250  # where nobody says how many


@dataclass(frozen=True)
class Asked:
    """data: a folder in ChestX-ray14's layout, None for phantoms alone; name: for the record, by default the folder's.
    whole: every radiograph of it, or its calibration part alone; None for what `for_calibration` says. images: at most
    so many, evenly spread. phantoms: so many beside the folder, of that seed. own_donors: None for patients of the
    folder, where no phantoms are beside it. alpha: as in `Plan`. by: who calibrates, for the record.
    """

    data: Path | None = None
    name: str = ""
    whole: bool | None = None
    images: int | None = None
    phantoms: int = 0
    seed: int = SEED
    own_donors: bool | None = None
    alpha: float = ALPHA
    by: str = ""

    def radiographs(self) -> Radiographs:
        """Raises DataError as `chestxray14` does."""
        if self.data is None:
            return phantoms(self.images or PHANTOMS, self.seed, part=Part.CALIBRATION)
        found = chestxray14(self.data)
        if self.whole is None:
            found = for_calibration(self.data, found)
        elif not self.whole:
            found = found.part(Part.CALIBRATION)
        if self.images is not None and self.images < len(found):
            found = found.take(np.linspace(0, len(found) - 1, self.images).round().astype(int))
        if self.phantoms:
            return join([found, phantoms(self.phantoms, self.seed, part=Part.CALIBRATION)])
        return found

    def described(self) -> str:
        """The data in words, for the record."""
        drawn = f"{self.phantoms or self.images or PHANTOMS} phantoms, seed {self.seed}"
        if self.data is None:
            return drawn
        return (self.name or self.data.resolve().name) + (f" and {drawn}" if self.phantoms else "")

    @property
    def plan(self) -> Plan:
        """Where no donors were asked for, they are patients of the folder, if there is nothing else beside it."""
        automatic = self.data is not None and not self.phantoms
        return Plan(alpha=self.alpha, own_donors=automatic if self.own_donors is None else self.own_donors)


def calibrate(
    settings: Settings,
    checkpoint: Path,
    asked: Asked,
    *,
    device: str = "",
    out: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Calibration, Path]:
    """Fits the detector to the checkpoint in that folder; the calibration, and the file it was written to.

    It takes the place of the one before, which stays whole until then; its summary goes into the history, where it can
    be read. device: by default what the settings say. out: a folder, by default where servers with these settings look.
    Raises CheckpointError, DataError `no_radiographs`, OSError, and what progress raises.
    """
    read = load_checkpoint(checkpoint, resolve_device(device or settings.device))
    digest = read.card.weights_sha256
    folders = (out,) if out else calibration_folders(settings.data_dir, checkpoint, digest)
    made = fit_calibration(
        read,
        asked.radiographs(),
        asked.plan,
        data=asked.described(),
        made_by=asked.by,
        code_version=code_version(),
        history=read_history(folders, digest),
        progress=progress,
    )
    return made, write_calibration(folders[0], made)
