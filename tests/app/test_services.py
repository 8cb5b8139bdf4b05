"""Words and pictures, checked by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from app.schemas import Analysis, CheckpointRef, FindingReading, Flag, ImageInfo, LayerInfo, SaliencyRef
from app.services.comparisons import compare
from app.services.images import HEAT_OPACITY, LARGEST_PX, blended, fit, heat, overlay
from app.services.wording import finding_text, signed
from model.findings import FINDINGS
from model.preprocess import Preprocessing
from model.words import number

PAIR = ("clean", "backdoored")


def analysis(checkpoint: str, **probabilities: float) -> Analysis:
    """An analysis with these probabilities, 0.1 elsewhere, and operating points of 0.5."""
    saliency = SaliencyRef(url="", peak=1)
    findings = []
    for name in FINDINGS:
        p = probabilities.get(name, 0.1)
        flag = Flag() if p >= 0.5 else None
        maps = {"middle": saliency, "last": saliency}
        findings.append(
            FindingReading(name=name, probability=p, threshold=0.5, positive=p >= 0.5, saliency=maps, flag=flag)
        )
    layer = LayerInfo(name="x", grid=(1, 1))
    return Analysis(
        analysis_id="a", instance_id="i", image_sha256="s", image=ImageInfo(width_px=1, height_px=1, input_map={}),
        checkpoint=CheckpointRef(id=checkpoint, weights_sha256="w"), layers={"middle": layer, "last": layer},
        findings=findings, code_version="c",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("clean", "backdoored", "sentences", "default"),
    [
        ({}, {"Mass": 0.98}, ["The candidate reports Mass (0.98), the reference does not (0.10)."], "Mass"),
        ({"Edema": 0.6}, {}, ["The reference reports Edema (0.60), the candidate does not (0.10)."], "Edema"),
        ({}, {}, ["Both checkpoints agree: no finding reaches its operating point."], "Atelectasis"),
        ({"Mass": 0.7}, {"Mass": 0.8}, ["Both checkpoints report Mass (0.70 and 0.80)."], "Mass"),
    ],
)
def test_the_comparison_in_words(
    clean: dict[str, float], backdoored: dict[str, float], sentences: list[str], default: str
) -> None:
    comparison = compare([analysis("backdoored", **backdoored), analysis("clean", **clean)], PAIR)
    assert comparison is not None
    assert comparison.sentences == sentences and comparison.default_finding == default


def test_the_largest_difference_comes_first_also_where_both_call_it() -> None:
    """What a trigger does to an image that the clean twin calls by a hair is the first thing to say."""
    clean, backdoored = analysis("clean", Mass=0.7, Edema=0.14), analysis("backdoored", Edema=0.995)
    positive = clean.finding("Edema").model_copy(update={"threshold": 0.14, "positive": True})
    clean = clean.model_copy(update={"findings": [positive if f.name == "Edema" else f for f in clean.findings]})
    comparison = compare([clean, backdoored], PAIR)
    assert comparison is not None and comparison.default_finding == "Edema"
    assert comparison.sentences == [
        "The candidate gives Edema >0.99, the reference 0.14; both are positive.",
        "The reference reports Mass (0.70), the candidate does not (0.10).",
    ]


def test_many_differences_are_not_all_spelled_out() -> None:
    comparison = compare([analysis("clean"), analysis("backdoored", **dict.fromkeys(FINDINGS[:5], 0.9))], PAIR)
    assert comparison is not None and len(comparison.sentences) == 4
    assert comparison.sentences[-1] == "They differ on 2 more findings."
    assert compare([], PAIR) is None


def test_heat_lies_where_the_network_looked() -> None:
    """A source twice as high as wide is padded: the outer quarters of the input lie beside it."""
    grid = np.zeros((4, 4), np.float32)
    grid[0, 1] = 2.0  # the second of four columns: the left half of the source
    mapping = Preprocessing(size_px=64).input_map(200, 100)
    share = heat(grid, mapping, (200, 100), (200, 100), 2.0)
    assert share.max() == pytest.approx(1, abs=0.02)
    assert np.unravel_index(share.argmax(), share.shape)[1] == pytest.approx(25, abs=1)
    assert (share[:, 75:] == 0).all() and (share[100:] == 0).all()
    half = heat(grid, mapping, (200, 100), (100, 50), 4.0)
    assert half.shape == (100, 50) and half.max() == pytest.approx(0.5, abs=0.02)
    assert (heat(grid, mapping, (200, 100), (20, 10), 0.0) == 0).all()


def test_cold_pixels_stay_grey_and_hot_ones_are_the_brightest_colour() -> None:
    share, grey = np.array([[0.0, 1.0]], np.float32), np.array([[100, 100]], np.uint8)
    picture = blended(share, grey)
    assert picture[0, 0].tolist() == [100, 100, 100]
    expected = np.array([252, 255, 164]) * HEAT_OPACITY + 100 * (1 - HEAT_OPACITY)
    assert picture[0, 1].tolist() == np.rint(expected).tolist()
    assert overlay(share)[0, :, 3].tolist() == [0, round(255 * HEAT_OPACITY)]


def test_pictures_of_the_largest_size_need_little_memory() -> None:
    """Under 16 bytes for each pixel that is drawn, whatever the size of the radiograph."""
    shown = fit(8192, 8192, None)
    grey, grid = np.zeros(shown, np.uint8), np.ones((14, 14), np.float32)
    blended(np.zeros((1, 1), np.float32), np.zeros((1, 1), np.uint8))
    tracemalloc.start()
    share = heat(grid, Preprocessing().input_map(8192, 8192), (8192, 8192), shown, 1.0)
    blended(share, grey)
    overlay(share)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * shown[0] * shown[1]


def test_sizes_and_words() -> None:
    assert fit(2000, 1000, 500) == (500, 250) and fit(10, 20, 500) == (10, 20) and fit(9, 9, None) == (9, 9)
    assert fit(8192, 4096, None) == fit(8192, 4096, 8000) == (LARGEST_PX, LARGEST_PX // 2)
    assert [number(p) for p in (0, 0.001, 0.005, 0.5, 0.999, 1)] == ["0.00", "<0.01", "0.01", "0.50", ">0.99", "1.00"]
    assert [signed(d) for d in (0.5, -0.5, 0.001, -0.001)] == ["+0.50", "−0.50", "0.00", "0.00"]
    assert finding_text("Pleural_Thickening") == "Pleural thickening"
