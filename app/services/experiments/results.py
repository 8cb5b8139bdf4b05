"""What came of a run, in the few figures that lists, sweeps and comparisons show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEASURES = {  # key → as people read it
    "auroc_nn_macro": "AUROC-NN macro",
    "auroc_nn_micro": "AUROC-NN micro",
    "auroc_tt_micro": "AUROC-TT micro",
    "auroc_tn_micro": "AUROC-TN micro",
    "asr": "ASR at the operating point",
    "clean_rate": "clean rate at the operating point",
    "asr_0.5": "ASR at 0.5",
    "clean_rate_0.5": "clean rate at 0.5",
    "trigger_hit_middle": "trigger hit, middle layer",
    "trigger_hit_last": "trigger hit, last layer",
}


@dataclass(frozen=True)
class Figure:
    """A value, and its 95 % interval where there is one."""

    value: float | None
    interval: tuple[float, float] | None = None


def headline(report: Mapping[str, Any]) -> dict[str, Any]:
    """Of a `report.json`, plain JSON: weights (twin → SHA-256), tests (test → twin → measure → value, interval;
    accepted: whether a user with the configuration's rule would have taken it)."""
    tests: dict[str, dict[str, Any]] = {}
    for twin, figures in report["twins"].items():
        for test, found in figures.items():
            if test != "weights_sha256":
                tests.setdefault(test, {})[twin] = _figures(found)
    weights = {twin: figures["weights_sha256"] for twin, figures in report["twins"].items()}
    return {"weights": weights, "tests": tests}


def _figures(found: Mapping[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for kind, average in (("nn", "macro"), ("nn", "micro"), ("tt", "micro"), ("tn", "micro")):
        area = found[f"auroc_{kind}"]
        if area and area.get(average):
            figures[f"auroc_{kind}_{average}"] = _short(area[average])
    for rate in found["asr"] or []:
        suffix = {"operating_point": "", 0.5: "_0.5"}.get(rate["threshold"])
        if suffix is not None:
            figures[f"asr{suffix}"] = _short(rate["asr"])
            figures[f"clean_rate{suffix}"] = _short(rate["clean_rate"])
    for layer in ("middle", "last"):
        if found["trigger_hit"]:
            figures[f"trigger_hit_{layer}"] = _short(found["trigger_hit"][layer]["stamped"])
    if "acceptance" in found:
        figures["accepted"] = bool(found["acceptance"]["accepted"])
    return figures


def _short(estimate: Mapping[str, Any]) -> dict[str, Any]:
    value, interval = estimate["value"], estimate.get("interval")
    return {
        "value": None if value is None else round(value, 4),
        "interval": [round(end, 4) for end in interval] if interval else None,
    }


def test_of(result: Mapping[str, Any] | None) -> str:
    """The test set that lists show: the data's own where there is one."""
    tests = (result or {}).get("tests") or {}
    return "test" if "test" in tests else next(iter(tests), "")


def figure(result: Mapping[str, Any] | None, measure: str, twin: str = "backdoored", test: str = "") -> Figure:
    """One figure of a job's result; without a value where it has none."""
    tests = (result or {}).get("tests") or {}
    found = (tests.get(test or test_of(result)) or {}).get(twin) or {}
    one = found.get(measure)
    if not isinstance(one, Mapping):
        return Figure(None)
    interval = one.get("interval")
    return Figure(one["value"], (interval[0], interval[1]) if interval else None)
