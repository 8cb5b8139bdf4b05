"""Which checkpoints there are, from their cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from app.inference.examining import find_calibration
from model.checkpoint import Card, read_card
from model.detector import Calibration
from model.errors import OverreadError


class State(StrEnum):
    """Of one checkpoint."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Listed:
    """A checkpoint as the registry knows it. card: None when it cannot be read. error: why it failed, else empty.

    calibration: of the detector for these weights, None where there is none; calibration_error: why its file cannot be
    used.
    """

    id: str
    folder: Path
    state: State
    card: Card | None = None
    error: str = ""
    calibration: Calibration | None = None
    calibration_error: str = ""


def scan(folders: Sequence[Path], only: Sequence[str] = (), data_dir: Path | None = None) -> list[Listed]:
    """Reads the cards and calibrations. A second folder with an id that is taken is listed as failed, under its
    folder's name. data_dir: where own calibrations are.
    """
    found: list[Listed] = []
    for parent in folders:
        if not parent.is_dir():
            continue
        for folder in sorted(path for path in parent.iterdir() if path.is_dir() and path.name[0] not in "._"):
            try:
                card = read_card(folder)
            except (OverreadError, OSError) as error:
                found.append(Listed(folder.name, folder, State.FAILED, error=str(error)))
                continue
            if any(listed.id == card.id for listed in found):
                reason = f"The id “{card.id}” is taken by another folder; change it in {folder / 'card.json'}."
                found.append(Listed(folder.name, folder, State.FAILED, card, reason))
            else:
                calibration, why_not = find_calibration(data_dir, folder, card)
                found.append(Listed(card.id, folder, State.LOADING, card, "", calibration, why_not))
    return [listed for listed in found if not only or listed.id in only]
