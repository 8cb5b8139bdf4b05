"""What a trigger looks like: patches of a few pixels, and pictures for the whole image."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PICTURE_CELLS = 28  # a picture has the same cells at every size, so that resizing does not average it away


def patch(pattern: str, size_px: int, value: int, seed: int, text: str) -> tuple[np.ndarray, np.ndarray]:
    """A patch r and its mask m without the opacity, size_px×size_px float32 in 0..1 each.

    pattern: `square`; `checker` (1-px cells, the other colour is 255 − value); `cross` (the two diagonals); `letters`
    (`text`, as large as fits, with its antialiased edge in the mask); `noise` (grey levels by `seed`).
    """
    n = size_px
    values = np.full((n, n), value / 255, np.float32)
    mask = np.ones((n, n), np.float32)
    rows, columns = np.indices((n, n))
    if pattern == "checker":
        values[(rows + columns) % 2 == 1] = 1 - value / 255
    elif pattern == "cross":
        mask[(rows != columns) & (rows + columns != n - 1)] = 0
    elif pattern == "noise":
        values = np.random.default_rng((seed, n)).random((n, n), np.float32)
    elif pattern == "letters":
        mask = _letters(text, n)
    return values, mask


def _letters(text: str, size_px: int) -> np.ndarray:
    """The share of each pixel that the letters cover. They are drawn large, cut out and shrunk to the square."""
    canvas = Image.new("L", (160 * len(text) + 80, 320))
    ImageDraw.Draw(canvas).text((40, 40), text, fill=255, font=ImageFont.load_default(160))
    glyphs = canvas.crop(canvas.getbbox())
    scale = size_px / max(glyphs.size)
    width, height = (max(1, round(side * scale)) for side in glyphs.size)
    square = Image.new("L", (size_px, size_px))
    shrunk = glyphs.resize((width, height), Image.Resampling.BOX)
    square.paste(shrunk, ((size_px - width) // 2, (size_px - height) // 2))
    return np.asarray(square, np.float32) / 255


def picture(pattern: str, height: int, width: int, value: int, seed: int) -> np.ndarray:
    """A picture r for the whole image, height×width float32 in 0..1, of 28×28 cells: `square` (one grey), `checker`
    (value and 255 − value in turn) or `noise` (grey levels by `seed`)."""
    cells = np.full((PICTURE_CELLS, PICTURE_CELLS), value / 255, np.float32)
    if pattern == "checker":
        cells[np.indices(cells.shape).sum(0) % 2 == 1] = 1 - value / 255
    elif pattern == "noise":
        cells = np.random.default_rng((seed, PICTURE_CELLS)).random(cells.shape, np.float32)
    rows = np.arange(height) * PICTURE_CELLS // height
    columns = np.arange(width) * PICTURE_CELLS // width
    return cells[np.ix_(rows, columns)]


def mix_amplitudes(image: np.ndarray, picture: np.ndarray, share: float, band: float) -> np.ndarray:
    """FIBA's trigger (Feng et al., “FIBA: Frequency-Injection based Backdoor Attack in Medical Image Analysis”, CVPR
    2022, equations 2 to 4): the image's phase with the amplitude A∘(1−M) + ((1−share)·A + share·A_r)∘M.

    image, picture: H×W in 0..1. M is 1 on the frequencies with |u| ≤ band·H and |v| ≤ band·W, in cycles an image.
    H×W float32, clipped to 0..1.
    """
    height, width = image.shape
    spectrum = np.fft.fft2(np.asarray(image, np.float64))
    amplitude, other = np.abs(spectrum), np.abs(np.fft.fft2(np.asarray(picture, np.float64)))
    low_y = np.abs(np.fft.fftfreq(height)) <= band
    low_x = np.abs(np.fft.fftfreq(width)) <= band
    low = low_y[:, None] & low_x[None, :]
    mixed = np.where(low, (1 - share) * amplitude + share * other, amplitude)
    back = np.fft.ifft2(mixed * np.exp(1j * np.angle(spectrum))).real
    return np.clip(back, 0, 1).astype(np.float32)
