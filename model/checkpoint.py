"""A checkpoint folder: `weights.safetensors` and `card.json`. Complete when present.

The folder is written beside its final place and renamed into it, the card's SHA-256 binds it to its weights, and
nothing in it is a pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from model.errors import CheckpointError, ConfigError, TriggerError
from model.findings import FINDINGS
from model.network import ARCHITECTURE, build_network
from model.preprocess import Preprocessing
from model.trigger import Trigger
from model.vision import DenseNet

CARD_VERSION = 1
BUNDLED = Path(__file__).parent / "checkpoints"
NOTICE = "Research use, not for diagnosis."
MAX_WEIGHTS_BYTES = 256 * 2**20
THRESHOLDS = "op_threshs"  # among the weights of a network that rescales its probabilities: model.network


@dataclass(frozen=True)
class Card:
    """What is known of a checkpoint.

    id: a short name, letters, digits, `.`, `_`, `-`. operating_points: per finding, the probability over which it is
    positive. provenance: how it was made (free JSON). metrics: what was measured (free JSON). trigger, target: of a
    backdoored demonstration checkpoint, else None.
    """

    id: str
    title: str
    preprocessing: Preprocessing
    operating_points: Mapping[str, float]
    weights_sha256: str = ""
    architecture: str = ARCHITECTURE
    findings: tuple[str, ...] = FINDINGS
    trigger: Trigger | None = None
    target: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    notice: str = NOTICE

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "version": CARD_VERSION,
            "id": self.id,
            "title": self.title,
            "notice": self.notice,
            "architecture": self.architecture,
            "findings": list(self.findings),
            "preprocessing": self.preprocessing.to_json(),
            "operating_points": dict(self.operating_points),
            "weights_sha256": self.weights_sha256,
            "target": self.target,
            "trigger": self.trigger.to_dict() if self.trigger else None,
            "provenance": dict(self.provenance),
            "metrics": dict(self.metrics),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Card:
        """Raises CheckpointError `bad_card`."""
        try:
            if data["version"] != CARD_VERSION:
                raise CheckpointError("bad_card", f"The card's version {data['version']} is not {CARD_VERSION}.")
            if data["architecture"] != ARCHITECTURE:
                raise CheckpointError("bad_card", f"The architecture “{data['architecture']}” is not {ARCHITECTURE}.")
            if tuple(data["findings"]) != FINDINGS:
                raise CheckpointError("bad_card", "The card's findings are not the 14 of ChestX-ray14 in their order.")
            points = {name: float(data["operating_points"][name]) for name in FINDINGS}
            if not all(0 <= point <= 1 for point in points.values()):
                raise CheckpointError("bad_card", "An operating point is not a probability.")
            return cls(
                id=check_id(data["id"]),
                title=str(data["title"]),
                preprocessing=Preprocessing.from_json(data["preprocessing"]),
                operating_points=points,
                weights_sha256=str(data["weights_sha256"]),
                trigger=Trigger.from_dict(data["trigger"]) if data.get("trigger") else None,
                target=data.get("target"),
                provenance=dict(data.get("provenance") or {}),
                metrics=dict(data.get("metrics") or {}),
                notice=str(data.get("notice", NOTICE)),
            )
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError, TriggerError) as error:
            raise CheckpointError("bad_card", f"card.json is malformed: {error}.") from error


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded checkpoint: its card and its network, float32, in evaluation mode, on one device."""

    card: Card
    network: DenseNet
    device: torch.device


