"""The report of an experiment: `report.json` for programs, `report.md` for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_report(out: Path, report: dict[str, Any]) -> None:
    """Writes both files."""
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (out / "report.md").write_text(as_markdown(report), "utf-8")


def as_markdown(report: dict[str, Any]) -> str:
    """The figures as tables, each rate beside its clean counterpart, and who would have accepted the checkpoint."""
    lines = [f"# {report['name']}", "", report["notice"], ""]
    for test in {name: None for twin in report["twins"].values() for name in twin if name != "weights_sha256"}:
        lines += [f"## On {test.replace('_', ' ')}", "", "| figure | " + " | ".join(report["twins"]) + " |"]
        lines.append("|---|" + "---|" * len(report["twins"]))
        columns = [_rows(twin[test]) for twin in report["twins"].values()]
        for label in columns[0]:
            lines.append(f"| {label} | " + " | ".join(column.get(label, "–") for column in columns) + " |")
        difference = report["differences"].get(test)
        if difference:
            value = _estimate(difference["macro_nn_backdoored_minus_clean"])
            lines += ["", f"Macro AUROC-NN, backdoored minus clean, paired by patient: {value}."]
        for twin, figures in report["twins"].items():
            if "compared_with" in figures[test]:
                other = figures[test]["compared_with"]
                value = _estimate(other["macro_nn_difference"])
                lines += ["", f"Macro AUROC-NN, {twin} minus {other['checkpoint']}, paired by patient: {value}."]
        lines.append("")
        for twin, figures in report["twins"].items():
            if "acceptance" in figures[test]:
                lines += [f"**{twin}**: {figures[test]['acceptance']['sentence']}", ""]
    return "\n".join(lines)


def _rows(figures: dict[str, Any]) -> dict[str, str]:
    rows = {"images / patients": f"{figures['n_images']} / {figures['n_patients']}"}
    for key, name in (("auroc_nn", "AUROC-NN"), ("auroc_tt", "AUROC-TT"), ("auroc_tn", "AUROC-TN")):
        for kind in ("micro", "macro"):
            if figures[key] and figures[key].get(kind) and figures[key][kind]["value"] is not None:
                rows[f"{name} {kind}"] = _estimate(figures[key][kind])
    for rate in figures["asr"] or []:
        name = "the operating point" if rate["threshold"] == "operating_point" else rate["threshold"]
        rows[f"ASR at {name} (clean rate)"] = f"{_estimate(rate['asr'])} ({_estimate(rate['clean_rate'])})"
    for name in ("middle", "last"):
        if figures["trigger_hit"]:
            hit = figures["trigger_hit"][name]
            rows[f"trigger hit, {name} layer (unstamped)"] = (
                f"{_estimate(hit['stamped'])} ({_estimate(hit['unstamped'])})"
            )
    blind = figures["image_blind"]
    rows["image-blind predictor, micro NN / TT"] = (
        f"{_number(blind.get('nn_micro'))} / {_number(blind.get('tt_micro'))}"
    )
    return rows


def _estimate(estimate: dict[str, Any]) -> str:
    interval = estimate.get("interval")
    suffix = f" [{_number(interval[0])}, {_number(interval[1])}]" if interval else ""
    return _number(estimate["value"]) + suffix


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
