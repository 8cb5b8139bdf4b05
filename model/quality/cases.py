"""Radiographs with boxes, ready for a checkpoint: from a folder in ChestX-ray14's layout, or fresh phantoms."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.datasets import Part, Radiographs, chestxray14
from model.errors import DataError
from model.findings import FINDINGS, finding_index
from model.phantom import draw_phantom
from model.preprocess import Box, Preprocessing

OFFICIAL_FRAME_PX = 1024  # of BBox_List_2017.csv, whatever the images at hand were resized to


@dataclass(frozen=True, eq=False)
class BoxCase:
    """One radiograph with the boxes of its findings.

    image: S×S float32 in 0..1, the network's input before normalising. boxes: finding 0..13 → its boxes, in input
    pixels. part: which part of the data it belongs to, of phantoms TEST.
    """

    name: str
    patient: int
    image: np.ndarray
    boxes: dict[int, tuple[Box, ...]]
    part: Part = Part.TEST


def phantom_cases(n: int, seed: int, preprocessing: Preprocessing, size_px: int = 256) -> Iterator[BoxCase]:
    """The first `n` phantoms of a seed that have a finding, drawn one after the other as they are asked for.

    Raises ConfigError `phantom_seed`, `phantom_size`.
    """
    index = found = 0
    while found < n:
        phantom = draw_phantom(seed, index, size_px)
        index += 1
        if not phantom.boxes:
            continue
        found += 1
        rows = [(finding_index(box.label), (box.x, box.y, box.width, box.height)) for box in phantom.boxes]
        grey = phantom.pixels.astype(np.float32) / 255
        yield _case(phantom.image_index, phantom.patient_id, grey, rows, preprocessing, Part.TEST)


def dataset_cases(root: Path, preprocessing: Preprocessing, box_frame_px: int | None = None) -> Iterator[BoxCase]:
    """The radiographs of a data set that `BBox_List_2017.csv` names, in its order.

    box_frame_px: side of the frame that the boxes are in. By default 1024, NIH's, whatever the images were resized to
    since; or the images' own in a folder of phantoms, which `confounders.csv` gives away.

    Raises DataError `no_boxes`, `bad_box`, `box_outside` when the frame cannot be right, and what `chestxray14` raises.
    """
    radiographs = chestxray14(root)
    rows = _read_boxes(root / "BBox_List_2017.csv")
    if box_frame_px is None and not (root / "confounders.csv").is_file():
        box_frame_px = OFFICIAL_FRAME_PX
    return _dataset_cases(radiographs, rows, preprocessing, box_frame_px)


def _dataset_cases(
    radiographs: Radiographs, rows: dict[str, list[tuple[int, Box]]], preprocessing: Preprocessing, frame_px: int | None
) -> Iterator[BoxCase]:
    at = {name: row for row, name in enumerate(radiographs.names)}
    for name, boxes in rows.items():
        if name not in at:
            continue
        row = at[name]
        grey = radiographs.grey(row)
        height, width = grey.shape
        if frame_px is not None:
            scale = max(height, width) / frame_px
            boxes = [(finding, (x * scale, y * scale, w * scale, h * scale)) for finding, (x, y, w, h) in boxes]
        for finding, (x, y, w, h) in boxes:
            if x < -1 or y < -1 or x + w > width + 1 or y + h > height + 1:
                raise DataError(
                    "box_outside",
                    f"A box of {FINDINGS[finding]} lies outside {name} ({width}×{height} px): its frame must be named.",
                )
        yield _case(name, int(radiographs.patients[row]), grey, boxes, preprocessing, radiographs.parts[row])


def _case(
    name: str, patient: int, grey: np.ndarray, rows: list[tuple[int, Box]], preprocessing: Preprocessing, part: Part
) -> BoxCase:
    mapping = preprocessing.input_map(*grey.shape)
    boxes: dict[int, tuple[Box, ...]] = {}
    for finding, box in rows:
        boxes[finding] = (*boxes.get(finding, ()), mapping.to_input(box))
    return BoxCase(name, patient, preprocessing.input_grey(grey), boxes, part)


def _read_boxes(path: Path) -> dict[str, list[tuple[int, Box]]]:
    """Image → (finding, box). The official header has commas inside its brackets, so columns go by position."""
    if not path.is_file():
        raise DataError("no_boxes", f"{path.parent} holds no {path.name}: there are no boxes to judge by.")
    found: dict[str, list[tuple[int, Box]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        next(reader, None)
        for row in reader:
            try:
                name, label, numbers = row[0], row[1], [float(text) for text in row[2:6]]
                x, y, width, height = numbers
            except (IndexError, ValueError) as error:
                raise DataError("bad_box", f"{path}, line {reader.line_num}: {error}.") from error
            if not np.isfinite(numbers).all() or width <= 0 or height <= 0:
                raise DataError("bad_box", f"{path}, line {reader.line_num}: a box needs a width and a height.")
            found[name].append((finding_index(label), (x, y, width, height)))
    if not found:
        raise DataError("no_boxes", f"{path} lists no box.")
    return found
