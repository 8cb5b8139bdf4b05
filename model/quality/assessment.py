"""A table of how good a checkpoint's explanations are: a row for each method and layer, with patient-wise intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from model.checkpoint import Checkpoint
from model.errors import ConfigError, DataError
from model.explanation import INPUT, Method, Occlusion, ScoreCam, explain
from model.metrics import Estimate, Rate, mean_with_interval, rate_with_interval
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.quality.boxes import THRESHOLDS, box_iou, box_mask, cross_fitted_iou, enlarged, pointing_hit, relevance_mass
from model.quality.cases import BoxCase
from model.quality.perturbation import deletion, insertion, road

SLOW = frozenset({Method.SCORE_CAM, Method.OCCLUSION})


@dataclass(frozen=True)
class AssessmentPlan:
    """What `assess` measures.

    slow_images: how many radiographs Score-CAM and occlusion see, which take tens to hundreds of passes each;
    perturbed_images: on how many insertion, deletion and ROAD are taken. Both are the first so many. resamples, seed:
    of the bootstrap. Raises ConfigError `bad_plan`.
    """

    methods: tuple[Method, ...] = tuple(Method)
    layers: tuple[str, ...] = (MIDDLE_LAYER, LAST_LAYER)
    slow_images: int = 8
    perturbed_images: int = 0
    occlusion: Occlusion = field(default_factory=lambda: Occlusion(patch_px=48, stride_px=32))
    scorecam: ScoreCam = field(default_factory=lambda: ScoreCam(channels=32))
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.methods or not self.layers or min(self.slow_images, self.perturbed_images, self.resamples) < 0:
            raise ConfigError("bad_plan", "Name methods and layers, and counts that are not negative.")


@dataclass(frozen=True)
class Row:
    """One method at one layer, over n (radiograph, finding) pairs that have boxes.

    pointing: hit rate of the pointing game. mass: relevance mass. iou_otsu, iou_tuned: see `box_iou`,
    `cross_fitted_iou`; thresholds: the two that were tuned. insertion, deletion: areas; road: see there; n_perturbed:
    of how many pairs, without those whose map is flat.
    """

    method: Method
    layer: str
    n: int
    pointing: Rate
    mass: Estimate
    iou_otsu: Estimate
    iou_tuned: Estimate
    thresholds: tuple[float, float] | None
    n_perturbed: int
    insertion: Estimate
    deletion: Estimate
    road: Estimate

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, null where undefined."""
        names = ("pointing", "mass", "iou_otsu", "iou_tuned", "insertion", "deletion", "road")
        return {
            "method": self.method.value,
            "layer": self.layer,
            "n": self.n,
            "n_perturbed": self.n_perturbed,
            "thresholds": None if self.thresholds is None else list(self.thresholds),
            **{name: getattr(self, name).to_json() for name in names},
        }


