"""The report of an experiment: `report.json` for programs, `report.md` and `report.html` for people; model cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.checkpoint import NOTICE
from model.report.card import write_model_card
from model.report.markdown import as_markdown, figure_markdown
from model.report.page import as_html


def write_report(out: Path, report: dict[str, Any]) -> None:
    """Writes the three files. `report.html` holds its figure in itself and asks for nothing from anywhere.

    `report.json` comes last and whole: where it is, the run is finished.
    """
    (out / "report.md").write_text(as_markdown(report), "utf-8")
    (out / "report.html").write_text(as_html(report, out), "utf-8")
    unfinished = out / ".report.json"
    unfinished.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    unfinished.replace(out / "report.json")


def write_figure_page(out: Path, paper: dict[str, Any]) -> None:
    """`report.html` and `report.md` of figures made of several runs: the JSON of `model.experiment.PaperFigure`."""
    report = {"name": "Where the twins look", "notice": NOTICE, "twins": {}, "differences": {}, "paper": paper}
    (out / "report.md").write_text(figure_markdown(paper), "utf-8")
    (out / "report.html").write_text(as_html(report, out), "utf-8")


__all__ = ["as_html", "as_markdown", "figure_markdown", "write_figure_page", "write_model_card", "write_report"]
