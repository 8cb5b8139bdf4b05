"""One radiograph read by some checkpoints: the same code behind the page, the API and the command line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

import model
from app.inference import LAYERS, InferenceEngine, RawReading, Role, State
from app.schemas import Analysis, CheckpointRef, FindingReading, Flag, ImageInfo, LayerInfo, SaliencyRef
from model.checkpoint import Card
from model.findings import FINDINGS
from model.radiograph import Radiograph

_DECIDES_NUMBERS = ("checkpoint", "findings", "network", "preprocess", "radiograph", "saliency")


@dataclass(frozen=True, eq=False)
class Reading:
    """An analysis and the grids behind it. saliency: by `middle` and `last`, 14×h×w float32, un-normalised.

    fingerprint: of the card that read.
    """

    analysis: Analysis
    fingerprint: str
    saliency: dict[Role, np.ndarray]


@cache
def code_version() -> str:
    """Short hash over the source of everything that decides an analysis' numbers: it cannot be forgotten."""
    digest = hashlib.sha256()
    root = Path(model.__file__).parent
    for name in _DECIDES_NUMBERS:
        for path in sorted([*root.glob(f"{name}.py"), *root.glob(f"{name}/**/*.py")]):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def instance_id(image_sha256: str) -> str:
    """The same file is the same instance, on every machine."""
    return image_sha256[:32]


def fingerprint(card: Card) -> str:
    """Everything but the image that decides a reading: weights, code, preprocessing, operating points, layers.

    Two readings of one image are the same reading if, and only if, their fingerprints are equal.
    """
    parts = {
        "weights": card.weights_sha256,
        "code": code_version(),
        "checkpoint": card.id,
        "preprocessing": card.preprocessing.to_json(),
        "operating_points": dict(card.operating_points),
        "layers": LAYERS,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def analysis_id(image_sha256: str, card: Card) -> str:
    """Content address of a reading: the image, and the card's fingerprint."""
    return hashlib.sha256(f"{image_sha256} {fingerprint(card)}".encode()).hexdigest()[:32]


def default_checkpoints(engine: InferenceEngine, pair: tuple[str, str]) -> list[str]:
    """What reads when nobody chooses: the usable ones of the pair, or everything where there is no pair.

    A broken one must not hide the other's reading; when both are broken they are named, so that the reason is said.
    """
    states = {listed.id: listed.state for listed in engine.checkpoints()}
    of_pair = [one for one in pair if one in states]
    return [one for one in of_pair if states[one] is not State.FAILED] or of_pair or list(states)


def read(engine: InferenceEngine, radiograph: Radiograph, checkpoint_ids: Sequence[str]) -> list[Reading]:
    """Computes an analysis for each checkpoint. Raises what InferenceEngine.read raises."""
    raw = engine.read(radiograph.grey(), checkpoint_ids)
    return [to_reading(radiograph, one) for one in raw]


def to_reading(radiograph: Radiograph, raw: RawReading) -> Reading:
    """A network's numbers as an analysis."""
    height, width = radiograph.pixels.shape
    card = raw.card
    key = analysis_id(radiograph.sha256, card)
    saliency = {role: np.ascontiguousarray(raw.maps[layer], dtype="<f4") for role, layer in LAYERS.items()}
    findings = []
    for i, name in enumerate(FINDINGS):
        probability, threshold = float(raw.probabilities[i]), card.operating_points[name]
        positive = probability >= threshold
        maps = {
            role: SaliencyRef(url=saliency_url(key, role, name), peak=float(grids[i].max()))
            for role, grids in saliency.items()
        }
        findings.append(
            FindingReading(
                name=name,
                probability=probability,
                threshold=threshold,
                positive=positive,
                saliency=maps,
                flag=Flag() if positive else None,
            )
        )
    analysis = Analysis(
        analysis_id=key,
        instance_id=instance_id(radiograph.sha256),
        image_sha256=radiograph.sha256,
        image=ImageInfo(
            width_px=width, height_px=height, input_map=asdict(card.preprocessing.input_map(height, width))
        ),
        checkpoint=CheckpointRef(id=card.id, weights_sha256=card.weights_sha256),
        layers={role: LayerInfo(name=layer, grid=_grid(saliency[role])) for role, layer in LAYERS.items()},
        findings=findings,
        code_version=code_version(),
    )
    return Reading(analysis, fingerprint(card), saliency)


def _grid(maps: np.ndarray) -> tuple[int, int]:
    return int(maps.shape[1]), int(maps.shape[2])


def saliency_url(key: str, role: str, finding: str) -> str:
    """Where the server shows a map; relative to the server's root."""
    return f"/api/v1/analyses/{key}/saliency/{role}/{finding}"
