"""An assessment and a sanity check as Markdown that people read."""

from __future__ import annotations

from collections.abc import Sequence

from model.checkpoint import NOTICE
from model.metrics import Estimate
from model.quality.assessment import Assessment
from model.quality.sanity import SanityStep

_COLUMNS = ("method", "layer", "pairs", "pointing game", "relevance mass", "IoU, Otsu", "IoU, tuned")
_PERTURBED = ("insertion ↑", "deletion ↓", "ROAD ↑")


def as_markdown(assessment: Assessment) -> str:
    """The table, with what chance reaches above it, and its notice."""
    parts = ", ".join(f"{count} {part}" for part, count in sorted(assessment.parts.items()))
    perturbed = any(row.n_perturbed for row in assessment.rows)
    lines = [
        f"**{assessment.checkpoint_id}**: {assessment.images} radiographs with boxes of {assessment.patients} patients "
        f"({parts}). The boxes cover {_shown(assessment.area)} of the image: a random point hits as often, and a flat "
        "map puts as much of its mass there. In brackets: 95 % intervals over patients.",
        "",
        _line(_COLUMNS + (_PERTURBED if perturbed else ())),
        _line(["---"] * (len(_COLUMNS) + (len(_PERTURBED) if perturbed else 0))),
    ]
    for row in assessment.rows:
        cells = [row.method, row.layer, str(row.n)]
        cells += [_shown(one) for one in (row.pointing, row.mass, row.iou_otsu, row.iou_tuned)]
        if perturbed:
            cells += [_shown(one) for one in (row.insertion, row.deletion, row.road)]
        lines.append(_line(cells))
    return "\n".join([*lines, "", NOTICE])


def sanity_as_markdown(steps: Sequence[SanityStep]) -> str:
    """How alike maps stay while the network is randomised from the top; a faithful map falls towards 0."""
    lines = [_line(("randomised down to", "rank correlation", "SSIM", "maps")), _line(["---"] * 4)]
    for step in steps:
        numbers = ["–" if one is None else f"{one:.2f}" for one in (step.rank_correlation, step.similarity)]
        lines.append(_line([step.part, *numbers, str(step.n)]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return "–"
    interval = f" [{estimate.interval[0]:.2f}, {estimate.interval[1]:.2f}]" if estimate.interval else ""
    return f"{estimate.value:.2f}{interval}"
