"""What makes scores into a flag: the calibration of one checkpoint, a JSON file bound to its weights.

It holds no pixels: donors are phantoms by seed or radiographs by hash, calibration radiographs are named by a hash.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.detector.conformal import (
    ALPHA,
    HARD_ALPHA,
    SHARE_OCCLUDED,
    SHARE_TESTED,
    Reference,
    allowed,
    realised_rate_interval,
)
from model.detector.donors import DonorNames, remove_other_donors, write_donors
from model.detector.nulls import Nulls
from model.errors import CheckpointError

FILE = "calibration.json"
VERSION = 1
DETECTOR = 9  # of the pipeline whose scores these are: another pipeline's calibration does not count


@dataclass(frozen=True)
class Origin:
    """Who calibrated, when and on what.

    made_at: UTC, ISO 8601. made_by: a name, may be empty. code_version: of Overread. data: the data set's name.
    radiographs_sha256: of the names and network inputs, in order. patients: how many. minutes: it took.
    """

    made_at: str
    made_by: str
    code_version: str
    data: str
    radiographs_sha256: str
    patients: int
    minutes: float = 0.0


@dataclass(frozen=True, eq=False)
class Calibration:
    """reading_sha256: of the card's preprocessing and operating points (`model.detector.reader.reading_digest`). alpha:
    the false-positive rate per radiograph that flags are meant to have. share_occluded, share_tested: of all
    radiographs, whom the screen hands on, and whom occlusion does. reliability: finding → bins of (mean probability,
    share that shows it, radiographs), as many in each. history: earlier calibrations' summaries, newest first.
    donor_pixels: N×S×S uint8 of donors that are radiographs, until they are written. folder: where it was read from,
    which is where those are.
    """

    checkpoint_id: str
    weights_sha256: str
    reading_sha256: str
    reference: Reference
    nulls: Nulls
    donors: DonorNames
    origin: Origin
    alpha: float = ALPHA
    share_occluded: float = SHARE_OCCLUDED
    share_tested: float = SHARE_TESTED
    detector: int = DETECTOR
    reliability: Mapping[str, Sequence[tuple[float, float, int]]] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = field(default=())
    donor_pixels: np.ndarray | None = None
    folder: Path | None = None

    @property
    def decides(self) -> bool:
        """Whether there are enough radiographs for a flag at alpha: 99 for 1 %."""
        return self.reference.decides(self.alpha)

    @property
    def score_threshold(self) -> float | None:
        """What the score of a full test must exceed to be flagged at alpha; None where nothing can be flagged, or where
        alpha is as large as the share that is tested."""
        k = allowed(self.reference.n, self.alpha)
        return max(0.0, self.reference.tested[-k]) if 1 <= k <= len(self.reference.tested) else None

    @property
    def causal_threshold(self) -> float | None:
        """What it must exceed to be called causal too, a score that true lesions reach; None where that is no more."""
        k, hard = allowed(self.reference.n_hard, HARD_ALPHA), self.reference.hard
        reached = hard[-k] if 1 <= k <= len(hard) else None
        return reached if reached is not None and reached > (self.score_threshold or 0) else None

    def summary(self) -> dict[str, Any]:
        """What a page lists: a version of the history."""
        low, high = realised_rate_interval(self.reference.n, self.alpha)
        return {
            **vars(self.origin),
            "n": self.reference.n,
            "alpha": self.alpha,
            "decides": self.decides,
            "realised_rate": [round(low, 4), round(high, 4)],
            "score_threshold": self.score_threshold,
            "causal_threshold": self.causal_threshold,
            "hard_negatives": self.reference.n_hard,
            "detector": self.detector,
            "donors": len(self.donors.rows) or len(self.donors.sha256),
            "donors_are_phantoms": self.donors.phantoms,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "version": VERSION,
            "detector": self.detector,
            "checkpoint": {
                "id": self.checkpoint_id,
                "weights_sha256": self.weights_sha256,
                "reading_sha256": self.reading_sha256,
            },
            "summary": self.summary(),
            "origin": vars(self.origin),
            "alpha": self.alpha,
            "share_occluded": self.share_occluded,
            "share_tested": self.share_tested,
            "n": self.reference.n,
            "screen_threshold": finite_or_none(self.reference.threshold),
            "occlusion_threshold": finite_or_none(self.reference.occlusion_threshold),
            "tested": list(self.reference.tested),
            "occluded": list(self.reference.occluded),
            "screened": list(self.reference.screened),
            "erasure": list(self.reference.erasure),
            "transplant": list(self.reference.transplant),
            "n_hard": self.reference.n_hard,
            "hard": list(self.reference.hard),
            "donors": self.donors.to_json(),
            "nulls": self.nulls.to_json(),
            "reliability": {name: [list(one) for one in bins] for name, bins in self.reliability.items()},
            "history": [dict(one) for one in self.history],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """Raises CheckpointError `bad_calibration`."""
        try:
            if data["version"] != VERSION:
                raise CheckpointError("bad_calibration", f"The calibration's version is not {VERSION}.")
            tested, screened, erasure, transplant, hard, occluded = (
                tuple(sorted(_number(v) for v in data[key]))
                for key in ("tested", "screened", "erasure", "transplant", "hard", "occluded")
            )
            threshold = math.inf if data["screen_threshold"] is None else _number(data["screen_threshold"])
            nobody = math.inf if data["screen_threshold"] is None else -math.inf
            occlusion = nobody if data["occlusion_threshold"] is None else _number(data["occlusion_threshold"])
            return cls(
                checkpoint_id=str(data["checkpoint"]["id"]),
                weights_sha256=str(data["checkpoint"]["weights_sha256"]),
                reading_sha256=str(data["checkpoint"]["reading_sha256"]),
                reference=Reference(
                    int(data["n"]),
                    threshold,
                    tested,
                    screened,
                    erasure,
                    transplant,
                    int(data["n_hard"]),
                    hard,
                    occlusion,
                    occluded,
                ),
                nulls=Nulls.from_json(data["nulls"]),
                donors=DonorNames.from_json(data["donors"]),
                origin=Origin(**data["origin"]),
                alpha=_share(data["alpha"]),
                share_occluded=_share(data["share_occluded"], most=1.0),
                share_tested=_share(data["share_tested"], most=1.0),
                detector=int(data["detector"]),
                reliability={
                    str(name): [(_number(p), _number(rate), int(n)) for p, rate, n in bins]
                    for name, bins in data["reliability"].items()
                },
                history=tuple(dict(one) for one in data["history"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError("bad_calibration", f"{FILE} is malformed: {error}.") from error


def calibration_folders(data_dir: Path, checkpoint: Path, weights_sha256: str) -> tuple[Path, Path]:
    """Where a checkpoint's calibration is looked for: an own one in the data folder, then the one it came with."""
    return data_dir / "calibrations" / weights_sha256, checkpoint


