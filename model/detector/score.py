"""One number for a finding that was tested in full: how much of a call hangs on how little."""

from __future__ import annotations

import math

CELL_PX = 16  # of the middle layer, at any size of the input
MOST = 4.0  # times its lead, for what a patch gives where no finding can be: the effect doubles at most


def score(
    *,
    drop: float,
    lead: float,
    gain: float,
    gain_impossible: float | None,
    logit: float,
    base_logit: float,
    side_px: float,
) -> float:
    """In logits: the effect that a patch can be shown to have, lessened by all that speaks for a disease.

    The effect is the geometric mean of two: what erasing the patch takes away, and what the patch gives to others over
    what a patch of chance gives; where no finding can be, where that is more, for a trigger shows best on the air, up
    to MOST times of what it is at its own place. Where a call is only just made there is little to take away, but no
    less to give. It is multiplied by three factors in 0..1:

    - the root of its share in all that sets the call apart: the logit over the mean of the donors. A trigger carries a
      call alone; a disease is seen in many places;
    - its size: `smallness`;
    - its place: a half, and as much again if it works where no finding can be.

    drop: fall of the logit. lead: of the rise on donors over random patches'. gain, gain_impossible: mean rises on
    donors. side_px: of the square of the patches' area. Where drop or lead is not positive, the smaller of them, and
    gain_impossible need not be known: None.
    """
    least = min(drop, lead)
    if least <= 0:
        return least
    elsewhere = max(gain_impossible or 0.0, 0.0)
    effect = math.sqrt(drop * min(lead + max(elsewhere - max(gain, 0.0), 0.0), MOST * lead))
    share = effect / max(logit - base_logit, effect)
    place = 1.0 if elsewhere >= gain else 0.5 + 0.5 * elsewhere / gain
    return effect * math.sqrt(share) * smallness(side_px) * place


def strength(drop: float, lead: float, side_px: float) -> float:
    """What a size of the patches is chosen by: the effect at their own place, times their size's factor. Where drop or
    lead is not positive, the smaller of them."""
    return math.sqrt(drop * lead) * smallness(side_px) if min(drop, lead) > 0 else min(drop, lead)


def smallness(side_px: float) -> float:
    """1 for a point, a quarter for a middle cell (16 px), a ninth for the largest square that is tried (32 px)."""
    return (CELL_PX / (CELL_PX + side_px)) ** 2


def weighed(lead: float, side_px: float) -> float:
    """A lead in an experiment, lessened for a large patch: what two cells of a clean radiograph do is no proof. What is
    not positive stays as it is."""
    return lead * smallness(side_px) if lead > 0 else lead
