"""Radiographs that a suspicious patch is put onto: healthy ones, whose calls are known.

Of a checkpoint that ships they are phantoms by seed, so that a proof image shows nobody, and the same seed gives the
same donors everywhere. Who calibrates on radiographs of their own has donors among them: a patch raises the logits of a
phantom, which is unlike it, whatever it shows. They are kept beside the calibration, named by a hash.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.datasets import Part, Radiographs, input_images, phantoms
from model.detector.reader import Reader, operating_logits
from model.errors import CheckpointError

SEED = 5501
POOL = 48
COUNT = 16
SIZE_PX = 256


@dataclass(frozen=True)
class DonorNames:
    """Which they are: rows of the series of phantoms of a seed; or, where sha256 names any, radiographs, by their 8-bit
    network inputs, which lie in a file in the calibration's folder."""

    seed: int
    rows: tuple[int, ...] = ()
    sha256: tuple[str, ...] = ()

    @property
    def phantoms(self) -> bool:
        """Whether they are nobody's; else they are other patients."""
        return not self.sha256

    @property
    def file(self) -> str:
        """Of radiographs' pixels: another choice has another file, so that no calibration loses its own."""
        return f"donors-{hashlib.sha256(''.join(self.sha256).encode()).hexdigest()[:16]}.npy"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"phantom_seed": self.seed, "rows": list(self.rows), "radiographs_sha256": list(self.sha256)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DonorNames:
        """The inverse. Raises KeyError, TypeError or ValueError for anything else."""
        rows = tuple(int(row) for row in data["rows"])
        sha256 = tuple(str(one) for one in data.get("radiographs_sha256", ()))
        if not (rows or sha256) or any(row < 0 for row in rows):
            raise ValueError("there must be donors")
        return cls(int(data["phantom_seed"]), rows, sha256)


@dataclass(frozen=True, eq=False)
class Donors:
    """images: N×S×S grey in 0..1. logits: N×14, of the images as they are."""

    names: DonorNames
    images: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self) -> np.ndarray | None:
        """What is to be kept of radiographs: N×S×S uint8; None of phantoms, which are drawn again."""
        return None if self.names.phantoms else _to_uint8(self.images.cpu().numpy())


def choose_donors(reader: Reader, seed: int = SEED, pool: int = POOL, count: int = COUNT) -> Donors:
    """`count` of the first `pool` phantoms of a series, or of as many as it takes: those without a finding that the
    checkpoint calls the least, by how many findings are called, then by how near the nearest is to its operating point.
    """
    healthy: list[int] = []
    while len(healthy) < count:
        healthy = [row for row, labels in enumerate(phantoms(pool, seed, SIZE_PX).labels) if not labels.any()]
        pool *= 2
    images, logits = _read_phantoms(reader, seed, healthy)
    margins = logits - torch.from_numpy(operating_logits(reader.checkpoint.card))
    called = (margins >= 0).sum(1)
    order = sorted(range(len(healthy)), key=lambda i: (int(called[i]), float(margins[i].max())))[:count]
    return Donors(DonorNames(seed, tuple(healthy[i] for i in order)), images[order], logits[order])


def split_off_donors(radiographs: Radiographs, count: int, left: int, seed: int = SEED) -> tuple[list[int], list[int]]:
    """Rows of `count` donors of as many patients, and the rows of all other patients.

    Donors are labelled without a finding; which of those is drawn by patient, whatever the checkpoint says of them, and
    no patient is on both sides: who remains is as a new patient is, or a little iller, which makes flags rarer. No
    donors where fewer than `left` rows would remain.
    """
    healthy: dict[int, int] = {}
    for row in np.flatnonzero(~radiographs.labels.any(axis=1)).tolist():
        healthy.setdefault(int(radiographs.patients[row]), row)
    patients = sorted(healthy, key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest())[:count]
    rest = np.flatnonzero(~np.isin(radiographs.patients, patients)).tolist()
    if len(patients) < count or len(rest) < left:
        return [], list(range(len(radiographs)))
    return [healthy[patient] for patient in patients], rest


def donors_of(reader: Reader, images: np.ndarray) -> Donors:
    """Radiographs as donors: N×S×S, grey in 0..1, which are rounded to 8 bits as they will be kept."""
    return _donors_of_pixels(reader, _to_uint8(images))


def donors_again(reader: Reader, names: DonorNames, folder: Path | None = None) -> Donors:
    """Those that were chosen before. folder: of the calibration, where radiographs are kept.

    Raises CheckpointError `bad_calibration` where they are not there any more, or others.
    """
    if names.phantoms:
        return Donors(names, *_read_phantoms(reader, names.seed, list(names.rows)))
    try:
        pixels = np.load((folder or Path()) / names.file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError("bad_calibration", f"The calibration's donors cannot be read: {error}.") from error
    size = reader.size_px
    if pixels.dtype != np.uint8 or pixels.shape != (len(names.sha256), size, size) or names.sha256 != _hashes(pixels):
        raise CheckpointError("bad_calibration", f"{names.file} does not hold the donors that the calibration names.")
    return _donors_of_pixels(reader, pixels)


def write_donors(folder: Path, names: DonorNames, pixels: np.ndarray) -> Path:
    """Writes them whole or not at all, for the owner alone: they are patients. Raises OSError."""
    path = folder / names.file
    temporary = folder / f".{names.file}.{os.getpid()}.partial"
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            np.save(file, pixels, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def remove_other_donors(folder: Path, names: DonorNames) -> None:
    """Those of earlier calibrations. Raises OSError."""
    for path in folder.glob("donors-*.npy"):
        if names.phantoms or path.name != names.file:
            path.unlink(missing_ok=True)


def _donors_of_pixels(reader: Reader, pixels: np.ndarray) -> Donors:
    images = torch.from_numpy(pixels.astype(np.float32) / 255).to(reader.device)
    return Donors(DonorNames(SEED, sha256=_hashes(pixels)), images, reader.logits(images))


def _read_phantoms(reader: Reader, seed: int, rows: list[int]) -> tuple[Tensor, Tensor]:
    drawn = phantoms(max(rows) + 1, seed, SIZE_PX, Part.CALIBRATION).take(rows)
    images = torch.from_numpy(np.stack(list(input_images(drawn, reader.preprocessing)))).to(reader.device)
    return images, reader.logits(images)


def _hashes(pixels: np.ndarray) -> tuple[str, ...]:
    return tuple(hashlib.sha256(one.tobytes()).hexdigest() for one in pixels)


def _to_uint8(images: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(np.clip(images, 0, 1) * 255), np.uint8)
