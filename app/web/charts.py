"""Charts as values in SVG's coordinates; `partials/_chart.html` draws them. No script, no inline style."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 14, 14, 38
_SMALL = 150
_SMALL_EDGE = 22


@dataclass(frozen=True)
class Bar:
    """A bar of one series. text: what it says, for who points at it or cannot see it."""

    series: str
    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True)
class Chart:
    """title, description: for who cannot see it. lines: (series, points for `polyline`). rules: upright lines of a
    threshold, (x, text). dots: (series, x, y, text). ticks: (position, text)."""

    title: str
    description: str
    x_label: str
    y_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    bars: tuple[Bar, ...] = ()
    lines: tuple[tuple[str, str], ...] = ()
    rules: tuple[tuple[float, str], ...] = ()
    dots: tuple[tuple[str, float, float, str], ...] = ()
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


def histogram(
    title: str, x_label: str, series: Mapping[str, Sequence[float]], threshold: float | None, threshold_text: str
) -> Chart | None:
    """How many values lie where, the series beside each other within a bin; None where there are none.

    The threshold is between two bins, which hold their upper ends: what is over it stands right of the line.
    """
    values = [value for several in series.values() for value in several]
    if not values:
        return None
    shown = [*values, threshold] if threshold is not None else values
    low, high = min(0.0, *shown), max(shown)
    step = _nice((high - low or 1.0) / 16)
    edge = threshold or 0.0
    low = edge - (math.floor((edge - low) / step) + 1) * step  # the least value is over it
    bins = max(1, math.ceil((high - low) / step - 1e-9))
    counts = {name: [0] * bins for name in series}
    for name, several in series.items():
        for value in several:
            counts[name][min(bins - 1, max(0, math.ceil((value - low) / step - 1e-9) - 1))] += 1
    most = max(count for of in counts.values() for count in of)

    def x(value: float) -> float:
        return round(_LEFT + (value - low) / (bins * step) * (WIDTH - _LEFT - _RIGHT), 1)

    def y(count: float) -> float:
        return round(_TOP + (1 - count / most) * (HEIGHT - _TOP - _BOTTOM), 1)

    wide = (x(low + step) - x(low)) / len(series)
    bars = tuple(
        Bar(
            name,
            round(x(low + i * step) + place * wide + 0.5, 1),
            y(count),
            round(max(1.0, wide - 1), 1),
            round(y(0) - y(count), 1),
            f"{name}: {count} from {low + i * step:.3g} to {low + (i + 1) * step:.3g}",
        )
        for place, (name, of) in enumerate(counts.items())
        for i, count in enumerate(of)
        if count
    )
    apart = step * max(1, math.ceil(bins / 8))
    ticks = range(math.ceil(low / apart - 1e-9), math.floor((low + bins * step) / apart + 1e-9) + 1)
    described = "; ".join(f"{name}: {len(several)} values" for name, several in series.items() if several)
    return Chart(
        title,
        f"{described}. From {min(values):.3g} to {max(values):.3g}.",
        x_label,
        "radiographs",
        tuple((x(i * apart), _tick(i * apart)) for i in ticks),
        tuple((y(count), str(count)) for count in _whole_ticks(most)),
        bars=bars,
        rules=((x(threshold), threshold_text),) if threshold is not None else (),
    )


def roc(p_values: Sequence[float], alpha: float) -> Chart | None:
    """Share of stamped radiographs that is flagged, by the false-positive rate that one accepts; None without any."""
    if not p_values:
        return None
    ordered = sorted(p_values)

    def x(rate: float) -> float:
        return round(_LEFT + rate * (WIDTH - _LEFT - _RIGHT), 1)

    def y(share: float) -> float:
        return round(_TOP + (1 - share) * (HEIGHT - _TOP - _BOTTOM), 1)

    points, share = [(x(0), y(0))], 0.0
    for i, p in enumerate(ordered):
        points += [(x(p), y(share)), (x(p), y((i + 1) / len(ordered)))]
        share = (i + 1) / len(ordered)
    points.append((x(1), y(1)))
    return Chart(
        "Stamped samples found, by accepted false alarms",
        f"Of {len(ordered)} stamped sample{'s' if len(ordered) > 1 else ''} the largest p is {ordered[-1]:.2g}.",
        "false-positive rate accepted (p at most)",
        "share flagged",
        tuple((x(rate), f"{rate:g}") for rate in (0, 0.25, 0.5, 0.75, 1)),
        tuple((y(rate), f"{rate:g}") for rate in (0, 0.5, 1)),
        lines=(
            ("chance", f"{x(0)},{y(0)} {x(1)},{y(1)}"),
            ("stamped", " ".join(f"{a},{b}" for a, b in points)),
        ),
        rules=((x(alpha), f"α = {alpha * 100:g} %"),),
    )


def reliability(name: str, bins: Sequence[tuple[float, float, int]], limit: float = 1.0) -> Chart:
    """A small square: what share shows the finding, by the probability it was given. limit: where both axes end."""
    edge, side = _SMALL_EDGE, _SMALL - 2 * _SMALL_EDGE

    def x(value: float) -> float:
        return round(edge + value / limit * side, 1)

    def y(value: float) -> float:
        return round(edge + (1 - value / limit) * side, 1)

    said = [f"given {p:.2f}, shown by {share:.2f} of {n}" for p, share, n in bins]
    return Chart(
        name,
        "; ".join(said) + ".",
        "",
        "",
        ((x(0), "0"), (x(limit), f"{limit:g}")),
        ((y(0), "0"), (y(limit), f"{limit:g}")),
        lines=(
            ("chance", f"{x(0)},{y(0)} {x(limit)},{y(limit)}"),
            ("share", " ".join(f"{x(p)},{y(share)}" for p, share, _ in bins)),
        ),
        dots=tuple(("share", x(p), y(share), text) for (p, share, _), text in zip(bins, said, strict=True)),
        width=_SMALL,
        height=_SMALL,
        left=edge,
        right=edge + side,
        top=edge,
        bottom=edge + side,
    )


def reliability_limit(every: Iterable[Sequence[tuple[float, float, int]]]) -> float:
    """The first tenth that no probability and no share lies above: on one scale all findings can be compared."""
    most = max((max(p, share) for bins in every for p, share, _ in bins), default=1.0)
    return min(1.0, max(1, math.ceil(most * 10 - 1e-9)) / 10)


def _tick(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _nice(step: float) -> float:
    """1, 2 or 5 times a power of ten, not smaller."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step - 1e-12)


def _whole_ticks(most: int) -> list[int]:
    step = max(1, round(_nice(max(1, most / 4))))
    return list(range(0, most + 1, step))
