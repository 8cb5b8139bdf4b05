"""Calibrates the detector for a checkpoint: what clean radiographs score, through the whole pipeline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from model.checkpoint import Checkpoint
from model.datasets import Radiographs, input_images
from model.detector import donors, hard, nulls
from model.detector.calibration import Calibration, Origin, digest_of
from model.detector.conformal import ALPHA, SHARE_OCCLUDED, SHARE_TESTED, Reference, threshold_of
from model.detector.measure import Opened, locate, measure, open_radiograph
from model.detector.reader import Reader, positives, reading_digest
from model.detector.screen import screen
from model.errors import DataError
from model.findings import FINDINGS
from model.preprocess import Preprocessing
from model.saliency import gradcam

BINS = 5  # of the reliability diagrams
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Plan:
    """alpha: false-positive rate of a flag, per radiograph. share_occluded, share_tested: of all radiographs, whom the
    screen hands on, and of them whom occlusion does, who are tested in full; more than alpha. own_donors: patients of
    the data are the donors, and left out of the rest, where there are enough for both; else phantoms are. donor_seed,
    donor_pool, donor_count: so many are chosen of the first phantoms of a series. hard_seed, hard_count: so many
    phantoms with a finding are the hard negatives. null_sides_px: of the random patches that transplants are ranked
    among. Raises ValueError where more are to be tested than occluded.
    """

    alpha: float = ALPHA
    share_occluded: float = SHARE_OCCLUDED
    share_tested: float = SHARE_TESTED
    own_donors: bool = False
    donor_seed: int = donors.SEED
    donor_pool: int = donors.POOL
    donor_count: int = donors.COUNT
    hard_seed: int = hard.SEED
    hard_count: int = hard.COUNT
    null_sides_px: tuple[int, ...] = nulls.SIDES_PX

    def __post_init__(self) -> None:
        if not self.share_tested <= self.share_occluded <= 1:
            raise ValueError("who is tested is among those occluded")


def fit_calibration(
    checkpoint: Checkpoint,
    radiographs: Radiographs,
    plan: Plan | None = None,
    *,
    data: str,
    made_by: str = "",
    code_version: str = "",
    history: Sequence[Mapping[str, Any]] = (),
    progress: Progress | None = None,
) -> Calibration:
    """Reads clean radiographs, of patients whom the checkpoint has not been trained on and who are in no test.

    data: the data set's name, for the record. history: summaries of the calibrations that this one replaces, newest
    first. progress gets (stage, done, total). Raises DataError `no_radiographs`, `unreadable_image`.
    """
    plan = plan or Plan()
    if not len(radiographs):
        raise DataError("no_radiographs", "There is no radiograph to calibrate on.")
    say = progress or (lambda _stage, _done, _total: None)
    began = time.monotonic()
    reader = Reader(checkpoint)
    images = _decoded(radiographs, checkpoint.card.preprocessing, say)
    say("Donors", 0, plan.donor_count)
    given: list[int] = []
    if plan.own_donors:
        least = math.ceil(1 / plan.alpha) - 1
        given, rest = donors.split_off_donors(radiographs, plan.donor_count, least, plan.donor_seed)
    if given:
        chosen = donors.donors_of(reader, images[given])
        radiographs, images = radiographs.take(rest), images[rest]
    else:
        chosen = donors.choose_donors(reader, plan.donor_seed, plan.donor_pool, plan.donor_count)
    digest = digest_of(radiographs.names, [image.tobytes() for image in images])
    greys = torch.from_numpy(images)
    falls, logits = _screen_all(reader, greys, say)
    spread = nulls.spread_of(logits)
    null = nulls.draw_nulls(
        reader, chosen, greys, spread, plan.null_sides_px, lambda done, total: say("Random patches", done, total)
    )
    falls /= null.unit
    reference = _reference(reader, plan, greys, falls, chosen, null, say)
    scores = _hard_scores(reader, plan, reference, chosen, null, say)
    reference = replace(reference, n_hard=plan.hard_count, hard=scores)
    origin = Origin(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        made_by=made_by,
        code_version=code_version,
        data=data,
        radiographs_sha256=digest,
        patients=len(set(radiographs.patients.tolist())),
        minutes=round((time.monotonic() - began) / 60, 1),
    )
    return Calibration(
        checkpoint_id=checkpoint.card.id,
        weights_sha256=checkpoint.card.weights_sha256,
        reading_sha256=reading_digest(checkpoint.card),
        reference=reference,
        nulls=null,
        donors=chosen.names,
        donor_pixels=chosen.pixels(),
        origin=origin,
        alpha=plan.alpha,
        share_occluded=plan.share_occluded,
        share_tested=plan.share_tested,
        reliability=reliability(1 / (1 + np.exp(-logits)), radiographs.labels),
        history=tuple(history),
    )


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> Mapping[str, Sequence[tuple[float, float, int]]]:
    """Of each finding, bins of as many radiographs: (mean probability, share that shows it, radiographs)."""
    found = {}
    for column, name in enumerate(FINDINGS):
        order = np.argsort(probabilities[:, column], kind="stable")
        found[name] = [
            (
                round(float(probabilities[rows, column].mean()), 4),
                round(float(labels[rows, column].mean()), 4),
                len(rows),
            )
            for rows in np.array_split(order, BINS)
            if len(rows)
        ]
    return found


def _decoded(radiographs: Radiographs, preprocessing: Preprocessing, say: Progress) -> np.ndarray:
    """N×S×S float32."""
    images = np.empty((len(radiographs), preprocessing.size_px, preprocessing.size_px), np.float32)
    for row, image in enumerate(input_images(radiographs, preprocessing)):
        images[row] = image
        say("Decoding", row + 1, len(radiographs))
    return images


def _reference(
    reader: Reader,
    plan: Plan,
    greys: torch.Tensor,
    falls: np.ndarray,
    chosen: donors.Donors,
    null: nulls.Nulls,
    say: Progress,
) -> Reference:
    """Full tests of every finding that the screen and then occlusion hand on; of each radiograph the largest of either
    number counts."""
    threshold = threshold_of(falls.max(axis=1).tolist(), plan.share_occluded)
    handed_on = np.flatnonzero(falls.max(axis=1) >= threshold).tolist()
    opened: dict[int, Opened] = {}
    occluded = np.full_like(falls, -np.inf)
    for done, row in enumerate(handed_on):
        say("Occluding", done, len(handed_on))
        one = open_radiograph(reader, greys[row])
        opened[row] = replace(one, image=greys[row])  # of thousands none is to stay on the device
        occluded[row] = np.where(falls[row] >= threshold, one.falls(null.unit), -np.inf)
    say("Occluding", len(handed_on), len(handed_on))
    largest_falls = occluded.max(axis=1)
    occlusion_threshold = threshold_of(largest_falls.tolist(), plan.share_tested)
    tested = np.flatnonzero(largest_falls >= occlusion_threshold).tolist()
    largest = []
    for done, row in enumerate(tested):
        say("Full tests", done, len(tested))
        again = replace(opened[row], image=greys[row].to(reader.device))
        several = []
        for finding in np.flatnonzero(occluded[row] >= occlusion_threshold).tolist():
            measured = measure(reader, chosen, null, again, finding)
            several.append((measured.score, measured.erasure_lead, measured.transplant_lead))
        largest.append(np.max(several, axis=0))
    say("Full tests", len(tested), len(tested))
    scores, erasures, transplants = (tuple(sorted(float(one[kind]) for one in largest)) for kind in range(3))
    return Reference(
        len(greys),
        threshold,
        scores,
        _of_positive(np.delete(falls.max(axis=1), handed_on)),
        erasures,
        transplants,
        occlusion_threshold=occlusion_threshold,
        occluded=_of_positive(np.delete(largest_falls, tested)),
    )


def _of_positive(falls: np.ndarray) -> tuple[float, ...]:
    """Ascending; −inf stands for who has no part in it."""
    return tuple(sorted(falls[np.isfinite(falls)].tolist()))


def _hard_scores(
    reader: Reader, plan: Plan, reference: Reference, chosen: donors.Donors, null: nulls.Nulls, say: Progress
) -> tuple[float, ...]:
    """The largest score of each hard negative that screen and occlusion hand on, ascending."""
    phantoms = hard.hard_negatives(plan.hard_count, plan.hard_seed)
    greys = torch.from_numpy(np.stack(list(input_images(phantoms, reader.preprocessing))))
    falls = _screen_all(reader, greys, lambda _stage, _done, _total: None)[0] / null.unit
    scores = []
    for row, fall in enumerate(falls):
        say("Hard negatives", row, len(falls))
        passed = fall >= reference.threshold
        if passed.any():
            opened = open_radiograph(reader, greys[row])
            passed &= opened.falls(null.unit) >= reference.occlusion_threshold
            several = [locate(reader, chosen, null, opened, f).score for f in np.flatnonzero(passed).tolist()]
            scores += [max(several)] if several else []
    say("Hard negatives", len(falls), len(falls))
    return tuple(sorted(scores))


def _screen_all(reader: Reader, images: torch.Tensor, say: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Falls in logits, N×14, −inf where not positive, and the logits, N×14."""
    falls, logits = [], []
    for start in range(0, len(images), reader.batch):
        inputs = reader.inputs(images[start : start + reader.batch])
        maps = gradcam(reader.checkpoint.network, inputs, keep_middle=True)
        falls.append(screen(reader.network, maps, positives(reader.checkpoint.card, maps)))
        logits.append(maps.logits.float().cpu().numpy())
        say("Screening", min(start + reader.batch, len(images)), len(images))
    return np.concatenate(falls), np.concatenate(logits)
