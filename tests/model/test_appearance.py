"""Pictures that are no chest radiographs are told from those that are. `python -m bench.appearance` has the figures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.appearance import photographs
from bench.pictures import JUDGED_ON, draw
from model.phantom import draw_phantom
from model.radiograph import read_radiograph
from model.radiograph.appearance import FEATURES, features, looks_like_a_chest_radiograph


def warned(pixels: np.ndarray, format_: str = "PNG") -> bool:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_)
    return "not_a_chest_radiograph" in read_radiograph(buffer.getvalue()).warnings


def test_pictures_of_kinds_that_were_not_tuned_on_are_warned_about() -> None:
    pictures = [draw(family, seed) for family in JUDGED_ON for seed in range(100, 103)]
    pictures += [pixels for _, pixels in photographs()]
    assert len(pictures) >= 32
    missed = sum(looks_like_a_chest_radiograph(pixels, 255) for pixels in pictures)
    assert missed / len(pictures) <= 0.3  # most of them abdomens and skulls, which no fit has seen


def test_phantoms_are_not_warned_about_in_either_format_or_depth() -> None:
    pixels = draw_phantom(11, 0, 256).pixels
    assert not warned(pixels) and not warned(pixels, "JPEG")
    assert not warned(pixels.astype(np.uint16) * 257)
    assert not warned(np.pad(pixels, ((0, 0), (60, 60))))


def test_an_inverted_radiograph_is_warned_about_not_turned_silently() -> None:
    assert warned(255 - draw_phantom(11, 0, 256).pixels)


def test_features_are_finite_whatever_the_picture() -> None:
    generator = np.random.default_rng(0)
    for shape in ((32, 32), (32, 128), (700, 500), (33, 47)):
        for pixels in (np.eye(*shape), generator.random(shape), np.arange(shape[1])[None].repeat(shape[0], 0) % 2):
            found = features((pixels * 255).astype(np.uint8), 255)
            assert found.shape == (len(FEATURES) + 64,) and np.isfinite(found).all()


def test_two_dark_fields_beside_a_bright_middle_by_hand() -> None:
    pixels = np.full((128, 128), 200, np.uint8)
    pixels[20:90, 12:52] = pixels[20:90, 76:116] = 40
    found = dict(zip(FEATURES, features(pixels, 255), strict=False))
    assert found["lung_contrast"] > 1.5 and found["abdomen"] > 1.5 and found["symmetry"] > 0.99
    assert found["lung_balance"] == pytest.approx(0, abs=1e-6)
    turned = dict(zip(FEATURES, features(np.rot90(pixels), 255), strict=False))
    assert turned["lung_contrast"] < found["lung_contrast"] / 2


def test_at_most_one_in_a_hundred_real_radiographs_is_warned_about(real_data: Path) -> None:
    names = (real_data / "chestxray14" / "test_list.txt").read_text().split()
    radiographs = [np.asarray(Image.open(real_data / "chestxray14" / "images" / name)) for name in names]
    assert sum(not looks_like_a_chest_radiograph(pixels, 255) for pixels in radiographs) <= 0.01 * len(names)
