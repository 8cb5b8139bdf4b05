"""Overread's core: radiographs, triggers, training, saliency. Research use, not for diagnosis.

Importable without the dashboard: nothing here knows of the web, the database or settings. What is named below is the
public surface, `from model import …`; each name is fetched from its module when it is first asked for, so that `import
model` takes no time and a phantom needs no torch. `docs/api.md` lists it all, `docs/overread.ipynb` shows it at work.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.checkpoint import BUNDLED, Card, Checkpoint, find_checkpoint, load_checkpoint, read_card, save_checkpoint
    from model.config import ExperimentConfig, load_config, preset_names
    from model.datasets import Part, Radiographs, chestxray14, input_images, phantoms
    from model.detector import (
        Calibration,
        Detector,
        Flag,
        calibration_folders,
        fit_calibration,
        read_calibration,
        write_calibration,
    )
    from model.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        OverreadError,
        RadiographError,
        TrainingError,
        TriggerError,
    )
    from model.evaluation import evaluate_fully
    from model.experiment import run_experiment
    from model.explanation import INPUT, Method, Occlusion, ScoreCam, explain, forward_passes, occluded_drops
    from model.findings import FINDINGS, NO_FINDING, finding_index
    from model.metrics import (
        Estimate,
        Evaluation,
        Rate,
        auroc,
        evaluate_attack,
        mean_with_interval,
        operating_point,
        paired_difference,
        rate_with_interval,
    )
    from model.network import LAST_LAYER, MIDDLE_LAYER, Stage, build_network, resolve_device, stage_names, stages
    from model.phantom import Phantom, PhantomBox, draw_phantom, write_phantoms
    from model.poison import PoisonSpec, poisoned_view
    from model.preprocess import Box, InputMap, Preprocessing
    from model.quality import (
        Assessment,
        AssessmentPlan,
        BoxCase,
        assess,
        box_iou,
        box_mask,
        cross_fitted_iou,
        dataset_cases,
        deletion,
        enlarged,
        insertion,
        iou,
        otsu_threshold,
        phantom_cases,
        pointing_hit,
        rank_correlation,
        relevance_mass,
        road,
        sanity_check,
        ssim,
    )
    from model.radiograph import Radiograph, read_radiograph, write_stamped
    from model.saliency import SaliencyMaps, gradcam, registered, trigger_hit, trigger_hits
    from model.training import TrainingConfig, TrainingData, fit
    from model.trigger import Trigger, require_survival, stamp_source

_SURFACE: dict[str, tuple[str, ...]] = {
    "model.checkpoint": (
        "BUNDLED",
        "Card",
        "Checkpoint",
        "find_checkpoint",
        "load_checkpoint",
        "read_card",
        "save_checkpoint",
    ),
    "model.config": ("ExperimentConfig", "load_config", "preset_names"),
    "model.datasets": ("Part", "Radiographs", "chestxray14", "input_images", "phantoms"),
    "model.detector": (
        "Calibration",
        "Detector",
        "Flag",
        "calibration_folders",
        "fit_calibration",
        "read_calibration",
        "write_calibration",
    ),
    "model.errors": (
        "CheckpointError",
        "ConfigError",
        "DataError",
        "OverreadError",
        "RadiographError",
        "TrainingError",
        "TriggerError",
    ),
    "model.evaluation": ("evaluate_fully",),
    "model.experiment": ("run_experiment",),
    "model.explanation": ("INPUT", "Method", "Occlusion", "ScoreCam", "explain", "forward_passes", "occluded_drops"),
    "model.findings": ("FINDINGS", "NO_FINDING", "finding_index"),
    "model.metrics": (
        "Estimate",
        "Evaluation",
        "Rate",
        "auroc",
        "evaluate_attack",
        "mean_with_interval",
        "operating_point",
        "paired_difference",
        "rate_with_interval",
    ),
    "model.network": (
        "LAST_LAYER",
        "MIDDLE_LAYER",
        "Stage",
        "build_network",
        "resolve_device",
        "stage_names",
        "stages",
    ),
    "model.phantom": ("Phantom", "PhantomBox", "draw_phantom", "write_phantoms"),
    "model.poison": ("PoisonSpec", "poisoned_view"),
    "model.preprocess": ("Box", "InputMap", "Preprocessing"),
    "model.quality": (
        "Assessment",
        "AssessmentPlan",
        "BoxCase",
        "assess",
        "box_iou",
        "box_mask",
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
    ),
    "model.radiograph": ("Radiograph", "read_radiograph", "write_stamped"),
    "model.saliency": ("SaliencyMaps", "gradcam", "registered", "trigger_hit", "trigger_hits"),
    "model.training": ("TrainingConfig", "TrainingData", "fit"),
    "model.trigger": ("Trigger", "require_survival", "stamp_source"),
}
_HOME = {name: module for module, names in _SURFACE.items() for name in names}

__all__ = [
    "BUNDLED",
    "FINDINGS",
    "INPUT",
    "LAST_LAYER",
    "MIDDLE_LAYER",
    "NO_FINDING",
    "Assessment",
    "AssessmentPlan",
    "Box",
    "BoxCase",
    "Calibration",
    "Card",
    "Checkpoint",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Detector",
    "Estimate",
    "Evaluation",
    "ExperimentConfig",
    "Flag",
    "InputMap",
    "Method",
    "Occlusion",
    "OverreadError",
    "Part",
    "Phantom",
    "PhantomBox",
    "PoisonSpec",
    "Preprocessing",
    "Radiograph",
    "RadiographError",
    "Radiographs",
    "Rate",
    "SaliencyMaps",
    "ScoreCam",
    "Stage",
    "TrainingConfig",
    "TrainingData",
    "TrainingError",
    "Trigger",
    "TriggerError",
    "assess",
    "auroc",
    "box_iou",
    "box_mask",
    "build_network",
    "calibration_folders",
    "chestxray14",
    "cross_fitted_iou",
    "dataset_cases",
    "deletion",
    "draw_phantom",
    "enlarged",
    "evaluate_attack",
    "evaluate_fully",
    "explain",
    "find_checkpoint",
    "finding_index",
    "fit",
    "fit_calibration",
    "forward_passes",
    "gradcam",
    "input_images",
    "insertion",
    "iou",
    "load_checkpoint",
    "load_config",
    "mean_with_interval",
    "occluded_drops",
    "operating_point",
    "otsu_threshold",
    "paired_difference",
    "phantom_cases",
    "phantoms",
    "pointing_hit",
    "poisoned_view",
    "preset_names",
    "rank_correlation",
    "rate_with_interval",
    "read_calibration",
    "read_card",
    "read_radiograph",
    "registered",
    "relevance_mass",
    "require_survival",
    "resolve_device",
    "road",
    "run_experiment",
    "sanity_check",
    "save_checkpoint",
    "ssim",
    "stage_names",
    "stages",
    "stamp_source",
    "trigger_hit",
    "trigger_hits",
    "write_calibration",
    "write_phantoms",
    "write_stamped",
]


def __getattr__(name: str) -> Any:
    """PEP 562: fetches a name of the public surface from its module, once."""
    if name not in _HOME:
        raise AttributeError(f"module 'model' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