def read_calibration(
    folders: Sequence[Path], weights_sha256: str, reading_sha256: str | None = None
) -> Calibration | None:
    """The first calibration of these weights and of this pipeline in any of the folders; None where there is none.

    reading_sha256: where given, of a card that reads them so alone: with other operating points other findings are
    positive, and a radiograph's largest score is another.

    Raises CheckpointError `bad_calibration` for a file that cannot be read.
    """
    for folder in folders:
        path = folder / FILE
        if not path.is_file():
            continue
        try:
            data = json.loads(path.read_text("utf-8"), parse_constant=_finite, parse_float=_finite)
        except (ValueError, RecursionError) as error:  # of its bytes, its JSON or its numbers
            raise CheckpointError("bad_calibration", f"{path} is not JSON: {error}.") from error
        if isinstance(data, dict) and data.get("detector", DETECTOR) != DETECTOR:
            continue
        found = Calibration.from_json(data if isinstance(data, dict) else {})
        if found.weights_sha256 == weights_sha256 and reading_sha256 in (None, found.reading_sha256):
            return replace(found, folder=folder)
    return None


def read_history(folders: Sequence[Path], weights_sha256: str) -> tuple[Mapping[str, Any], ...]:
    """The summaries of the calibration of these weights and of those before it, newest first, whatever pipeline made
    them; of the first folder that has one, none where its file cannot be read."""
    for folder in folders:
        try:
            data = json.loads((folder / FILE).read_text("utf-8"), parse_constant=_finite, parse_float=_finite)
            if data["checkpoint"]["weights_sha256"] == weights_sha256:
                return tuple(dict(one) for one in (data["summary"], *data["history"]))
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            continue
    return ()


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Writes `calibration.json` whole or not at all, after the donors that it names. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    if calibration.donor_pixels is not None:
        write_donors(folder, calibration.donors, calibration.donor_pixels)
    path = folder / FILE
    temporary = folder / f".{FILE}.{os.getpid()}.partial"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(calibration.to_json(), file, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    remove_other_donors(folder, calibration.donors)
    return path


def finite_or_none(threshold: float) -> float | None:
    """A threshold as JSON has it: infinite is where nobody was asked."""
    return threshold if math.isfinite(threshold) else None


def _finite(text: str) -> float:
    """Python alone takes NaN and Infinity for JSON, and 1e999 for infinite; every comparison with NaN fails."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _number(value: object) -> float:
    """Of JSON. Raises ValueError for text too, which Python would read."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    return _finite(str(value))


def _share(value: object, most: float = 0.999) -> float:
    share = _number(value)
    if not 0 < share <= most:
        raise ValueError(f"{share} is not a share over 0, of {most} at most")
    return share


def digest_of(names: Sequence[str], inputs: Sequence[bytes]) -> str:
    """A hash of which radiographs these are, by name and by what the network sees of them."""
    digest = hashlib.sha256()
    for name, pixels in zip(names, inputs, strict=True):
        digest.update(f"{len(name)}:{name}".encode())
        digest.update(hashlib.sha256(pixels).digest())
    return digest.hexdigest()
