"""A run while it goes on, and afterwards: what its files say."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.services.experiments.places import live_file
from model.experiment import read_losses


@dataclass(frozen=True)
class Live:
    """stage: in words. share: of the whole run, 0..1. left_s: seconds. The others are of a training, else None."""

    stage: str
    share: float
    left_s: float
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    images_per_s: float | None = None


@dataclass(frozen=True)
class Curve:
    """epochs: twin → lines of its epochs.jsonl. losses: twin → (step, mean loss). `pretraining` is a twin here."""

    epochs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    losses: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


def live(home: Path) -> Live | None:
    """What the run's process said last; None where nobody works."""
    try:
        return Live(**json.loads(live_file(home).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def curve(run: Path) -> Curve:
    """The curves as far as they are."""
    epochs, losses = {}, {}
    for twin in ("pretraining", "clean", "backdoored"):
        lines = _lines(run / twin / "epochs.jsonl")
        if lines:
            epochs[twin] = lines
        trace = read_losses(run / twin / "losses.csv")
        if trace:
            losses[twin] = trace
    return Curve(epochs, losses)


def report(run: Path) -> dict[str, Any] | None:
    """The report of a finished run."""
    try:
        found: dict[str, Any] = json.loads((run / "report.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError):
        return []
