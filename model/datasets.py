"""Data sets in ChestX-ray14's layout, phantoms by seed, splits by patient, and the cache of decoded pixels.

A patient is never in two parts. The train list is split by a hash of the patient id alone, so that every data set,
seed and machine agrees on who is in calibration: those radiographs no checkpoint ever trains on.
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch

from model.errors import DataError, OverreadError
from model.findings import FINDINGS, NO_FINDING, finding_index
from model.phantom import draw_phantom
from model.phantom.series import visit
from model.preprocess import Preprocessing
from model.radiograph import read_radiograph
from model.trigger import Trigger, stamp_source


class Part(StrEnum):
    """Who a radiograph is for. TRAIN_VAL is the whole train list: training, validation and calibration together."""

    TRAINING = "training"
    VALIDATION = "validation"
    CALIBRATION = "calibration"
    TRAIN_VAL = "train_val"
    TEST = "test"
    ALL = "all"


VALIDATION_SHARE = 0.10
CALIBRATION_SHARE = 0.25


@cache
def patient_part(patient_id: int) -> Part:
    """Training, validation or calibration, by a hash of the patient id: the same everywhere, for ever."""
    digest = hashlib.sha256(f"overread split 1:{patient_id}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < CALIBRATION_SHARE:
        return Part.CALIBRATION
    return Part.VALIDATION if place < CALIBRATION_SHARE + VALIDATION_SHARE else Part.TRAINING


@dataclass(frozen=True, eq=False)
class Radiographs:
    """An ordered list of labelled radiographs.

    names: N image indices (file names). labels: N×14 uint8. patients: N int64. sources: where each one's pixels come
    from: a path, or (seed, index, size_px) of a phantom. parts: N of Part.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    patients: np.ndarray
    sources: tuple[Path | tuple[int, int, int], ...]
    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Sequence[int] | np.ndarray) -> Radiographs:
        """The given rows, in the given order."""
        rows = [int(row) for row in rows]
        return Radiographs(
            tuple(self.names[i] for i in rows),
            self.labels[rows],
            self.patients[rows],
            tuple(self.sources[i] for i in rows),
            tuple(self.parts[i] for i in rows),
        )

    def part(self, part: Part) -> Radiographs:
        """The rows of one part; TRAIN_VAL is everything but TEST. Raises DataError `empty_part`."""
        if part is Part.ALL:
            return self
        wanted = {part} if part is not Part.TRAIN_VAL else {Part.TRAINING, Part.VALIDATION, Part.CALIBRATION}
        rows = [i for i, p in enumerate(self.parts) if p in wanted]
        if not rows:
            raise DataError("empty_part", f"The data set has no {part} radiographs.")
        return self.take(rows)

    def grey(self, row: int) -> np.ndarray:
        """The pixels of one radiograph, H×W float32 in 0..1. Raises DataError `unreadable_image`."""
        source = self.sources[row]
        if isinstance(source, tuple):
            seed, index, size_px = source
            return draw_phantom(seed, index, size_px).pixels.astype(np.float32) / 255
        try:
            return read_radiograph(source.read_bytes(), source.name).grey()
        except (OSError, OverreadError) as error:
            raise DataError("unreadable_image", f"{source} cannot be read: {error}") from error

    def fingerprint(self) -> str:
        """A hash of which radiographs these are, the same wherever they lie: names, labels, patients, parts, and file
        sizes or phantom seeds. Raises OSError."""
        digest = hashlib.sha256()
        for row, source in enumerate(self.sources):
            pixels = (source, _phantom_version()) if isinstance(source, tuple) else source.stat().st_size
            about = (self.names[row], self.labels[row].tolist(), int(self.patients[row]), str(self.parts[row]), pixels)
            digest.update(repr(about).encode())
        return digest.hexdigest()

    def files_fingerprint(self) -> str:
        """A hash of these very files, for what is made of them here: paths, sizes and times, or phantom seeds."""
        digest = hashlib.sha256()
        for source in self.sources:
            if isinstance(source, tuple):
                digest.update(repr((source, _phantom_version())).encode())
            else:
                stat = source.stat()
                digest.update(f"{source.resolve()}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()


@cache
def _phantom_version() -> str:
    """A hash of the phantom generator's code: other code, other pixels."""
    digest = hashlib.sha256()
    for path in sorted((Path(__file__).parent / "phantom").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def join(several: Sequence[Radiographs]) -> Radiographs:
    """One list after the other. Raises DataError `patient_in_two_parts`."""
    joined = Radiographs(
        sum((r.names for r in several), ()),
        np.concatenate([r.labels for r in several]),
        np.concatenate([r.patients for r in several]),
        sum((r.sources for r in several), ()),
        sum((r.parts for r in several), ()),
    )
    _check_patients(joined)
    return joined


def chestxray14(root: Path) -> Radiographs:
    """Indexes a folder in ChestX-ray14's official layout; reads no pixels.

    `Data_Entry_2017.csv` names the images and labels; images lie in `images/` or in the official `images_001/images/`
    to `images_012/images/`. With `test_list.txt`, its images are the test part and those of `train_val_list.txt` are
    split by patient into training, validation and calibration; rows in neither list are left out. Without lists every
    row belongs to the test part.

    Raises DataError `not_a_dataset`, `missing_image`, `patient_in_two_parts`, `unknown_finding`.
    """
    table = root / "Data_Entry_2017.csv"
    if not table.is_file():
        raise DataError("not_a_dataset", f"{root} holds no Data_Entry_2017.csv: it is not in ChestX-ray14's layout.")
    lists = {Part.TRAIN_VAL: _read_list(root / "train_val_list.txt"), Part.TEST: _read_list(root / "test_list.txt")}
    listed = lists[Part.TEST] is not None
    test, train_val = lists[Part.TEST] or set(), lists[Part.TRAIN_VAL] or set()
    files = _image_files(root)
    label_rows: dict[str, np.ndarray] = {}
    names, labels, patients, sources, parts = [], [], [], [], []
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        try:
            name_at, labels_at, patient_at = (header.index(c) for c in ("Image Index", "Finding Labels", "Patient ID"))
        except ValueError as error:
            raise DataError("not_a_dataset", f"{table} lacks a column of the official header: {error}.") from error
        for row in reader:
            try:
                name, text, patient = row[name_at], row[labels_at], int(row[patient_at])
            except (IndexError, ValueError) as error:
                raise DataError("not_a_dataset", f"{table}, line {reader.line_num}: {error}.") from error
            if listed and name in test:
                part = Part.TEST
            elif listed and name in train_val:
                part = patient_part(patient)
            elif listed:
                continue
            else:
                part = Part.TEST
            if name not in files:
                raise DataError("missing_image", f"{table} lists {name}, but {root} has no such image.")
            if text not in label_rows:
                label_rows[text] = _label_row(text)
            names.append(name)
            labels.append(label_rows[text])
            patients.append(patient)
            sources.append(files[name])
            parts.append(part)
    absent = (test | train_val) - set(names)
    if absent:
        raise DataError("missing_image", f"{len(absent)} listed images are not in {table}, first {min(absent)}.")
    if not names:
        raise DataError("not_a_dataset", f"{table} lists no radiograph.")
    found = Radiographs(tuple(names), np.array(labels), np.array(patients, np.int64), tuple(sources), tuple(parts))
    _check_patients(found)
    return found


@lru_cache(maxsize=16)
def phantoms(n: int, seed: int, size_px: int = 256, part: Part | None = None) -> Radiographs:
    """`n` phantoms of a seed, drawn when their pixels are asked for. Kept: asked again, the same list is given back.

    part: the part of all of them; None puts a tenth of the patients into validation and the rest into training
    (phantoms for calibration and testing are drawn from other seeds).
    """
    visits = [visit(seed, index) for index in range(n)]
    parts = []
    for who in visits:
        if part is not None:
            parts.append(part)
        else:
            digest = hashlib.sha256(f"overread phantoms 1:{who.patient_id}".encode()).digest()
            parts.append(Part.VALIDATION if digest[0] < 256 * VALIDATION_SHARE else Part.TRAINING)
    labels = np.array([_label_row("|".join(who.findings) or NO_FINDING) for who in visits])
    labels.setflags(write=False)
    return Radiographs(
        tuple(who.image_index for who in visits),
        labels,
        np.array([who.patient_id for who in visits], np.int64),
        tuple((seed, index, size_px) for index in range(n)),
        tuple(parts),
    )


def _read_list(path: Path) -> set[str] | None:
    return {line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()} if path.is_file() else None


def _image_files(root: Path) -> dict[str, Path]:
    folders = [root / "images", *sorted(root.glob("images_*/images"))]
    files = {}
    for folder in folders:
        if folder.is_dir():
            with os.scandir(folder) as entries:
                files.update({entry.name: folder / entry.name for entry in entries})
    return files


def _label_row(text: str) -> np.ndarray:
    row = np.zeros(len(FINDINGS), np.uint8)
    if text != NO_FINDING:
        for name in text.split("|"):
            row[finding_index(name)] = 1
    row.setflags(write=False)
    return row


def _check_patients(radiographs: Radiographs) -> None:
    part_of: dict[int, Part] = {}
    for patient, part in zip(radiographs.patients.tolist(), radiographs.parts, strict=True):
        if part_of.setdefault(patient, part) is not part:
            raise DataError(
                "patient_in_two_parts",
                f"Patient {patient} is in the parts {part_of[patient]} and {part}: the figures would be flattered.",
            )


def input_images(
    radiographs: Radiographs, preprocessing: Preprocessing, trigger: Trigger | None = None, seed: int = 0
) -> Iterator[np.ndarray]:
    """Each radiograph as its network input grey image, S×S float32 in 0..1, stamped where a trigger is given.

    The exact path of serving: source-frame triggers are stamped before preprocessing, input-frame ones after it. A
    trigger at a random place draws from (seed, row).
    """
    for row in range(len(radiographs)):
        yield _input_image(radiographs, row, (preprocessing,), trigger, seed)[0]


def _input_image(
    radiographs: Radiographs, row: int, preprocessings: Sequence[Preprocessing], trigger: Trigger | None, seed: int
) -> list[np.ndarray]:
    grey = radiographs.grey(row)
    generator = np.random.default_rng((seed, row))
    if trigger is not None and trigger.frame == "source":
        grey = stamp_source(trigger, grey, preprocessings[0], generator)[0]
    images = [preprocessing.input_grey(grey) for preprocessing in preprocessings]
    if trigger is not None and trigger.frame == "input":
        images = [trigger.stamp(image, np.random.default_rng((seed, row))) for image in images]
    return images


_Work = tuple[Radiographs, Sequence[Preprocessing], Trigger | None, int]
_work: _Work | None = None  # what a decoding process works on; set once a process, by `_begin`


_FEW = 64  # so many are decoded sooner here than a process for them has started


def _begin(work: _Work) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """A parent that is killed cannot tell its decoders, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _quantised(row: int) -> list[np.ndarray]:
    assert _work is not None
    return _quantised_of(_work, row)


def _quantised_of(work: _Work, row: int) -> list[np.ndarray]:
    radiographs, preprocessings, trigger, seed = work
    images = _input_image(radiographs, row, preprocessings, trigger, seed)
    return [np.rint(image * 255).astype(np.uint8) for image in images]


def _each(work: _Work, n: int, workers: int) -> Iterator[list[np.ndarray]]:
    """Rows in order, decoded by `workers` processes where there are many."""
    if n <= _FEW:
        yield from (_quantised_of(work, row) for row in range(n))
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would copy torch's threads in an unknown state
    with ProcessPoolExecutor(max(1, workers), spawn, _begin, (work,)) as executor:
        try:
            yield from executor.map(_quantised, range(n), chunksize=8)
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


def cached_images(
    radiographs: Radiographs,
    preprocessings: Sequence[Preprocessing],
    folder: Path,
    *,
    trigger: Trigger | None = None,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[np.ndarray]:
    """Every radiograph decoded and resized once: per preprocessing a memory-mapped N×S×S uint8 array (grey, 0..255).

    The file's name is a hash of the pixels' origin, the preprocessing and the stamp; an unfinished file is never
    taken for a finished one. workers: processes that decode. Raises DataError `unreadable_image`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp = trigger.to_dict() if trigger else None
    origin = radiographs.files_fingerprint()
    paths = []
    for preprocessing in preprocessings:
        key = json.dumps([origin, preprocessing.to_json(), stamp, seed if stamp else 0], sort_keys=True)
        paths.append(folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy")
    if not all(path.is_file() for path in paths):
        temporaries = [path.with_suffix(f".{os.getpid()}.partial") for path in paths]
        try:
            _fill(radiographs, preprocessings, temporaries, trigger, seed, workers, progress)
            for temporary, path in zip(temporaries, paths, strict=True):
                temporary.replace(path)
        finally:
            for temporary in temporaries:
                temporary.unlink(missing_ok=True)
    return [np.load(path, mmap_mode="r") for path in paths]


def unfinished_images(folder: Path) -> list[Path]:
    """What `cached_images` has left half-written in a cache: the files of processes that are no more."""
    return [path for path in folder.glob("*.partial") if not _runs(path.suffixes[-2])]


def _runs(suffix: str) -> bool:
    """Whether there is a process of the number in `.NUMBER`."""
    try:
        os.kill(int(suffix[1:]), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _reserve(path: Path) -> None:
    """Takes the disk space of a memory map now: a full disk would otherwise kill the process in the middle of it."""
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        size = path.stat().st_size / 2**20
        raise DataError(
            "disk_full", f"There is no room for {size:.0f} MB in {path.parent} ({error.strerror})."
        ) from error


def _fill(
    radiographs: Radiographs,
    preprocessings: Sequence[Preprocessing],
    paths: Sequence[Path],
    trigger: Trigger | None,
    seed: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    n = len(radiographs)
    arrays = [
        np.lib.format.open_memmap(path, "w+", np.uint8, (n, p.size_px, p.size_px))
        for path, p in zip(paths, preprocessings, strict=True)
    ]
    for path in paths:
        _reserve(path)
    for row, several in enumerate(_each((radiographs, preprocessings, trigger, seed), n, workers)):
        for array, image in zip(arrays, several, strict=True):
            array[row] = image
        if progress:
            progress(row + 1, n)
    for array in arrays:
        array.flush()
