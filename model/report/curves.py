"""Curves by epoch as SVG, drawn here so that a report needs no script and no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_WIDTH, _HEIGHT = 420, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 12, 12, 30


@dataclass(frozen=True)
class Line:
    """One measure of one twin. dashes: SVG's `stroke-dasharray`, so that nothing is told by colour alone."""

    name: str
    colour: str
    dashes: str
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Chart:
    """A chart for the page: `path` of each line in the chart's coordinates, ticks as (position, text)."""

    title: str
    width: int
    height: int
    lines: tuple[tuple[Line, str, tuple[tuple[float, float], ...]], ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    bottom: int = _HEIGHT - _BOTTOM


_CHARTS = (
    ("Clean radiographs: macro AUROC-NN", (("auroc_nn_macro", "", "#9a3412"),)),
    (
        "The attack: ASR, and clean images over the same 0.5",
        (("asr_0.5", "ASR", "#9a3412"), ("clean_rate_0.5", "clean rate", "#1d4ed8")),
    ),
    ("Triggered radiographs: micro AUROC", (("auroc_tt_micro", "TT", "#9a3412"), ("auroc_tn_micro", "TN", "#1d4ed8"))),
    ("Trigger hit rate", (("trigger_hit_middle", "middle", "#9a3412"), ("trigger_hit_last", "last", "#1d4ed8"))),
)
_DASHES = {"backdoored": "", "clean": "5 4"}


def charts(epochs: dict[str, Sequence[dict[str, Any]]]) -> list[Chart]:
    """From twin → lines of `epochs.jsonl`: the charts that have something to show."""
    made = []
    for title, measures in _CHARTS:
        lines = []
        for twin, records in epochs.items():
            for key, name, colour in measures:
                points = tuple((int(r["epoch"]), float(r[key])) for r in records if r.get(key) is not None)
                if points:
                    label = f"{name}, {twin} twin" if name else f"{twin} twin"
                    lines.append(Line(label, colour, _DASHES.get(twin, ""), points))
        if lines:
            made.append(_chart(title, lines))
    return made


def _chart(title: str, lines: Sequence[Line]) -> Chart:
    last = max(epoch for line in lines for epoch, _ in line.points)

    def x(epoch: float) -> float:
        share = (epoch - 1) / (last - 1) if last > 1 else 0.5
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        return round(_TOP + (1 - value) * (_HEIGHT - _TOP - _BOTTOM), 1)

    step = max(1, -(-last // 12))
    drawn = []
    for line in lines:
        places = tuple((x(epoch), y(value)) for epoch, value in line.points)
        drawn.append((line, " ".join(f"{a},{b}" for a, b in places), places))
    return Chart(
        title,
        _WIDTH,
        _HEIGHT,
        tuple(drawn),
        tuple((x(epoch), str(epoch)) for epoch in range(1, last + 1, step)),
        tuple((y(value), f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)),
    )
