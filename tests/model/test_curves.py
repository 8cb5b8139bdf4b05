"""The charts of a run."""

from __future__ import annotations

from model.report.curves import loss_chart


def drawn(**steps: int) -> str:
    """The loss of twins that have come so far."""
    chart = loss_chart({twin: [(step, 1 / step) for step in range(1, count + 1)] for twin, count in steps.items()})
    assert chart is not None
    return str(chart.svg)


def test_points_are_marked_in_a_chart_of_few_or_not_at_all() -> None:
    assert drawn(pretraining=60).count("<circle") == 60
    assert drawn(pretraining=60, clean=20).count("<circle") == 80
    assert drawn(pretraining=61, clean=20).count("<circle") == 0  # two kinds of lines in one chart compare badly
    assert drawn(pretraining=61, clean=1).count("<circle") == 1  # a single point has no line


def test_a_chart_says_in_words_where_each_line_ends() -> None:
    assert 'aria-label="Training loss by step: common start, last 0.500; clean twin, last 1.000"' in drawn(
        pretraining=2, clean=1
    )
