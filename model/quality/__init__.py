"""How good a saliency map is: against boxes that people drew, against the network itself, and against chance.

- `boxes`: pointing game, relevance mass, IoU at Otsu's and at a tuned threshold. Pure functions on arrays.
- `perturbation`: insertion, deletion and ROAD: does the network need what the map points at?
- `sanity`: cascading weight randomisation: does the map depend on what the network has learned?
- `cases`, `assessment`: the radiographs with boxes, and a table with intervals over them.
"""

from model.quality.assessment import Assessment, AssessmentPlan, Row, assess
from model.quality.boxes import (
    box_iou,
    box_mask,
    cross_fitted_iou,
    enlarged,
    iou,
    otsu_threshold,
    pointing_hit,
    relevance_mass,
    tuned_threshold,
)
from model.quality.cases import BoxCase, dataset_cases, phantom_cases
from model.quality.perturbation import Curve, deletion, insertion, road
from model.quality.sanity import CASCADE, SanityStep, cascade, rank_correlation, sanity_check, ssim

__all__ = [
    "CASCADE",
    "Assessment",
    "AssessmentPlan",
    "BoxCase",
    "Curve",
    "Row",
    "SanityStep",
    "assess",
    "box_iou",
    "box_mask",
    "cascade",
    "cross_fitted_iou",
    "dataset_cases",
    "deletion",
    "enlarged",
    "insertion",
    "iou",
    "otsu_threshold",
    "phantom_cases",
    "pointing_hit",
    "rank_correlation",
    "relevance_mass",
    "road",
    "sanity_check",
    "ssim",
    "tuned_threshold",
]
