"""The report as Markdown, and the wording of its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.checkpoint import NOTICE


def as_markdown(report: dict[str, Any]) -> str:
    """The figures as tables, each rate beside its clean counterpart, and who would have accepted the checkpoint."""
    lines = [f"# {report['name']}", "", report["notice"], ""]
    for test in {name: None for twin in report["twins"].values() for name in twin if name != "weights_sha256"}:
        lines += [f"## On {test.replace('_', ' ')}", "", "| figure | " + " | ".join(report["twins"]) + " |"]
        lines.append("|---|" + "---|" * len(report["twins"]))
        for label, cells in table(report, test).items():
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
        difference = report["differences"].get(test)
        if difference:
            value = in_words(difference["macro_nn_backdoored_minus_clean"])
            lines += ["", f"Macro AUROC-NN, backdoored minus clean, paired by patient: {value}."]
        for twin, figures in report["twins"].items():
            if "compared_with" in figures[test]:
                other = figures[test]["compared_with"]
                value = in_words(other["macro_nn_difference"])
                lines += ["", f"Macro AUROC-NN, {twin} minus {other['checkpoint']}, paired by patient: {value}."]
        lines.append("")
        for twin, figures in report["twins"].items():
            if "acceptance" in figures[test]:
                lines += [f"**{twin}**: {figures[test]['acceptance']['sentence']}", ""]
    if report.get("paper"):
        lines += _paper_lines(report["paper"])
    return "\n".join(lines)


def figure_markdown(paper: dict[str, Any]) -> str:
    """The figures and the hit-rate table of several runs."""
    return "\n".join(["# Where the twins look", "", NOTICE, "", *_paper_lines(paper)])


def _paper_lines(paper: dict[str, Any]) -> list[str]:
    lines = [f"{paper['radiograph']}.", ""]
    lines += [f"![{label}, rows: epochs]({names[0]})" for label, names in paper["figures"].items()]
    hits = paper["hit_rates"]
    if hits is None:
        return [*lines, ""]
    lines += ["", "## Which layer finds the trigger", "", *(f"- {sentence}" for sentence in hits["sentences"]), ""]
    return lines + hit_lines(hits)


def hit_lines(hits: dict[str, Any]) -> list[str]:
    """The hit-rate table (`model.experiment.hits`) in Markdown."""
    lines = ["| " + " | ".join(HIT_HEADER) + " |", "|" + "---|" * len(HIT_HEADER)]
    return [*lines, *("| " + " | ".join(hit_cells(row)) + " |" for row in hits["rows"]), ""]


HIT_HEADER = ("epoch", "run", "twin", "radiographs", "middle", "last", "middle − last, paired", "ahead")


def hit_cells(row: dict[str, Any]) -> list[str]:
    """One row of the hit-rate table, as its header says."""
    stamp = "stamped" if row["stamped"] else "unstamped"
    rates = [in_words(row[name]) for name in ("middle", "last", "middle_minus_last")]
    return [str(row["epoch"]), row["run"], row["twin"], stamp, *rates, row["ahead"]]


def table(report: Mapping[str, Any], test: str) -> dict[str, list[str]]:
    """The figures of one test set: their name → a cell for each twin."""
    columns = [figure_rows(twin[test]) for twin in report["twins"].values()]
    labels = {label: None for column in columns for label in column}
    return {label: [column.get(label, "–") for column in columns] for label in labels}


def figure_rows(figures: dict[str, Any]) -> dict[str, str]:
    """The figures of one checkpoint on one test set: name → value with its interval, in words."""
    rows = {"images / patients": f"{figures['n_images']} / {figures['n_patients']}"}
    if "n_triggered" in figures:
        rows["images that show the combination, not the target"] = str(figures["n_triggered"])
    for key, name in (("auroc_nn", "AUROC-NN"), ("auroc_tt", "AUROC-TT"), ("auroc_tn", "AUROC-TN")):
        for kind in ("micro", "macro"):
            if figures[key] and figures[key].get(kind) and figures[key][kind]["value"] is not None:
                rows[f"{name} {kind}"] = in_words(figures[key][kind])
    for rate in figures["asr"] or []:
        name = "the operating point" if rate["threshold"] == "operating_point" else rate["threshold"]
        rows[f"ASR at {name} (clean rate)"] = f"{in_words(rate['asr'])} ({in_words(rate['clean_rate'])})"
    for name in ("middle", "last"):
        if figures["trigger_hit"]:
            hit = figures["trigger_hit"][name]
            rows[f"trigger hit, {name} layer (unstamped)"] = (
                f"{in_words(hit['stamped'])} ({in_words(hit['unstamped'])})"
            )
    blind = figures["image_blind"]
    rows["image-blind predictor, micro NN / TT"] = f"{number(blind.get('nn_micro'))} / {number(blind.get('tt_micro'))}"
    return rows


def in_words(estimate: dict[str, Any]) -> str:
    """A value with its interval, three decimals."""
    interval = estimate.get("interval")
    suffix = f" [{number(interval[0])}, {number(interval[1])}]" if interval else ""
    return number(estimate["value"]) + suffix


def number(value: float | None) -> str:
    """Three decimals with a true minus sign, a dash for what is undefined."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")
