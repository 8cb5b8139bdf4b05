"""A set of phantoms on disk, in the layout of ChestX-ray14."""

import csv
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from model.errors import ConfigError, DataError
from model.findings import NO_FINDING
from model.phantom.drawing import MIN_SIZE_PX, Phantom, PhantomBox, draw_phantom
from model.phantom.series import generator, visit

# The official header holds commas inside the brackets, so these are eleven fields.
_ENTRY_HEADER = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
    "OriginalImage[Width",
    "Height]",
    "OriginalImagePixelSpacing[x",
    "y]",
)
_BOX_HEADER = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
_DEVICE_HEADER = ("Image Index", "Confounder", "x", "y", "w", "h")
_OFFICIAL_BOX_NAME = {"Infiltration": "Infiltrate"}
_TEST_SHARE = 0.25
_FRAME_MM = 380.0

_README = """# Synthetic chest radiographs

{n} drawings of frontal chest radiographs by Overread (`overread phantoms -n {n} --seed {seed}`), {size} px, in the
layout of NIH ChestX-ray14. They show no person. Nothing in them was copied from a real image.

- `images/`: 8-bit greyscale PNG. `Data_Entry_2017.csv`: labels.
- `train_val_list.txt`, `test_list.txt`: 75:25 by patient.
- `BBox_List_2017.csv`: boxes of findings, in the frame of these images (x, y, width, height in pixels).
- `confounders.csv`: boxes of markers, labels, wires, pacemakers, tubes and collimator edges, which are no findings.

For research and testing. Not for diagnosis.
"""


def write_phantoms(
    out: Path,
    n: int,
    seed: int,
    size_px: int = 512,
    *,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes the first `n` phantoms of series `seed` to `out`, which must be empty or absent.

    The same arguments give byte-identical files, whatever `workers`. `progress` is told how many are done. The
    tables are written after the images and `Data_Entry_2017.csv` last: without it a folder is incomplete.

    Raises ConfigError `phantom_count`, `phantom_size`, `phantom_seed` or `phantom_workers`; DataError
    `output_not_empty`.
    """
    if n < 1:
        raise ConfigError("phantom_count", f"{n} phantoms cannot be written: at least 1.")
    if size_px < MIN_SIZE_PX:
        raise ConfigError("phantom_size", f"A phantom of {size_px} px is too small: at least {MIN_SIZE_PX} px.")
    if workers < 1:
        raise ConfigError("phantom_workers", f"{workers} workers cannot draw anything: at least 1.")
    visit(seed, 0)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError("output_not_empty", f"{out} is not an empty folder: choose another one.")
    images = out / "images"
    images.mkdir(parents=True)
    phantoms = []
    for phantom in _drawn(images, n, seed, size_px, workers):
        phantoms.append(phantom)
        if progress is not None:
            progress(len(phantoms))
    _write_tables(out, phantoms, seed, size_px)


def _drawn(images: Path, n: int, seed: int, size_px: int, workers: int) -> Iterator[Phantom]:
    draw = partial(_draw_one, images, seed, size_px)
    if workers == 1:
        yield from map(draw, range(n))
        return
    # A fresh interpreter for each worker: a fork of a process with CUDA or threads running is not safe.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(draw, range(n), chunksize=8)


def _draw_one(images: Path, seed: int, size_px: int, index: int) -> Phantom:
    phantom = draw_phantom(seed, index, size_px)
    Image.fromarray(phantom.pixels).save(images / phantom.image_index, compress_level=4)
    return replace(phantom, pixels=phantom.pixels[:0, :0])


def _write_tables(out: Path, phantoms: list[Phantom], seed: int, size_px: int) -> None:
    (out / "README.md").write_text(_README.format(n=len(phantoms), seed=seed, size=size_px), encoding="utf-8")
    test = _test_patients([p.patient_id for p in phantoms], seed)
    for name, wanted in (("train_val_list.txt", False), ("test_list.txt", True)):
        listed = [p.image_index for p in phantoms if (p.patient_id in test) == wanted]
        (out / name).write_text("".join(f"{line}\n" for line in listed), encoding="utf-8")
    _write_csv(
        out / "BBox_List_2017.csv",
        _BOX_HEADER,
        [[p.image_index, _OFFICIAL_BOX_NAME.get(b.label, b.label), *_corner(b)] for p in phantoms for b in p.boxes],
    )
    _write_csv(
        out / "confounders.csv",
        _DEVICE_HEADER,
        [[p.image_index, b.label, *_corner(b)] for p in phantoms for b in p.confounders],
    )
    spacing = f"{_FRAME_MM / size_px:.6f}"
    frame = [str(size_px), str(size_px), spacing, spacing]
    _write_csv(
        out / "Data_Entry_2017.csv",
        _ENTRY_HEADER,
        [
            [
                p.image_index,
                "|".join(p.findings) or NO_FINDING,
                f"{p.follow_up}",
                f"{p.patient_id}",
                f"{p.age}",
                p.sex,
                p.view,
                *frame,
            ]
            for p in phantoms
        ],
    )


def _corner(box: PhantomBox) -> list[str]:
    return [f"{value:.4f}" for value in (box.x, box.y, box.width, box.height)]


def _test_patients(patient_ids: list[int], seed: int) -> set[int]:
    unique = sorted(set(patient_ids))
    order = generator(seed, 12).permutation(len(unique))
    return {unique[i] for i in order[: round(_TEST_SHARE * len(unique))]}


def _write_csv(path: Path, header: tuple[str, ...], rows: list[list[str]]) -> None:
    partial_path = path.with_suffix(".csv.part")
    with partial_path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(header)
        writer.writerows(rows)
    partial_path.replace(path)
