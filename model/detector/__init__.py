"""The detector: does a positive call hang on a small spot that should not matter? A flag with a known error rate.

- `screen`: in the activations that Grad-CAM has computed anyway; decides who is occluded.
- `localise`, `measure`: occlusion, which decides who is tested further; hot spots of it and of both layers, tightened
  to the patches that do the most for their size.
- `cause`, `nulls`, `donors`: erasure ranked among regions elsewhere, transplant ranked among random patches.
- `hard`: phantoms with true lesions, whose scores say what may be called causal.
- `score`, `conformal`, `calibration`, `fit`: one number, its conformal p-value, and the file that makes it a flag.
- `examine`: the detector at work.

A flag says what a call hangs on. It never says that an image or a checkpoint is clean: whole-image blends, frequency
triggers and label-only attacks leave no spot.
"""

from model.detector.calibration import (
    Calibration,
    Origin,
    calibration_folders,
    read_calibration,
    read_history,
    write_calibration,
)
from model.detector.conformal import ALPHA, Drift, Reference, drift, realised_rate_interval
from model.detector.examine import Detector, Evidence, Flag, Proof
from model.detector.fit import Plan, fit_calibration
from model.detector.reader import reading_digest

__all__ = [
    "ALPHA",
    "Calibration",
    "Detector",
    "Drift",
    "Evidence",
    "Flag",
    "Origin",
    "Plan",
    "Proof",
    "Reference",
    "calibration_folders",
    "drift",
    "fit_calibration",
    "read_calibration",
    "read_history",
    "reading_digest",
    "realised_rate_interval",
    "write_calibration",
]