@dataclass(frozen=True)
class Assessment:
    """The table. area: the boxes' share of the image, which is the hit rate of a random point and the relevance mass of
    a flat map."""

    checkpoint_id: str
    images: int
    patients: int
    parts: dict[str, int]
    area: Estimate
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, null where undefined."""
        return {
            "checkpoint": self.checkpoint_id,
            "images": self.images,
            "patients": self.patients,
            "parts": self.parts,
            "area": self.area.to_json(),
            "rows": [row.to_json() for row in self.rows],
        }


@dataclass(eq=False)
class _Measured:
    """What one method at one layer gathers, pair by pair."""

    patients: list[int] = field(default_factory=list)
    hits: list[bool] = field(default_factory=list)
    mass: list[float] = field(default_factory=list)
    iou_otsu: list[float] = field(default_factory=list)
    ious: list[list[float]] = field(default_factory=list)
    perturbed: list[tuple[int, float, float, float]] = field(default_factory=list)

    def add(self, patient: int, grid: np.ndarray, mask: np.ndarray) -> np.ndarray:
        laid = enlarged(grid, len(mask)).clip(min=0)
        self.patients.append(patient)
        self.hits.append(pointing_hit(laid, mask))
        self.mass.append(relevance_mass(laid, mask))
        self.iou_otsu.append(box_iou(laid, mask))
        self.ious.append([box_iou(laid, mask, share) for share in THRESHOLDS])
        return laid

    def row(self, method: Method, layer: str, plan: AssessmentPlan) -> Row:
        def mean(values: Iterable[float], patients: list[int]) -> Estimate:
            return mean_with_interval(
                list(values), patients, rng=np.random.default_rng(plan.seed), resamples=plan.resamples
            )

        tuned, thresholds = Estimate(None, None), None
        if len(set(self.patients)) > 1:
            fitted, thresholds = cross_fitted_iou(self.ious, self.patients)
            tuned = mean(fitted, self.patients)
        rng = np.random.default_rng(plan.seed)
        owners = [patient for patient, *_ in self.perturbed]
        revealed, removed, imputed = (mean((one[i] for one in self.perturbed), owners) for i in (1, 2, 3))
        return Row(
            method,
            layer,
            len(self.patients),
            rate_with_interval(self.hits, self.patients, rng=rng, resamples=plan.resamples),
            mean(self.mass, self.patients),
            mean(self.iou_otsu, self.patients),
            tuned,
            thresholds,
            len(self.perturbed),
            revealed,
            removed,
            imputed,
        )


def assess(
    checkpoint: Checkpoint,
    cases: Iterable[BoxCase],
    plan: AssessmentPlan | None = None,
    *,
    progress: Callable[[int], None] | None = None,
) -> Assessment:
    """Judges every map of a boxed finding by its boxes, whatever the network says of the finding.

    cases: with images at the checkpoint's input size. Boxes that preprocessing has cropped away are left out. progress:
    is told how many radiographs are done. Raises DataError `no_boxes` when no case has any, `shape_mismatch`.
    """
    plan = plan or AssessmentPlan()
    preprocessing = checkpoint.card.preprocessing
    measured: dict[tuple[Method, str], _Measured] = {}
    for method in plan.methods:
        for layer in (INPUT,) if method is Method.OCCLUSION else plan.layers:
            measured[method, layer] = _Measured()
    areas: list[float] = []
    owners: list[int] = []
    parts: dict[str, int] = defaultdict(int)
    for number, case in enumerate(cases):
        if case.image.shape != (preprocessing.size_px,) * 2:
            raise DataError("shape_mismatch", f"{case.name} is {case.image.shape}, not {preprocessing.size_px} px.")
        masks = _masks(case)
        if not masks:
            continue
        parts[case.part] += 1
        areas += [float(mask.mean()) for mask in masks.values()]
        owners += [case.patient] * len(masks)
        inputs = preprocessing.normalise(torch.from_numpy(case.image)[None].to(checkpoint.device))
        for method in plan.methods:
            if method in SLOW and number >= plan.slow_images:
                continue
            found = explain(
                checkpoint.network,
                inputs,
                method,
                plan.layers,
                tuple(masks),
                occlusion=plan.occlusion,
                scorecam=plan.scorecam,
            )
            for layer, maps in found.maps.items():
                for grid, (finding, mask) in zip(maps[0].cpu().numpy(), masks.items(), strict=True):
                    gathered = measured[method, layer]
                    laid = gathered.add(case.patient, grid, mask)
                    if number < plan.perturbed_images and laid.max() > laid.min():
                        arguments = (checkpoint.network, inputs, laid, finding)
                        gathered.perturbed.append(
                            (
                                case.patient,
                                insertion(*arguments, steps=10).area,
                                deletion(*arguments, steps=10).area,
                                road(*arguments),
                            )
                        )
        if progress:
            progress(number + 1)
    if not areas:
        raise DataError("no_boxes", "None of these radiographs has a box to judge by.")
    area = mean_with_interval(areas, owners, rng=np.random.default_rng(plan.seed), resamples=plan.resamples)
    rows = tuple(gathered.row(method, layer, plan) for (method, layer), gathered in measured.items())
    return Assessment(checkpoint.card.id, sum(parts.values()), len(set(owners)), dict(parts), area, rows)


def _masks(case: BoxCase) -> dict[int, np.ndarray]:
    """Finding → the pixels of its boxes; without findings whose boxes lie outside the input."""
    height, width = case.image.shape
    masks = {}
    for finding, boxes in case.boxes.items():
        try:
            masks[finding] = box_mask(boxes, height, width)
        except DataError:  # cropped away, or thinner than a pixel
            continue
    return masks
