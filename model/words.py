"""Numbers in words, the same on a page, in a sentence and in a report."""

from __future__ import annotations


def number(value: float) -> str:
    """A probability to two places, without claiming a certainty that rounding made up."""
    if 0 < value < 0.005:
        return "<0.01"
    if 0.995 <= value < 1:
        return ">0.99"
    return f"{value:.2f}"
