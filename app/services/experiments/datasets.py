"""The data sets that the settings name: what is in each."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.services.errors import InvalidError
from app.settings import Settings
from model.datasets import Part, Radiographs, chestxray14
from model.errors import OverreadError


@dataclass(frozen=True)
class Dataset:
    """radiographs, patients: of all parts. parts: part → radiographs. problem: why it cannot be used, else empty.
    calibration: radiographs that a checkpoint can be calibrated on."""

    name: str
    radiographs: int
    patients: int
    parts: dict[str, int]
    problem: str = ""
    calibration: int = 0


class Datasets:
    """Indexed when they are first asked for, and again when their table of radiographs changes."""

    def __init__(self, settings: Settings) -> None:
        self._folders = settings.datasets
        self._known: dict[str, tuple[int, Dataset, Radiographs | None]] = {}
        self._guard = threading.Lock()

    def all(self) -> list[Dataset]:
        """In the settings' order."""
        return [self._look(name)[0] for name in self._folders]

    def to_calibrate_on(self, name: str) -> Dataset:
        """One that has radiographs for that. Raises InvalidError `unknown_dataset`, `bad_dataset`, `no_radiographs`."""
        if name not in self._folders:
            raise unknown_dataset(name, self._folders)
        found = self._look(name)[0]
        if found.problem:
            raise InvalidError("bad_dataset", f"The data set “{name}” cannot be used: {found.problem}")
        if not found.calibration:
            raise InvalidError("no_radiographs", f"The data set “{name}” has no radiograph in its calibration part.")
        return found

    def radiographs(self, name: str) -> Radiographs | None:
        """Its index; None where it cannot be used."""
        return self._look(name)[1]

    def _look(self, name: str) -> tuple[Dataset, Radiographs | None]:
        folder = self._folders[name]
        stamp = _stamp(folder)
        with self._guard:
            known = self._known.get(name)
            if known is None or known[0] != stamp:
                known = (stamp, *_index(name, folder))
                self._known[name] = known
            return known[1], known[2]


def for_calibration(folder: Path, found: Radiographs) -> Radiographs:
    """Of a folder's radiographs those to calibrate on: its calibration part where it has lists, else every one.

    Raises DataError `empty_part`.
    """
    return found.part(Part.CALIBRATION) if _has_lists(folder) else found


def unknown_dataset(name: str, known: Iterable[str]) -> InvalidError:
    """What is said of a name that the settings do not know."""
    there = ", ".join(known) or "phantoms alone"
    return InvalidError("unknown_dataset", f"There is no data set “{name}” on this server; there is: {there}.")


def _has_lists(folder: Path) -> bool:
    return (folder / "test_list.txt").is_file()


def _stamp(folder: Path) -> int:
    try:
        return (folder / "Data_Entry_2017.csv").stat().st_mtime_ns
    except OSError:
        return -1


def _index(name: str, folder: Path) -> tuple[Dataset, Radiographs | None]:
    try:
        found = chestxray14(folder)
    except (OverreadError, OSError) as error:
        said = str(error).replace(str(folder), "its folder")
        return Dataset(name, 0, 0, {}, said), None
    parts = Counter(part.value for part in found.parts)
    order = [part.value for part in Part if part.value in parts]
    of_parts = {part: parts[part] for part in order}
    usable = parts[Part.CALIBRATION.value] if _has_lists(folder) else len(found)
    return Dataset(name, len(found), len(np.unique(found.patients)), of_parts, calibration=usable), found
