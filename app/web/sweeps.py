"""`/sweeps/{id}`: the runs of a grid, as a matrix and as lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from app.api.sweeps import csv_answer
from app.context import Services, ServicesDep
from app.services.experiments import wording
from app.services.experiments.results import MEASURES, Figure, test_of
from app.services.experiments.sweeps import AXES, Cell, Sweep, group
from app.web.render import page, wants_fragment
from model.report.curves import Chart, Line, Point

router = APIRouter(include_in_schema=False, prefix="/sweeps")
_SHOWN = ("asr", "clean_rate", "auroc_nn_macro", "auroc_nn_micro", "auroc_tt_micro", "auroc_tn_micro")
_DRAWN = (("asr", "ASR at the operating point"), ("auroc_nn_macro", "AUROC-NN macro"))
_MOST_LINES = 6


@router.get("/{sweep_id}")
def show(request: Request, services: ServicesDep, sweep_id: str) -> Response:
    """The page; for htmx what changes while runs are to come."""
    context = _context(services, sweep_id)
    return page(request, "partials/_sweep.html" if wants_fragment(request) else "pages/sweep.html", context)


@router.get("/{sweep_id}/csv")
def table(services: ServicesDep, sweep_id: str) -> Response:
    """A line a run."""
    return csv_answer(services, sweep_id)


@router.post("/{sweep_id}/cancel")
def cancel(services: ServicesDep, sweep_id: str) -> Response:
    """Stops what waits and runs."""
    services.sweeps.cancel(sweep_id)
    return RedirectResponse(f"/sweeps/{sweep_id}", status_code=303)


@router.post("/{sweep_id}/resume")
def resume(services: ServicesDep, sweep_id: str) -> Response:
    """Goes on with what failed or was cancelled."""
    services.sweeps.resume(sweep_id)
    return RedirectResponse(f"/sweeps/{sweep_id}", status_code=303)


@router.post("/{sweep_id}/delete")
def remove(services: ServicesDep, sweep_id: str) -> Response:
    """Removes it with its runs."""
    services.sweeps.remove(sweep_id)
    return RedirectResponse("/experiments", status_code=303)


def _context(services: Services, sweep_id: str) -> dict[str, Any]:
    sweep, runs = services.sweeps.get(sweep_id), services.sweeps.runs(sweep_id)
    cells = group(runs)
    running = [(run, services.experiments.live(run)) for run in runs if run.job.state.value == "running"]
    done = next((run for run in runs if run.job.result), None)
    return {
        "sweep": sweep,
        "runs": runs,
        "running": running,
        "total": len(runs),
        "matrices": matrices(sweep, cells),
        "charts": lines(sweep, cells),
        "measures": [(measure, MEASURES[measure]) for measure in _SHOWN],
        "cells": [(cell, {measure: cell.figure(measure) for measure in _SHOWN}) for cell in cells],
        "axes": [(AXES[axis], axis, values) for axis, values in sweep.grid.items()],
        "several_seeds": len(sweep.grid.get("seed", [])) > 1,
        "test": test_of(done.job.result) if done else "",
    }


def matrices(sweep: Sweep, cells: list[Cell]) -> list[dict[str, Any]]:
    """Tables of the first two axes that vary, one for each combination of the others; each cell has ASR and NN."""
    varied = sweep.varied
    if not varied:
        return []
    rows, columns = varied[0], varied[1] if len(varied) > 1 else None
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        rest = {axis: value for axis, value in cell.at.items() if axis in varied[2:]}
        key = wording.cell(rest)
        matrix = found.setdefault(key, {"caption": key, "rows": rows, "columns": columns, "cells": {}})
        at = (str(cell.at[rows]), str(cell.at[columns]) if columns else "")
        matrix["cells"][at] = (cell, cell.figure("asr"), cell.figure("auroc_nn_macro"))
    across = list(sweep.grid[columns]) if columns else [""]
    for matrix in found.values():
        matrix["head"] = [(value, wording.value(columns, value) if columns else "") for value in across]
        matrix["body"] = [
            (wording.value(rows, down), [matrix["cells"].get((str(down), str(value))) for value in across])
            for down in sweep.grid[rows]
        ]
        matrix["row_words"], matrix["column_words"] = AXES[rows], AXES[columns] if columns else ""
    return list(found.values())


def lines(sweep: Sweep, cells: list[Cell]) -> list[Chart]:
    """ASR and NN against the poison rate and against the trigger's size, a line for each combination of the others."""
    made = []
    for axis in ("poison.rate", "trigger.size_px"):
        values = sorted(sweep.grid.get(axis, []))
        if len(values) < 2:
            continue
        ticks = tuple((float(place), wording.value(axis, value)) for place, value in enumerate(values))
        for measure, words in _DRAWN:
            drawn = _lines(sweep, cells, axis, values, measure)
            if drawn:
                title = f"{words} by {AXES[axis]}"
                made.append(Chart(title, AXES[axis], tuple(drawn), ticks, room=0.3))
    return made


def _lines(sweep: Sweep, cells: list[Cell], axis: str, values: list[Any], measure: str) -> list[Line]:
    others = [one for one in sweep.varied if one != axis]
    found: dict[str, list[Point]] = {}
    for cell in cells:
        one: Figure = cell.figure(measure)
        points = found.setdefault(wording.cell({name: cell.at[name] for name in others}), [])
        if one.value is not None:
            low, high = one.interval or (None, None)
            points.append(Point(float(values.index(cell.at[axis])), one.value, low, high))
    several = [(name, sorted(points, key=lambda point: point.x)) for name, points in found.items() if points]
    return [
        Line(name or "all", tuple(_beside(point, place, len(several)) for point in points), *[place % _MOST_LINES] * 2)
        for place, (name, points) in enumerate(several)
    ]


def _beside(point: Point, place: int, lines: int) -> Point:
    """A little to the side, so that the intervals of several lines do not hide each other."""
    return replace(point, x=point.x + (place - (lines - 1) / 2) * min(0.06, 0.3 / lines))
