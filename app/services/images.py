"""Pictures for people: the radiograph in 8 bits, and saliency as colour over it."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from app.blobs import BlobStore
from app.services.once import Recent
from model.preprocess import InputMap
from model.radiograph import Radiograph
from model.saliency import registered

THUMBNAIL_PX = 96
DISPLAY_PX = 1024
LARGEST_PX = 2048  # no picture's longer side is drawn larger: forty at once must fit into memory
HEAT_OPACITY = 0.6  # of the hottest spot; below it opacity falls linearly, so that cold parts stay grey
_KEPT = 6
# Every sixteenth entry of matplotlib's “inferno” (CC0); static/review.css draws the colour bar from the same.
_INFERNO = np.array(
    [(0, 0, 4), (11, 7, 36), (33, 12, 74), (61, 9, 101), (87, 16, 110), (113, 25, 110), (138, 34, 106), (163, 44, 97),
     (188, 55, 84), (210, 70, 68), (228, 90, 49), (241, 115, 29), (249, 142, 9), (252, 172, 17), (249, 203, 53),
     (242, 234, 105), (252, 255, 164)],
    dtype=np.float32,
)  # fmt: skip
_LEVELS = np.linspace(0, 1, 256)
_STOPS = np.linspace(0, 1, len(_INFERNO))
_COLOURS = np.stack([np.interp(_LEVELS, _STOPS, _INFERNO[:, band]) for band in range(3)], axis=-1)  # 256×3, 0..255
_OPACITIES = _LEVELS * HEAT_OPACITY
_OVERLAY = np.rint(np.column_stack([_COLOURS, _OPACITIES * 255])).astype(np.uint8)  # level → red, green, blue, alpha


def grey8(radiograph: Radiograph, longest_px: int | None = None) -> np.ndarray:
    """H×W uint8, 0 black; not larger than `longest_px` on its longer side."""
    levels = np.rint(np.arange(radiograph.max_value + 1) * (255 / radiograph.max_value)).astype(np.uint8)
    image = Image.fromarray(levels[radiograph.pixels])
    size = fit(image.height, image.width, longest_px)
    if size != (image.height, image.width):
        image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(image)


def fit(height: int, width: int, longest_px: int | None) -> tuple[int, int]:
    """Height and width, scaled down to the limit, or to LARGEST_PX, where they are over it."""
    longest_px = min(longest_px or LARGEST_PX, LARGEST_PX)
    if max(height, width) <= longest_px:
        return height, width
    scale = longest_px / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def png(pixels: np.ndarray) -> bytes:
    """H×W or H×W×3 or ×4 uint8 → PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def heat(
    saliency_map: np.ndarray, input_map: InputMap, source: tuple[int, int], shown: tuple[int, int], ceiling: float
) -> np.ndarray:
    """The share of the ceiling at each shown pixel, H×W float32 in 0..1, registered to the source image.

    source, shown: height and width of the radiograph, and of the picture to make. A ceiling of 0 gives no heat.
    """
    scale_y, scale_x = shown[0] / source[0], shown[1] / source[1]
    mapping = InputMap(
        input_map.size_px,
        input_map.scale_x * scale_x,
        input_map.scale_y * scale_y,
        input_map.offset_x * scale_x,
        input_map.offset_y * scale_y,
    )
    laid = registered(saliency_map, mapping, *shown)
    if ceiling <= 0:
        return np.zeros(shown, np.float32)
    laid /= np.float32(ceiling)
    return np.clip(laid, 0, 1, out=laid)


def overlay(share: np.ndarray) -> np.ndarray:
    """H×W×4 uint8: the colours alone, to be laid over the radiograph."""
    layered: np.ndarray = _OVERLAY[_level(share)]
    return layered


def blended(share: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """H×W×3 uint8: the colours over the radiograph (H×W uint8)."""
    mixed: np.ndarray = _blend_table()[_level(share), grey]
    return mixed


def _level(share: np.ndarray) -> np.ndarray:
    """Share of the ceiling, 0..1 → an entry of the tables, uint8."""
    return np.rint(share * np.float32(255)).astype(np.uint8)


@cache
def _blend_table() -> np.ndarray:
    """256×256×3 uint8: the colour of each level over each grey, so that no picture needs floats of its own size."""
    under, opacity = np.arange(256)[None, :, None], _OPACITIES[:, None, None]
    table: np.ndarray = np.rint(under * (1 - opacity) + _COLOURS[:, None, :] * opacity).astype(np.uint8)
    return table


class DisplayCache:
    """The last few radiographs, decoded and small: a review page asks for the same one five times at once."""

    def __init__(self, blobs: BlobStore, decode: Callable[..., Radiograph]) -> None:
        """decode: as `read_radiograph`."""
        self._blobs = blobs
        self._decode = decode
        self._recent: Recent[tuple[str, int | None], np.ndarray] = Recent(_KEPT)

    def grey(self, sha256: str, longest_px: int | None) -> np.ndarray:
        """H×W uint8. Raises NotFoundError `blob_missing`, and what decoding raises."""
        return self._recent.get(
            (sha256, longest_px), lambda: grey8(self._decode(self._blobs.get(sha256), lateral=True), longest_px)
        )
