"""The registry."""

from __future__ import annotations

from typing import Any, Literal

from app.schemas.base import Schema
from model.checkpoint import NOTICE


class StageInfo(Schema):
    """A convolutional stage of the network that can be explained.

    grid: rows and columns of its maps at the checkpoint's input size. channels: feature maps. depth: share of the
    network's weighted layers up to it. role: set for the two that Overread explains.
    """

    name: str
    grid: tuple[int, int]
    channels: int
    depth: float
    role: Literal["middle", "last"] | None


class CheckpointInfo(Schema):
    """An entry of the registry.

    card: the whole card.json, null when it cannot be read. error: why it failed. stages: of one checkpoint that was
    asked for alone, null in a list.
    """

    id: str
    state: Literal["loading", "ready", "failed"]
    role: Literal["reference", "candidate"] | None
    title: str | None
    weights_sha256: str | None
    error: str | None
    card: dict[str, Any] | None
    layers: dict[Literal["middle", "last"], str]
    stages: list[StageInfo] | None = None
    notice: str = NOTICE


class CheckpointList(Schema):
    """The registry."""

    checkpoints: list[CheckpointInfo]
    notice: str = NOTICE
