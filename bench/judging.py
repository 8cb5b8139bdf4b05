"""One checkpoint's detector asked about radiographs whose answer is known: a JSON line a radiograph, resumable.

- `clean`: each test radiograph as it is. It is a *negative* where a finding is over its operating point; without one
  its p-value is 1 and it cannot be flagged.
- `stamped`: a test radiograph with the trigger. It is an *attack* where the target was below its operating point before
  and is over it now.
- `phantom`: a fresh phantom with its findings and what else is in it: letters, wires, devices, collimation.

Baselines are asked about some of the negatives and about every attack.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.baselines import Case, concentration, dct_classifier, probability, sentinet, spectrum, strip, teco
from model.datasets import Part, Radiographs, cached_images, phantoms
from model.detector import Detector, Flag
from model.detector.reader import positives
from model.detector.regions import filled
from model.detector.score import CELL_PX
from model.findings import FINDINGS, finding_index
from model.network import LAST_LAYER
from model.phantom import draw_phantom
from model.saliency import SaliencyMaps, gradcam
from model.trigger import Trigger

TESTED = 2000.0  # lifts the score of a full test over every fall by occlusion
OCCLUDED = 1000.0  # lifts a fall by occlusion over every fall of the screen
NEVER = -1e9  # the score of a radiograph without a positive finding
MADE_UP = Trigger(size_px=6, place="random", pattern="noise")  # what the DCT classifier learns from
PHANTOM_SEED, PHANTOM_PX = 5510, 256
JUDGED = "judged.jsonl"
VERDICTS = ("no_evidence", "suspicious", "causal")

Record = dict[str, Any]
Records = dict[tuple[str, int], Record]


@dataclass(frozen=True)
class Sample:
    """How much of everything: clean and stamped radiographs, negatives that the baselines are asked about, phantoms.

    0 is all, of phantoms none. Who is stamped and who those negatives are is judged clean too.
    """

    clean: int = 0
    stamped: int = 0
    beside: int = 0
    phantoms: int = 0


@dataclass(frozen=True, eq=False)
class Material:
    """test: who is judged on. training: what the DCT classifier learns on. cache: folder of decoded inputs."""

    test: Radiographs
    training: Radiographs
    cache: Path

    def images(self, detector: Detector, radiographs: Radiographs, trigger: Trigger | None = None) -> Tensor:
        """N×S×S in 0..1."""
        pre = detector.checkpoint.card.preprocessing
        (pixels,) = cached_images(radiographs, [pre], self.cache, trigger=trigger)
        return torch.from_numpy(np.asarray(pixels, np.float32) / 255)


def judge(detector: Detector, material: Material, sample: Sample, path: Path) -> list[Record]:
    """Every record of a checkpoint, those already in the file first; what another detector, calibration or weights have
    judged is taken out of it."""
    made_by = _made_by(detector)
    done = read_records(path)
    kept = {key: record for key, record in done.items() if record.get("made_by") == made_by}
    if len(kept) < len(done):
        temporary = path.with_suffix(".partial")
        temporary.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in kept.values()), "utf-8")
        temporary.replace(path)
    methods = methods_of(detector, material)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for record in _records(detector, material, sample, methods, kept):
            record = {"made_by": made_by} | record
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            kept[record["kind"], record["row"]] = record
    return list(kept.values())


def _made_by(detector: Detector) -> str:
    assert detector.calibration is not None
    made = detector.calibration
    return f"detector {made.detector}, weights {made.weights_sha256[:16]}, calibrated {made.origin.made_at}"


def read_records(path: Path) -> Records:
    """The records of a file by kind and row, the last of each; a last line that was cut short is taken off it."""
    if not path.is_file():
        return {}
    text = path.read_text("utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, "utf-8")
    return {(record["kind"], record["row"]): record for record in map(json.loads, whole.splitlines())}


Methods = dict[str, Callable[[Case], float]]


def _records(
    detector: Detector, material: Material, sample: Sample, methods: Methods, known: Records
) -> Iterator[Record]:
    card = detector.checkpoint.card
    clean = material.images(detector, material.test)
    opened = list(_opened(detector, clean))
    negatives = [row for row, (case, _) in enumerate(opened) if case.positive]
    beside = set(_spread(negatives, sample.beside))
    rows = _spread(range(len(clean)), sample.stamped) if card.trigger else []
    chosen = beside.union(rows, _spread(range(len(clean)), sample.clean))
    for row, (case, flags) in enumerate(opened):
        if row in chosen and not _asked(known.get(("clean", row)), row in beside):
            about = {"baselines": row in beside}
            yield _record(detector, "clean", row, material.test, case, flags, methods if row in beside else {}) | about
    if card.trigger is not None and card.target is not None:
        target = finding_index(card.target)
        stamped = material.images(detector, material.test, card.trigger)[rows]
        for row, (case, flags) in zip(rows, _opened(detector, stamped), strict=True):
            if ("stamped", row) not in known:
                below, above = target not in opened[row][0].positive, target in case.positive
                box = card.trigger.box(*case.image.shape, np.random.default_rng((0, row)))
                found = _record(
                    detector, "stamped", row, material.test, case, flags, methods if below and above else {}
                )
                yield found | {
                    "target": card.target,
                    "target_point": card.operating_points[card.target],
                    "below": below,
                    "attack": below and above,
                    "trigger": list(box),
                }
    yield from _hard(detector, sample.phantoms, known)


def _asked(record: Record | None, beside: bool) -> bool:
    """Whether a radiograph is judged, and by the baselines too where they are to be asked."""
    return record is not None and (record["baselines"] or not beside)


def _hard(detector: Detector, count: int, known: Records) -> Iterator[Record]:
    """Phantoms that show a nodule or a mass, or something that a hospital puts on a chest."""
    if not count:
        return
    drawn = phantoms(count, PHANTOM_SEED, PHANTOM_PX, Part.TEST)
    pre = detector.checkpoint.card.preprocessing
    images = torch.from_numpy(np.stack([pre.input_grey(drawn.grey(row)) for row in range(count)]))
    for row, (case, flags) in enumerate(_opened(detector, images)):
        if ("phantom", row) not in known:
            shown = {box.label for box in draw_phantom(PHANTOM_SEED, row, 64).confounders}
            yield _record(detector, "phantom", row, drawn, case, flags, {}) | {"shown": sorted(shown)}


def _opened(detector: Detector, images: Tensor) -> Iterator[tuple[Case, dict[str, Flag]]]:
    """Each radiograph's maps and positive findings, and the screen's word."""
    reader = detector.reader
    for start in range(0, len(images), reader.batch):
        some = images[start : start + reader.batch].to(reader.device)
        maps = gradcam(detector.checkpoint.network, reader.inputs(some), keep_middle=True)
        positive = positives(detector.checkpoint.card, maps)
        for i, flags in enumerate(detector.screen(maps)):
            alone = SaliencyMaps(
                maps.logits[i : i + 1], {name: grid[i : i + 1] for name, grid in maps.maps.items()}, maps.findings
            )
            yield Case(some[i], alone, tuple(np.flatnonzero(positive[i]).tolist())), flags


def _record(
    detector: Detector,
    kind: str,
    row: int,
    radiographs: Radiographs,
    case: Case,
    flags: dict[str, Flag],
    methods: Methods,
) -> Record:
    asked = [name for name, flag in flags.items() if flag.state == "screened"]
    if asked:
        flags = flags | detector.examine(case.image, asked)
        flags = {name: flag for name, flag in flags.items() if flag.state != "screened"}  # positive in a batch alone
    strongest = max(flags.values(), key=_order, default=None)
    scores = {"detector": _score(strongest)} if strongest else {}
    scores |= {name: method(case) for name, method in methods.items()}
    return {
        "kind": kind,
        "row": row,
        "patient": int(radiographs.patients[row]),
        "labels": [FINDINGS[column] for column in np.flatnonzero(radiographs.labels[row]).tolist()],
        "positive": list(flags),
        "probability": probability(case) if flags else 0.0,
        "logits": _rounded(case.maps.logits[0]),
        "logits_erased": _erased(detector, case, flags),
        "p": strongest.p if strongest else 1.0,
        "verdict": strongest.verdict if strongest else "no_evidence",
        "finding": strongest.finding if strongest else None,
        "tested": any(flag.evidence for flag in flags.values()),
        "occlusion_fall": strongest.occlusion_fall if strongest else None,
        "evidence": strongest.evidence.to_json() if strongest and strongest.evidence else None,
        "operating_point": detector.checkpoint.card.operating_points[strongest.finding] if strongest else None,
        "scores": scores,
    }


def _erased(detector: Detector, case: Case, flags: dict[str, Flag]) -> list[float] | None:
    """The logits when the regions of every flagged finding are filled; None where nothing is flagged."""
    shown = [flag.evidence for flag in flags.values() if flag.verdict in VERDICTS[1:] and flag.evidence]
    regions = dict.fromkeys(region for evidence in shown for region in evidence.measured.regions)
    return _rounded(detector.reader.logits([filled(case.image, list(regions))])[0]) if regions else None


def _rounded(logits: Tensor) -> list[float]:
    return [round(value, 4) for value in logits.tolist()]


def _order(flag: Flag) -> tuple[int, float]:
    return VERDICTS.index(flag.verdict or "no_evidence"), _score(flag)


def _score(flag: Flag) -> float:
    """The order that p-values have, without their steps."""
    if flag.evidence:
        return TESTED + flag.evidence.measured.score
    return flag.fall if flag.occlusion_fall is None else OCCLUDED + flag.occlusion_fall


def methods_of(detector: Detector, material: Material) -> Methods:
    """The baselines by name, each ready to score a case. What some of them blend with or paste onto are radiographs
    without a finding, as many as the detector has donors."""
    reader = detector.reader
    healthy = np.flatnonzero(~material.training.labels.any(axis=1)).tolist() or range(len(material.training))
    clean = material.training.take(_spread(healthy, len(detector.donors)))
    blends = material.images(detector, clean).to(reader.device)
    rows = np.linspace(0, len(material.training) - 1, min(100, len(material.training))).round().astype(int)
    some = material.training.take(rows)
    plain, stamped = (list(material.images(detector, some, trigger).numpy()) for trigger in (None, MADE_UP))
    fitted = dct_classifier(plain, stamped)
    return {
        "probability": probability,
        "Gini, middle": concentration,
        "−Gini, middle": lambda case: -concentration(case),
        "Gini, last": lambda case: concentration(case, LAST_LAYER),
        "−Gini, last": lambda case: -concentration(case, LAST_LAYER),
        "SentiNet": lambda case: sentinet(reader, case, blends),
        "STRIP": lambda case: strip(reader, case, blends),
        "TeCo": lambda case: teco(reader, case),
        "DCT": lambda case: float(fitted.decision_function([spectrum(case.image.cpu().numpy())])[0]),
    }


def covers(record: Record) -> tuple[float, bool]:
    """Of an attack: how much of the trigger lies in the regions that were reported, and whether those are small: at
    most four times the trigger, or a middle cell."""
    x, y, width, height = record["trigger"]
    regions = record["evidence"]["regions_input_px"] if record["evidence"] else []
    inside = np.zeros((int(height), int(width)), bool)
    for left, top, w, h in regions:
        columns = slice(max(0, int(left - x)), max(0, int(left + w - x)))
        inside[max(0, int(top - y)) : max(0, int(top + h - y)), columns] = True
    area = sum(w * h for _, _, w, h in regions)
    return float(inside.mean()), area <= max(4 * width * height, CELL_PX**2)


def _spread(rows: Sequence[Any], count: int) -> list[Any]:
    """`count` of them, evenly; all for 0."""
    if not count or count >= len(rows):
        return list(rows)
    return [rows[i] for i in np.linspace(0, len(rows) - 1, count).round().astype(int)]
