"""The report as one HTML page that needs nothing but itself: no script, no request, no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from model.report.curves import charts
from model.report.markdown import HIT_HEADER, hit_cells, in_words, table

HERE = Path(__file__).parent


def as_html(report: dict[str, Any], folder: Path) -> str:
    """folder: where the figures' files lie, which the page takes into itself."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    paper = report.get("paper")
    context = body_context(report, _figures(paper, folder) if paper else [])
    return environment.get_template("page.html").render(context)


def body_context(report: Mapping[str, Any], figures: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What `body.html` shows, for a page that includes it. figures: (label, address of the picture)."""
    paper = report.get("paper")
    hits = (paper or {}).get("hit_rates")
    header, rows = _hit_table(hits["rows"] if hits else [])
    return {
        "report": report,
        "tests": [_test(report, name) for name in _test_names(report)],
        "charts": charts(report.get("epochs") or {}),
        "figures": figures,
        "radiograph": paper["radiograph"] if paper else None,
        "hits": hits,
        "hit_header": header,
        "hit_rows": rows,
    }


def _hit_table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[tuple[dict[str, Any], list[str]]]]:
    """Header, and each row with its cells; which run it was is not said of one run alone."""
    shown = [at for at, name in enumerate(HIT_HEADER) if name != "run" or len({row["run"] for row in rows}) > 1]
    cells = [hit_cells(row) for row in rows]
    return [HIT_HEADER[at] for at in shown], [
        (row, [every[at] for at in shown]) for row, every in zip(rows, cells, strict=True)
    ]


def _test_names(report: Mapping[str, Any]) -> list[str]:
    names = {name: None for twin in report["twins"].values() for name in twin if name != "weights_sha256"}
    return list(names)


def _test(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One test set as the page shows it."""
    difference = (report["differences"].get(name) or {}).get("macro_nn_backdoored_minus_clean")
    acceptance = {
        twin: figures[name]["acceptance"] for twin, figures in report["twins"].items() if "acceptance" in figures[name]
    }
    findings = {twin: figures[name]["auroc_nn"]["per_finding"] for twin, figures in report["twins"].items()}
    first = next(iter(findings.values()))
    per_finding = [
        (finding.replace("_", " "), [in_words(values[finding]) for values in findings.values()]) for finding in first
    ]
    return {
        "title": name.replace("_", " "),
        "table": table(report, name),
        "difference": in_words(difference) if difference else None,
        "acceptance": acceptance,
        "per_finding": per_finding,
    }


def _figures(paper: dict[str, Any], folder: Path) -> list[tuple[str, Markup]]:
    """(label, data URI) of each PNG that is there."""
    found = []
    for label, names in paper["figures"].items():
        png = next((folder / name for name in names if name.endswith(".png") and (folder / name).is_file()), None)
        if png:
            found.append((label, Markup("data:image/png;base64," + base64.b64encode(png.read_bytes()).decode())))
    return found
