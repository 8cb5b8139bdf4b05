"""The loaded checkpoints, and the one thread that owns the device."""

from app.inference.batching import LAYERS, RawReading, Role
from app.inference.engine import InferenceEngine
from app.inference.examining import Examination, calibration_version
from app.inference.registry import Listed, State, scan

__all__ = [
    "LAYERS",
    "Examination",
    "InferenceEngine",
    "Listed",
    "RawReading",
    "Role",
    "State",
    "calibration_version",
    "scan",
]
