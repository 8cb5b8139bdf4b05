"""Charts as SVG, drawn here so that a report or a page needs no script.

The colours are in the page's style sheet, for the classes `line`, `dot`, `grid` and `l0` to `l5`; lines differ by their
dashes too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

_WIDTH, _HEIGHT = 420, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 14, 12, 30
_END = _WIDTH - _RIGHT
_DASHES = ("", "5 4", "2 3", "9 3 2 3", "12 4", "1 5")
_MANY = 60  # points of a line: from then on the points of its chart are not marked one by one


@dataclass(frozen=True)
class Point:
    """low, high: an interval, where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """colour, dashes: 0 to 5, of the style sheet and of here."""

    name: str
    points: tuple[Point, ...]
    colour: int = 0
    dashes: int = 0

    @property
    def key(self) -> Markup:
        """A short piece of it, for the legend."""
        piece = Markup('<line class="line l{}" x1="0" x2="26" y1="4" y2="4"{}/>').format(
            self.colour, _dashed(self.dashes)
        )
        return Markup('<svg width="26" height="8" aria-hidden="true">{}</svg>').format(piece)


@dataclass(frozen=True)
class Chart:
    """x_ticks: (x, text); by default round numbers. y: the ends of the axis; None: of what is drawn. room: left free on
    both sides, in units of x.
    """

    title: str
    x_title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...] = ()
    y: tuple[float, float] | None = (0.0, 1.0)
    room: float = 0.0

    @property
    def svg(self) -> Markup:
        """The drawing."""
        return _draw(self)


_CHARTS = (
    ("Clean radiographs: macro AUROC-NN", (("auroc_nn_macro", ""),)),
    ("The attack: ASR, and clean images over the same 0.5", (("asr_0.5", "ASR"), ("clean_rate_0.5", "clean rate"))),
    ("Triggered radiographs: micro AUROC", (("auroc_tt_micro", "TT"), ("auroc_tn_micro", "TN"))),
    ("Trigger hit rate", (("trigger_hit_middle", "middle"), ("trigger_hit_last", "last"))),
)
_TWINS = {"backdoored": (0, "backdoored twin"), "clean": (1, "clean twin"), "pretraining": (2, "common start")}


def charts(epochs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Chart]:
    """From twin → lines of `epochs.jsonl`: the charts that have something to show."""
    last = max((int(record["epoch"]) for records in epochs.values() for record in records), default=1)
    step = max(1, -(-last // 12))
    ticks = tuple((float(epoch), str(epoch)) for epoch in range(1, last + 1, step))
    made = []
    for title, measures in _CHARTS:
        lines = []
        for twin, records in epochs.items():
            dashes, words = _TWINS.get(twin, (3, twin))
            for colour, (key, name) in enumerate(measures):
                points = tuple(Point(int(r["epoch"]), float(r[key])) for r in records if r.get(key) is not None)
                if points:
                    lines.append(Line(f"{name}, {words}" if name else words, points, colour, dashes))
        if lines:
            made.append(Chart(title, "epoch", tuple(lines), ticks))
    return made


def loss_chart(losses: Mapping[str, Sequence[tuple[int, float]]]) -> Chart | None:
    """From twin → (step, mean loss since the step before): the chart of all; None where there is nothing yet."""
    lines = []
    for twin, trace in losses.items():
        dashes, words = _TWINS.get(twin, (3, twin))
        if trace:
            lines.append(Line(words, tuple(Point(step, loss) for step, loss in trace), 0 if dashes < 2 else 1, dashes))
    return Chart("Training loss", "step", tuple(lines), y=None) if lines else None


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high, both within."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _draw(chart: Chart) -> Markup:
    points = [point for line in chart.lines for point in line.points]
    left, right = _ends([point.x for point in points] + [x for x, _ in chart.x_ticks])
    left, right = left - chart.room, right + chart.room
    bottom, top = chart.y or _around([point.y for point in points])

    def x(value: float) -> float:
        share = (value - left) / (right - left) if right > left else 0.5
        return round(_LEFT + share * (_END - _LEFT), 1)

    def y(value: float) -> float:
        share = (min(max(value, bottom), top) - bottom) / (top - bottom)
        return round(_TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM), 1)

    floor = _HEIGHT - _BOTTOM
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(
            _WIDTH, _HEIGHT, f"{chart.title} by {chart.x_title}: {_in_words(chart.lines)}"
        )
    ]
    for value in (0, 0.25, 0.5, 0.75, 1) if chart.y == (0.0, 1.0) else round_ticks(bottom, top, 4):
        at = y(value)
        parts.append(Markup('<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(_LEFT, _END, at))
        parts.append(Markup('<text x="{}" y="{}" text-anchor="end">{:g}</text>').format(_LEFT - 6, at + 4, value))
    ticks = chart.x_ticks or tuple((tick, f"{tick:g}") for tick in round_ticks(left, right))
    for value, text in ticks:
        parts.append(Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(x(value), floor + 17, text))
    few = all(len(line.points) <= _MANY for line in chart.lines)
    for line in chart.lines:
        parts.append(_line(line, x, y, dotted=few or len(line.points) == 1))
    return Markup("").join([*parts, Markup("</svg>")])


def _line(line: Line, x: Any, y: Any, dotted: bool) -> Markup:
    path = " ".join(f"{x(point.x)},{y(point.y)}" for point in line.points)
    parts = [Markup('<polyline class="line l{}" points="{}"{}/>').format(line.colour, path, _dashed(line.dashes))]
    for point in line.points:
        if point.low is not None and point.high is not None:
            parts.append(
                Markup('<line class="line thin l{0}" x1="{1}" x2="{1}" y1="{2}" y2="{3}"/>').format(
                    line.colour, x(point.x), y(point.low), y(point.high)
                )
            )
        if dotted:
            parts.append(
                Markup('<circle class="dot l{}" cx="{}" cy="{}" r="2.6"/>').format(line.colour, x(point.x), y(point.y))
            )
    return Markup("").join(parts)


def _in_words(lines: Iterable[Line]) -> str:
    return "; ".join(f"{line.name}, last {line.points[-1].y:.3f}" for line in lines)


def _dashed(dashes: int) -> Markup:
    return Markup(' stroke-dasharray="{}"').format(_DASHES[dashes]) if _DASHES[dashes] else Markup("")


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (0.0, 1.0)


def _around(values: Sequence[float]) -> tuple[float, float]:
    """A little more than the values take, from zero where that is near."""
    low, high = _ends(values)
    room = (high - low) * 0.08 or 0.1
    return (0.0 if 0 <= low < high * 0.4 else low - room), high + room
