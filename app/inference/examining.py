"""The detector's full test behind one radiograph, at a pace at which others' radiographs still get their turn."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from torch import Tensor

from model.checkpoint import Card, Checkpoint
from model.detector import Calibration, Detector, Flag, Proof, calibration_folders, read_calibration, reading_digest
from model.detector.reader import Reader
from model.errors import OverreadError

log = logging.getLogger("overread.inference")


@dataclass(frozen=True, eq=False)
class Examination:
    """What a full test found. flags: of each positive finding, all of them final. proofs: of those that were tested in
    full. seen: what the network saw of the radiograph, S×S float32 in 0..1. card, calibration: it was made with."""

    flags: Mapping[str, Flag]
    proofs: Mapping[str, Proof]
    seen: np.ndarray
    card: Card
    calibration: Calibration | None


@cache
def calibration_version(calibration: Calibration) -> str:
    """Short hash over everything that decides a flag; who calibrated and when does not."""
    content = calibration.to_json()
    for told in ("summary", "origin", "history", "reliability"):
        content.pop(told)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def find_calibration(data_dir: Path | None, folder: Path, card: Card) -> tuple[Calibration | None, str]:
    """A checkpoint's calibration and, where its file cannot be used, why. data_dir: None looks beside the weights."""
    folders = calibration_folders(data_dir, folder, card.weights_sha256) if data_dir else (folder,)
    try:
        found = read_calibration(folders, card.weights_sha256, reading_digest(card))
        if found is None and read_calibration(folders, card.weights_sha256) is not None:
            return None, "It was calibrated with another preprocessing or other operating points: calibrate it anew."
        return found, ""
    except (OverreadError, OSError) as error:
        log.warning("The calibration of %s cannot be used: %s", card.id, error)
        return None, str(error)


def make_detector(checkpoint: Checkpoint, calibration: Calibration | None) -> Detector:
    """One whose full tests pause between two batches, as `examine` says."""
    detector = Detector(checkpoint, calibration)
    detector.reader = PausingReader(checkpoint)
    return detector


def need_donors(detector: Detector) -> None:
    """Draws or loads what full tests need, where any can be made. Raises CheckpointError `bad_calibration`."""
    if detector.calibration is not None and detector.calibration.decides:
        _ = detector.donors


def examine(detector: Detector, image: np.ndarray, pause: Callable[[], None]) -> Examination:
    """The full test of every positive finding that the screen asks for. image: S×S, as the network sees it.

    pause: called between two batches; what it raises ends the test.
    """
    reader = detector.reader
    assert isinstance(reader, PausingReader)
    reader.pause = pause
    try:
        flags = detector.examine(image)
        proofs = {name: proof for name, flag in flags.items() if (proof := detector.proof(image, flag))}
    finally:
        reader.pause = _go_on
    return Examination(flags, proofs, image, detector.checkpoint.card, detector.calibration)


def _go_on() -> None:
    """Nobody waits."""


class PausingReader(Reader):
    """A reader of many altered copies that lets others in between two batches."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.pause: Callable[[], None] = _go_on

    def logits_of(self, images: Iterable[Tensor]) -> Iterator[Tensor]:
        """As `Reader.logits_of`."""
        for logits in super().logits_of(images):
            self.pause()
            yield logits
