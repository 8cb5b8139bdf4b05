"""One number for a finding that was tested in full: how much of a call hangs on how little."""

from __future__ import annotations

CELL_PX = 16  # of the middle layer, at any size of the input


def score(
    *, drop: float, gain: float, gain_impossible: float, logit: float, base_logit: float, side_px: float
) -> float:
    """In logits: the effect that a patch can be shown to have, lessened by all that speaks for a disease.

    The effect is the smaller of two: what erasing the patch takes away, and what the patch gives to others. It is
    multiplied by three factors in 0..1:

    - its share in all that sets the call apart: the logit over the mean of the donors. A trigger carries a call alone;
      a disease is seen in many places;
    - its size: 1 for a point, a quarter for a middle cell (16 px);
    - its place: a half, and as much again if it works where no finding can be.

    drop: fall of the logit. gain, gain_impossible: mean rises on donors. side_px: of the square of the patches' area.
    """
    effect = min(drop, gain)
    if effect <= 0:
        return effect
    apart = max(logit - base_logit, effect)
    size = (CELL_PX / (CELL_PX + side_px)) ** 2
    place = 0.5 + 0.5 * min(max(gain_impossible, 0.0) / gain, 1.0)
    return effect * (effect / apart) * size * place