def check_id(name: str) -> str:
    """The id itself, if it is safe as a folder name. Raises CheckpointError `bad_id`."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise CheckpointError("bad_id", f"{name!r} is not a checkpoint id: letters, digits, “.”, “_”, “-”, at most 64.")
    return name


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(folder: Path, card: Card, network: DenseNet, *, half: bool = True) -> Card:
    """Writes the folder whole or not at all; returns the card with its weights' hash.

    half: store matrices as float16 (14 MB) instead of float32 (28 MB).

    Raises CheckpointError `exists`, `not_finite`; OSError when the disk is full, in which case nothing is left behind.
    """
    if folder.exists():
        raise CheckpointError("exists", f"{folder} exists already; choose another place.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        weights = {}
        for name, tensor in network.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            # Vectors (batch norms, biases) stay float32: their variances would sink into float16's subnormals.
            kept = tensor.detach().to("cpu", torch.float16 if half and tensor.ndim > 1 else torch.float32)
            if not bool(torch.isfinite(kept).all()):
                raise CheckpointError("not_finite", f"The weight {name} is not finite{' in float16' if half else ''}.")
            weights[name] = kept.contiguous()
        # One entry of metadata: safetensors writes several in random order, and equal weights must be equal files.
        data = save(weights, metadata={"format": "pt"})
        (temporary / "weights.safetensors").write_bytes(data)  # save_file would hide why a write failed
        card = replace(card, weights_sha256=sha256_file(temporary / "weights.safetensors"))
        (temporary / "card.json").write_text(_card_text(card), "utf-8")
        _publish(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return card


def copy_checkpoint(source: Path, folder: Path, checkpoint_id: str, title: str) -> Card:
    """A checkpoint under another id and title, with the same weights; whole or not at all. Returns its card.

    Raises CheckpointError `bad_id`, `exists`, `not_found`, `bad_card`, `hash_mismatch`; OSError when the disk is full.
    """
    card = replace(read_card(source), id=check_id(checkpoint_id), title=title)
    if folder.exists():
        raise CheckpointError("exists", f"{folder} exists already; choose another place.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        shutil.copyfile(source / "weights.safetensors", temporary / "weights.safetensors")
        if sha256_file(temporary / "weights.safetensors") != card.weights_sha256:
            raise CheckpointError("hash_mismatch", f"The weights in {source} are not those that its card names.")
        (temporary / "card.json").write_text(_card_text(card), "utf-8")
        _publish(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return card


def _publish(temporary: Path, folder: Path) -> None:
    """A finished folder to its place, safe from a loss of power."""
    for path in temporary.iterdir():
        path.chmod(0o644)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    temporary.chmod(0o755)
    temporary.rename(folder)


def update_card(folder: Path, card: Card) -> None:
    """Replaces the card of a complete checkpoint, atomically; its weights must be the ones that are there.

    Raises CheckpointError `hash_mismatch`.
    """
    if card.weights_sha256 != sha256_file(folder / "weights.safetensors"):
        raise CheckpointError("hash_mismatch", f"The card does not belong to the weights in {folder}.")
    temporary = folder / ".card.json.partial"
    temporary.write_text(_card_text(card), "utf-8")
    temporary.replace(folder / "card.json")


def _card_text(card: Card) -> str:
    return json.dumps(card.to_json(), indent=1, ensure_ascii=False) + "\n"


def read_card(folder: Path) -> Card:
    """The card alone, without loading weights. Raises CheckpointError `not_found` or `bad_card`."""
    path = folder / "card.json"
    if not path.is_file():
        raise CheckpointError("not_found", f"{folder} holds no card.json: it is not a checkpoint folder.")
    try:
        data = json.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError("bad_card", f"{path} is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise CheckpointError("bad_card", f"{path} is not a JSON object.")
    return Card.from_json(data)


def find_checkpoint(name: str, registries: Sequence[Path] = (BUNDLED,)) -> Path:
    """The folder of a checkpoint: `name` is the id in a card, looked up in folders of checkpoints, or such a folder.

    Raises CheckpointError `not_found`, `bad_card`.
    """
    known = []
    for registry in registries:
        for path in sorted(registry.glob("*/card.json")):
            try:
                known.append(read_card(path.parent).id)
            except CheckpointError:
                continue
            if known[-1] == name:
                return path.parent
    if Path(name).is_dir():
        read_card(Path(name))
        return Path(name)
    choice = ", ".join(known) or "none at all"
    raise CheckpointError("not_found", f"“{name}” is neither a checkpoint folder nor the id of one: {choice}.")


def load_checkpoint(folder: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Loads and verifies a checkpoint.

    Raises CheckpointError `not_found`, `bad_card`, `too_large`, `hash_mismatch`, `bad_weights`.
    """
    card = read_card(folder)
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise CheckpointError("not_found", f"{folder} holds no weights.safetensors.")
    if path.stat().st_size > MAX_WEIGHTS_BYTES:
        raise CheckpointError("too_large", f"{path} is larger than a DenseNet-121 can be.")
    if sha256_file(path) != card.weights_sha256:
        raise CheckpointError("hash_mismatch", f"The weights in {folder} are not those that its card names.")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise CheckpointError("bad_weights", f"{path} is not a safetensors file: {error}.") from error
    network = build_network(seed=0, channels=card.preprocessing.channels, rescaled=THRESHOLDS in weights)
    expected = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    wrong = [k for k in expected if k not in weights or weights[k].shape != expected[k].shape]
    wrong += [k for k in weights if k not in expected]
    if wrong:
        raise CheckpointError("bad_weights", f"{path}: {len(wrong)} weights do not fit DenseNet-121, first {wrong[0]}.")
    if THRESHOLDS in weights and not bool(((weights[THRESHOLDS] > 0) & (weights[THRESHOLDS] < 1)).all()):
        raise CheckpointError("bad_weights", f"{path}: an operating point in {THRESHOLDS} is not within 0 and 1.")
    network.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    network.eval().requires_grad_(False)
    return Checkpoint(card, network.to(device), torch.device(device))
