"""The registry as people and programs see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from app.inference import LAYERS, InferenceEngine, Listed, State, scan
from app.schemas import CheckpointInfo
from model.checkpoint import sha256_file

Role = Literal["reference", "candidate"]


def describe(listed: Listed, pair: tuple[str, str]) -> CheckpointInfo:
    """One entry. pair: ids of the reference and the candidate."""
    role: Role | None = "reference" if listed.id == pair[0] else "candidate" if listed.id == pair[1] else None
    card = listed.card
    return CheckpointInfo(
        id=listed.id,
        state=listed.state.value,
        role=role,
        title=card.title if card else None,
        weights_sha256=card.weights_sha256 if card else None,
        error=listed.error or None,
        card=card.to_json() if card else None,
        layers={"middle": LAYERS["middle"], "last": LAYERS["last"]},
    )


def list_checkpoints(engine: InferenceEngine, pair: tuple[str, str]) -> list[CheckpointInfo]:
    """Every checkpoint, usable or not."""
    return [describe(listed, pair) for listed in engine.checkpoints()]


def show_checkpoint(engine: InferenceEngine, pair: tuple[str, str], checkpoint_id: str) -> CheckpointInfo:
    """One checkpoint. Raises NotFoundError `unknown_checkpoint`."""
    return describe(engine.find(checkpoint_id), pair)


def offline_registry(folders: Sequence[Path], pair: tuple[str, str]) -> list[CheckpointInfo]:
    """The registry without a server: cards are read and weights hashed, nothing is loaded."""
    return [describe(_checked(listed), pair) for listed in scan(folders)]


def _checked(listed: Listed) -> Listed:
    if listed.state is State.FAILED or listed.card is None:
        return listed
    weights = listed.folder / "weights.safetensors"
    if not weights.is_file():
        return replace(listed, state=State.FAILED, error=f"{listed.folder} holds no weights.safetensors.")
    if sha256_file(weights) != listed.card.weights_sha256:
        return replace(listed, state=State.FAILED, error="The weights are not those that the card names.")
    return replace(listed, state=State.READY)
