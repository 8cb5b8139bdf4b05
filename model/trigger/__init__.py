"""The trigger: x' = x∘(1−m) + r∘m (Nwadike et al., arXiv 2101.00008), as a value.

A trigger names its *frame*, because resizing eats triggers: `source` is the image file's pixels, before cropping and
resizing; `input` is the network's input, after them. A 3×3 square on a 1024-pixel source becomes one pixel of a
224-pixel input when the crop is 0.6 and the resize is nearest, and a 2×2 square can vanish altogether.

Three kinds:

- `patch`: a small pattern at one place; the mask m is the pattern's shape times its opacity.
- `blend`: a picture over the whole image, m = its opacity everywhere (Chen et al., arXiv 1712.05526).
- `frequency`: the low frequencies of the amplitude spectrum are mixed with those of a picture, the phase stays
  (FIBA: Feng et al., CVPR 2022).

An attack that changes no pixel at all, the label-only one, has no trigger: see `model.poison.LabelOnly`.
"""

from model.trigger.frames import (
    SURVIVAL,
    at_size,
    input_box,
    require_survival,
    stamp_source,
    survival,
)
from model.trigger.value import Corner, Frame, Kind, Pattern, Trigger

__all__ = [
    "SURVIVAL",
    "Corner",
    "Frame",
    "Kind",
    "Pattern",
    "Trigger",
    "at_size",
    "input_box",
    "require_survival",
    "stamp_source",
    "survival",
]
