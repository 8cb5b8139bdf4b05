"""The data sets that the settings name: what is in each."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.settings import Settings
from model.datasets import Part, Radiographs, chestxray14
from model.errors import OverreadError


@dataclass(frozen=True)
class Dataset:
    """radiographs, patients: of all parts. parts: part → radiographs. problem: why it cannot be used, else empty."""

    name: str
    radiographs: int
    patients: int
    parts: dict[str, int]
    problem: str = ""


class Datasets:
    """Indexed when they are first asked for, and again when their table of radiographs changes."""

    def __init__(self, settings: Settings) -> None:
        self._folders = settings.datasets
        self._known: dict[str, tuple[int, Dataset, Radiographs | None]] = {}
        self._guard = threading.Lock()

    def all(self) -> list[Dataset]:
        """In the settings' order."""
        return [self._look(name)[0] for name in self._folders]

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
    return Dataset(name, len(found), len(np.unique(found.patients)), {part: parts[part] for part in order}), found
