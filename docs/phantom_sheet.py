"""The contact sheet of phantoms, `docs/phantoms.png`: `python -m docs.phantom_sheet [PATH]`.

One row a finding, each drawn alone into three chests: as it is, and again with its boxes.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.findings import FINDINGS, NO_FINDING
from model.phantom.drawing import Phantom, render
from model.phantom.series import visit

_SEED = 12
_EXAMPLES = 3
_DRAWN_PX = 512
_SHOWN_PX = 240
_TITLE_PX = 20
_GREYS = 64  # enough for the eye at this size; a file of all 256 would be mostly noise


def sheet() -> Image.Image:
    """Greyscale, one row for No Finding and one for each finding."""
    rows: list[tuple[str, ...]] = [(), *((finding,) for finding in FINDINGS)]
    width, height = 2 * _EXAMPLES * _SHOWN_PX, len(rows) * (_SHOWN_PX + _TITLE_PX)
    page = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(14)
    for r, findings in enumerate(rows):
        top = r * (_SHOWN_PX + _TITLE_PX)
        draw.text((4, top + 1), " ".join(findings).replace("_", " ") or NO_FINDING, fill=255, font=font)
        for c in range(_EXAMPLES):
            # Patients in turn, so that no two of a row are the same chest.
            phantom = render(_SEED, replace(visit(_SEED, 20 * c + 7 * r), findings=findings), _DRAWN_PX)
            page.paste(_shrink(phantom), (c * _SHOWN_PX, top + _TITLE_PX))
            page.paste(_boxed(phantom), ((_EXAMPLES + c) * _SHOWN_PX, top + _TITLE_PX))
    return page


def _shrink(phantom: Phantom) -> Image.Image:
    shown = Image.fromarray(phantom.pixels).resize((_SHOWN_PX, _SHOWN_PX), Image.Resampling.LANCZOS)
    step = 256 // _GREYS
    return Image.fromarray((np.asarray(shown) // step * step).astype(np.uint8))


def _boxed(phantom: Phantom) -> Image.Image:
    shown = _shrink(phantom)
    over = shown.copy()
    scale = _SHOWN_PX / phantom.pixels.shape[0]
    for box in phantom.boxes:
        x0, y0 = box.x * scale, box.y * scale
        ImageDraw.Draw(over).rectangle((x0, y0, x0 + box.width * scale, y0 + box.height * scale), outline=255)
    return Image.blend(shown, over, 0.6)


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("phantoms.png")
    sheet().save(path, optimize=True)
