"""Which checkpoints there are, from their cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from model.checkpoint import Card, read_card
from model.errors import OverreadError


class State(StrEnum):
    """Of one checkpoint."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Listed:
    """A checkpoint as the registry knows it. card: None when it cannot be read. error: why it failed, else empty."""

    id: str
    folder: Path
    state: State
    card: Card | None = None
    error: str = ""


def scan(folders: Sequence[Path], only: Sequence[str] = ()) -> list[Listed]:
    """Reads the cards. A second folder with an id that is taken is listed as failed, under its folder's name."""
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
                found.append(Listed(card.id, folder, State.LOADING, card))
    return [listed for listed in found if not only or listed.id in only]
