"""One radiograph read by some checkpoints: the same code behind the page, the API and the command line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

import model
from app.inference import LAYERS, Examination, InferenceEngine, Listed, RawReading, Role, State, calibration_version
from app.schemas import (
    Analysis,
    CheckpointRef,
    FindingReading,
    Flag,
    ImageInfo,
    LayerInfo,
    SaliencyRef,
    TestLevel,
)
from app.services.errors import BusyError
from app.services.flags import flag_of, owes_test, with_flags
from model.checkpoint import Card
from model.detector import Calibration
from model.detector import Flag as Word
from model.detector.words import NO_EVIDENCE
from model.findings import FINDINGS
from model.radiograph import Radiograph

_DECIDES_NUMBERS = (
    "checkpoint",
    "datasets",  # with the phantoms, the donors
    "detector",
    "findings",
    "inference",
    "network",
    "phantom",
    "preprocess",
    "radiograph",
    "saliency",
    "vision",
    "words",
)


@dataclass(frozen=True, eq=False)
class Reading:
    """An analysis and the grids behind it. saliency: by `middle` and `last`, 14×h×w float32, un-normalised.

    fingerprint: of the card and the calibration that read. screened: whether the detector has given its quick word.
    """

    analysis: Analysis
    fingerprint: str
    saliency: dict[Role, np.ndarray]
    screened: bool


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


def fingerprint(card: Card, calibration: Calibration | None = None) -> str:
    """Everything but the image that decides a reading: weights, code, preprocessing, operating points, layers, and the
    detector's calibration.

    Two readings of one image are the same reading if, and only if, their fingerprints are equal.
    """
    parts = {
        "weights": card.weights_sha256,
        "code": code_version(),
        "checkpoint": card.id,
        "preprocessing": card.preprocessing.to_json(),
        "operating_points": dict(card.operating_points),
        "layers": LAYERS,
        "calibration": calibration_version(calibration) if calibration else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def analysis_id(image_sha256: str, card: Card, calibration: Calibration | None = None) -> str:
    """Content address of a reading: the image, and the fingerprint of what read."""
    return hashlib.sha256(f"{image_sha256} {fingerprint(card, calibration)}".encode()).hexdigest()[:32]


def fingerprint_of(listed: Listed) -> str:
    """Of what reads under an entry of the registry now; empty where its card cannot be read."""
    return fingerprint(listed.card, listed.calibration) if listed.card else ""


def default_checkpoints(engine: InferenceEngine, pair: tuple[str, str]) -> list[str]:
    """What reads when nobody chooses: the usable ones of the pair, or everything where there is no pair.

    A broken one must not hide the other's reading; when both are broken they are named, so that the reason is said.
    """
    states = {listed.id: listed.state for listed in engine.checkpoints()}
    of_pair = [one for one in pair if one in states]
    return [one for one in of_pair if states[one] is not State.FAILED] or of_pair or list(states)


def read(
    engine: InferenceEngine, radiograph: Radiograph, checkpoint_ids: Sequence[str], test: TestLevel = "screen"
) -> list[Reading]:
    """Computes an analysis for each checkpoint. test: `full` makes every full test that the screen asks for.

    Raises what InferenceEngine.read and examine raise.
    """
    grey = radiograph.grey()
    readings = [to_reading(radiograph, raw) for raw in engine.read(grey, checkpoint_ids, test != "none")]
    return [tested(engine, radiograph, one) for one in readings] if test == "full" else readings


def tested(engine: InferenceEngine, radiograph: Radiograph, reading: Reading) -> Reading:
    """The same with every flag final, where the screen asked for a full test. Raises what `engine.examine` raises."""
    if not owes_test(reading.analysis):
        return reading
    found = engine.examine(reading.analysis.checkpoint.id, radiograph.grey(), lambda: None)
    return replace(reading, analysis=with_flags(reading.analysis, final_flags(reading.analysis, found)))


def final_flags(analysis: Analysis, found: Examination) -> dict[str, Flag]:
    """What a full test says of an analysis' positive findings.

    One that was positive in a batch and is not alone, by the last digit of its probability, has nothing to be tested:
    it is final, as of a radiograph without a positive finding.
    Raises BusyError `recalibrated` for a test that was made with another calibration than the analysis.
    """
    if analysis_id(analysis.image_sha256, found.card, found.calibration) != analysis.analysis_id:
        raise BusyError("recalibrated", "The detector has been calibrated anew this moment; try again.", 1)
    words: dict[str, Word] = dict(found.flags)
    flags = {one.name: flag_of(words[one.name], analysis.image) for one in analysis.findings if one.name in words}
    nothing = {"state": "final", "verdict": "no_evidence", "score": 1.0, "sentence": NO_EVIDENCE}
    for one in analysis.findings:
        if one.name not in words and one.flag is not None and one.flag.state in ("screened", "testing"):
            flags[one.name] = one.flag.model_copy(update=nothing)
    return flags


def to_reading(radiograph: Radiograph, raw: RawReading) -> Reading:
    """A network's numbers as an analysis."""
    height, width = radiograph.pixels.shape
    card = raw.card
    key = analysis_id(radiograph.sha256, card, raw.calibration)
    image = ImageInfo(width_px=width, height_px=height, input_map=asdict(card.preprocessing.input_map(height, width)))
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
                flag=_flag(raw.flags, name, image) if positive else None,
            )
        )
    analysis = Analysis(
        analysis_id=key,
        instance_id=instance_id(radiograph.sha256),
        image_sha256=radiograph.sha256,
        image=image,
        checkpoint=CheckpointRef(id=card.id, weights_sha256=card.weights_sha256),
        layers={role: LayerInfo(name=layer, grid=_grid(saliency[role])) for role, layer in LAYERS.items()},
        findings=findings,
        code_version=code_version(),
    )
    return Reading(analysis, fingerprint(card, raw.calibration), saliency, raw.flags is not None)


def _flag(flags: Mapping[str, Word] | None, name: str, image: ImageInfo) -> Flag:
    return Flag(state="not_tested") if flags is None else flag_of(flags[name], image)


def _grid(maps: np.ndarray) -> tuple[int, int]:
    return int(maps.shape[1]), int(maps.shape[2])


def saliency_url(key: str, role: str, finding: str) -> str:
    """Where the server shows a map; relative to the server's root."""
    return f"/api/v1/analyses/{key}/saliency/{role}/{finding}"
