"""Saliency quality beside maps worked out by hand, OpenCV and pytorch-grad-cam."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import ROADLeastRelevantFirst, ROADMostRelevantFirst
from torch import Tensor, nn

from model.checkpoint import Card, Checkpoint
from model.errors import ConfigError, DataError
from model.explanation import INPUT, Method, Occlusion, ScoreCam
from model.findings import FINDINGS
from model.metrics import mean_with_interval
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.phantom import draw_phantom, write_phantoms
from model.preprocess import Preprocessing
from model.quality import (
    CASCADE,
    AssessmentPlan,
    BoxCase,
    assess,
    box_iou,
    box_mask,
    cascade,
    cross_fitted_iou,
    dataset_cases,
    deletion,
    enlarged,
    insertion,
    iou,
    otsu_threshold,
    phantom_cases,
    pointing_hit,
    rank_correlation,
    relevance_mass,
    road,
    sanity_check,
    ssim,
    tuned_threshold,
)
from model.quality.report import as_markdown, sanity_as_markdown
from model.saliency import gradcam
from tests.model.test_saliency import lively_network, noise

MAP = np.array([[0, 1, 0, 0], [0, 4, 2, 0], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=np.float32)


def test_a_mask_holds_the_pixels_whose_centres_lie_in_a_box() -> None:
    mask = box_mask([(0.4, 1.0, 1.2, 2.0), (3.0, 3.0, 9.0, 9.0)], 4, 4)
    assert [tuple(map(int, place)) for place in np.argwhere(mask)] == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 3)]
    with pytest.raises(DataError) as caught:
        box_mask([(4.0, 0.0, 2.0, 2.0)], 4, 4)
    assert caught.value.code == "box_outside"


def test_pointing_mass_and_iou_by_hand() -> None:
    around, beside = box_mask([(1, 1, 2, 1)], 4, 4), box_mask([(2, 1, 2, 2)], 4, 4)
    assert pointing_hit(MAP, around)
    assert not pointing_hit(MAP, beside)
    assert relevance_mass(MAP, around) == pytest.approx(6 / 8)
    assert relevance_mass(MAP, beside) == pytest.approx(3 / 8)
    # Over half of the maximum lies the 4 alone; over a fifth all four that are not 0.
    assert box_iou(MAP, around, 0.5) == 1 / 2
    assert box_iou(MAP, around, 0.2) == 2 / 4
    assert box_iou(MAP, beside, 0.2) == 2 / 6
    assert iou(around, beside) == 1 / 5


def test_a_map_of_zeros_says_nothing() -> None:
    mask, nothing = box_mask([(0, 0, 4, 4)], 4, 4), np.zeros((4, 4))
    assert not pointing_hit(nothing, mask)
    assert relevance_mass(nothing, mask) == box_iou(nothing, mask) == box_iou(nothing, mask, 0.3) == 0
    assert iou(~mask, ~mask) == 0


def test_otsu_parts_as_opencv_does() -> None:
    generator = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8):
        high = generator.random((64, 64)) < share
        image = np.clip(np.where(high, 170, 60) + generator.normal(0, 15, (64, 64)), 1, 254).astype(np.uint8)
        image[0, :2] = 0, 255  # so that 256 levels of ours are OpenCV's
        _, expected = cv2.threshold(image, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        agrees = (image > otsu_threshold(image)) == (expected > 0)
        assert agrees.mean() > 0.999
    assert otsu_threshold(np.full(4, 3.0)) == 3.0
    assert otsu_threshold([0, 0, 0, 10, 10]) == pytest.approx(10 / 256)


def test_a_threshold_is_judged_only_on_patients_it_was_not_tuned_on() -> None:
    thresholds = (0.2, 0.5)
    # Patients 1 and 3 are best at 0.5, patients 2 and 4 at 0.2: each half is judged at what suits the other.
    table = [[0.1, 0.9], [0.8, 0.3], [0.0, 0.6], [0.7, 0.2], [0.9, 0.0]]
    values, chosen = cross_fitted_iou(table, [1, 2, 3, 4, 4], thresholds)
    assert values.tolist() == [0.1, 0.3, 0.0, 0.2, 0.0]
    assert chosen == (0.2, 0.5)
    assert tuned_threshold([[0.5, 0.5]], thresholds) == 0
    for code, patients in (("one_patient", [1] * 5), ("shape_mismatch", [1, 2])):
        with pytest.raises(DataError) as caught:
            cross_fitted_iou(table, patients, thresholds)
        assert caught.value.code == code


def test_a_mean_has_an_interval_over_patients() -> None:
    rng = np.random.default_rng(0)
    found = mean_with_interval([1.0, 1.0, 4.0], ["a", "a", "b"], rng=rng, resamples=400)
    assert found.value == 2.0
    assert found.interval == (1.0, 4.0)  # draws of two patients: aa, ab, ba, bb
    assert mean_with_interval([3.0, 5.0], [7, 7], rng=rng).interval is None
    assert mean_with_interval([], [], rng=rng).value is None
    with pytest.raises(DataError):
        mean_with_interval([np.nan], [1], rng=rng)


@pytest.mark.parametrize(
    "call",
    [
        lambda mask: pointing_hit(np.zeros((3, 4)), mask),
        lambda mask: relevance_mass(np.full((4, 4), -1.0), mask),
        lambda mask: box_iou(np.full((4, 4), np.nan), mask),
        lambda mask: box_iou(MAP, mask, 1.0),
        lambda mask: iou(mask, mask[:2]),
        lambda mask: otsu_threshold([]),
        lambda mask: tuned_threshold([[0.1]]),
        lambda mask: ssim(MAP, MAP[:2]),
        lambda mask: rank_correlation(MAP[0], MAP[0]),
    ],
)
def test_refuses_what_is_no_map(call: object) -> None:
    with pytest.raises(DataError):
        call(np.ones((4, 4), np.bool_))  # type: ignore[operator]


class LeftBrightness(nn.Module):
    """The logit of finding 0 grows with the brightness of the left half; the right half counts for nothing."""

    def forward(self, inputs: Tensor) -> Tensor:
        half = inputs[:, 0, :, : inputs.shape[3] // 2].mean((1, 2)) - inputs.new_tensor(0.5)
        return torch.stack([4 * half, *[torch.zeros_like(half)] * 13], 1)


def test_insertion_and_deletion_change_the_most_salient_pixels_first() -> None:
    inputs = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    inputs[:, :, :, :16] += torch.linspace(1, 0, 32)[None, None, :, None]
    network = LeftBrightness().eval()
    knows, ignores = np.zeros((32, 32)), np.zeros((32, 32))
    knows[:16, :16] = inputs[0, 0, :16, :16]
    ignores[:, 16:] = inputs[0, 0, :, 16:]
    with torch.no_grad():
        whole = float(network(inputs)[0, 0].sigmoid())
    curve = deletion(network, inputs, ignores, 0, steps=4)
    assert len(curve.probabilities) == 5
    assert curve.probabilities[:3] == pytest.approx([whole] * 3)  # half of the pixels, none that counts
    assert insertion(network, inputs, knows, 0, steps=4).probabilities[-1] == pytest.approx(whole)
    assert curve.area == pytest.approx(np.trapezoid(curve.probabilities, dx=0.25))


def test_insertion_reaches_far_earlier_with_a_map_of_what_counts() -> None:
    # A bright square in the dark: blurred, it nearly vanishes.
    inputs = torch.zeros(1, 3, 64, 64)
    inputs[:, :, 30:34, 8:12] = 4

    class Peak(nn.Module):
        def forward(self, seen: Tensor) -> Tensor:
            return (seen[:, 0].amax((1, 2)) * 2 - 4)[:, None].repeat(1, 14)

    square, elsewhere = np.zeros((64, 64)), np.zeros((64, 64))
    square[30:34, 8:12] = 1
    elsewhere[:, 40:] = 1
    network = Peak().eval()
    assert insertion(network, inputs, square, 3).area > insertion(network, inputs, elsewhere, 3).area + 0.2
    assert deletion(network, inputs, square, 3).area < deletion(network, inputs, elsewhere, 3).area - 0.2


def test_road_is_the_librarys_and_repeats_itself() -> None:
    network, inputs = LeftBrightness().eval(), noise(1, 32)
    saliency = np.random.default_rng(1).random((32, 32)).astype(np.float32)
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    found = road(network, inputs, saliency, 0, percentiles=(30, 70), seed=2)
    assert torch.equal(torch.rand(1), expected_next)  # the global generator is left alone
    assert found == road(network, inputs, saliency, 0, percentiles=(30, 70), seed=2)
    targets = [lambda logits: logits[0].sigmoid()]
    torch.manual_seed(2)
    least = [ROADLeastRelevantFirst(p)(inputs, saliency[None], targets, network)[0] for p in (30, 70)]
    most = [ROADMostRelevantFirst(p)(inputs, saliency[None], targets, network)[0] for p in (30, 70)]
    assert found == pytest.approx((np.mean(least) - np.mean(most)) / 2, abs=1e-6)


@pytest.mark.parametrize("measure", [insertion, deletion, road])
def test_perturbation_needs_a_map_with_an_order(measure: object) -> None:
    for saliency, code in ((np.zeros((32, 32)), "flat_map"), (np.eye(16), "shape_mismatch")):
        with pytest.raises(DataError) as caught:
            measure(LeftBrightness().eval(), noise(1, 32), saliency, 0)  # type: ignore[operator]
        assert caught.value.code == code


def test_likeness_by_hand() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.random((9, 9)), generator.random((9, 9))
    assert ssim(one, one) == pytest.approx(1)
    assert ssim(one, 5 * one) == pytest.approx(1)  # maps are compared as shares of their maxima
    assert ssim(one, other) < 0.5
    # Two constant maps are alike in brightness and have no structure; zero against constant: c1 / (1 + c1).
    assert ssim(np.zeros((9, 9)), np.ones((9, 9))) == pytest.approx(0.0001 / 1.0001)
    assert rank_correlation([[1, 2], [3, 4]], [[10, 20], [30, 400]]) == pytest.approx(1)
    assert rank_correlation([[1, 2], [3, 4]], [[4, 3], [2, 1]]) == pytest.approx(-1)
    # Ranks 1 2 3 4 and 2 1 4 3: 1 − 6·Σd² / (n(n² − 1)) = 1 − 24/60.
    assert rank_correlation([[1, 2], [3, 4]], [[2, 1], [4, 3]]) == pytest.approx(0.6)
    assert rank_correlation(np.zeros((2, 2)), one[:2, :2]) is None


def test_the_cascade_reaches_down_part_by_part_and_leaves_the_network_alone() -> None:
    network = lively_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    changed = []
    for part, randomised in cascade(network, seed=4):
        state = randomised.state_dict()
        changed.append({name for name, tensor in state.items() if not torch.equal(tensor, before[name])})
        assert any(name.startswith(part) for name in changed[-1])
    assert len(changed) == len(CASCADE)
    assert all(first < second for first, second in pairwise(changed))
    assert {name.rsplit(".", 1)[0] for name in changed[0]} == {"classifier"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    untouched = {name for name in before if not name.endswith("num_batches_tracked")} - changed[-1]
    assert not untouched


def test_the_sanity_check_tells_a_map_of_the_network_from_one_of_the_image() -> None:
    network, inputs = lively_network(), noise(2, 64)
    steps = sanity_check(network, inputs, Method.GRAD_CAM, MIDDLE_LAYER, [0, 1])
    assert [step.part for step in steps] == list(CASCADE)
    assert all(step.n <= 4 for step in steps)
    deep = [step for step in steps if step.n]
    assert deep
    assert abs(deep[-1].rank_correlation or 0) < 0.9
    # Eigen-CAM at an early layer does not see the classifier at all: randomising it changes nothing.
    first = sanity_check(network, inputs[:1], Method.EIGEN_CAM, MIDDLE_LAYER, [0])[0]
    assert first.rank_correlation == pytest.approx(1)
    assert first.similarity == pytest.approx(1)
    assert "classifier" in sanity_as_markdown(steps)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("boxed") / "set"
    write_phantoms(out, 12, seed=5, size_px=128)
    return out


def test_cases_of_a_folder_and_of_a_seed_are_the_same(folder: Path) -> None:
    preprocessing = Preprocessing(size_px=64)
    listed = {case.name: case for case in dataset_cases(folder, preprocessing)}
    phantoms = [draw_phantom(5, index, 128) for index in range(12)]
    assert set(listed) == {phantom.image_index for phantom in phantoms if phantom.boxes}
    for case in phantom_cases(3, 5, preprocessing, size_px=128):
        same = listed[case.name]
        np.testing.assert_allclose(case.image, same.image, atol=1e-6)
        assert case.patient == same.patient
        assert case.boxes.keys() == same.boxes.keys()
        for finding, boxes in case.boxes.items():
            np.testing.assert_allclose(boxes, same.boxes[finding], atol=1e-3)
            phantom = next(one for one in phantoms if one.image_index == case.name)
            first = next(box for box in phantom.boxes if box.label == FINDINGS[finding])
            assert boxes[0] == pytest.approx((first.x / 2, first.y / 2, first.width / 2, first.height / 2))


def test_official_boxes_are_in_a_frame_of_1024(real_data: Path) -> None:
    preprocessing = Preprocessing(size_px=224)
    cases = list(dataset_cases(real_data / "chestxray14", preprocessing))
    assert sum(len(case.boxes) for case in cases) == 50
    by_name = {case.name: case for case in cases}
    (box,) = by_name["00004296_000.png"].boxes[FINDINGS.index("Atelectasis")]
    assert box == pytest.approx([v * 224 / 1024 for v in (731.4285714, 753.1005291, 119.1957672, 93.18941799)])
    with pytest.raises(DataError) as caught:
        list(dataset_cases(real_data / "chestxray14", preprocessing, box_frame_px=384))
    assert caught.value.code == "box_outside"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "no_boxes"),
        ("a,b\n", "no_boxes"),
        ("a\nx.png,Mass,1,2,3\n", "bad_box"),
        ("a\nx.png,Mass,1,2,0,4\n", "bad_box"),
    ],
)
def test_bad_box_files_are_refused(folder: Path, tmp_path: Path, text: str | None, code: str) -> None:
    for path in folder.iterdir():
        if path.name != "BBox_List_2017.csv":
            (tmp_path / path.name).symlink_to(path)
    if text is not None:
        (tmp_path / "BBox_List_2017.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        list(dataset_cases(tmp_path, Preprocessing(size_px=64)))
    assert caught.value.code == code


def test_an_assessment_is_what_its_parts_say() -> None:
    preprocessing = Preprocessing(size_px=64)
    card = Card("toy", "Toy", preprocessing, dict.fromkeys(FINDINGS, 0.5))
    checkpoint = Checkpoint(card, lively_network(), torch.device("cpu"))
    cases = list(phantom_cases(4, 9, preprocessing, size_px=64))
    cases.append(BoxCase("cropped", 1, cases[0].image, {2: ((-50.0, 0.0, 9.0, 9.0),)}))
    plan = AssessmentPlan(
        methods=(Method.GRAD_CAM, Method.OCCLUSION, Method.SCORE_CAM),
        layers=(LAST_LAYER,),
        slow_images=1,
        perturbed_images=1,
        occlusion=Occlusion(24, 32),
        scorecam=ScoreCam(channels=2),
        resamples=20,
    )
    table = assess(checkpoint, cases, plan)
    assert table.images == 4
    assert [(row.method, row.layer) for row in table.rows] == [
        ("grad-cam", LAST_LAYER),
        ("occlusion", INPUT),
        ("scorecam", LAST_LAYER),
    ]
    first, slow, _ = table.rows
    pairs = [(case, finding) for case in cases[:4] for finding in case.boxes]
    assert first.n == len(pairs)
    assert slow.n == len(cases[0].boxes)
    masses, hits, areas = [], [], []
    for case, finding in pairs:
        inputs = preprocessing.normalise(torch.from_numpy(case.image)[None])
        grid = gradcam(checkpoint.network, inputs, (LAST_LAYER,), (finding,)).maps[LAST_LAYER][0, 0].numpy()
        mask = box_mask(case.boxes[finding], 64, 64)
        masses.append(relevance_mass(enlarged(grid, 64), mask))
        hits.append(pointing_hit(enlarged(grid, 64), mask))
        areas.append(mask.mean())
    assert first.mass.value == pytest.approx(np.mean(masses), abs=1e-4)
    assert first.pointing.value == pytest.approx(np.mean(hits))
    assert table.area.value == pytest.approx(np.mean(areas))
    assert 0 < first.n_perturbed <= len(cases[0].boxes)
    assert first.road.value is not None
    text = as_markdown(table)
    assert "not for diagnosis" in text
    assert "ROAD" in text
    assert table.to_json()["rows"][0]["pointing"]["n"] == len(pairs)
    with pytest.raises(DataError) as caught:
        assess(checkpoint, [cases[-1]], plan)
    assert caught.value.code == "no_boxes"


def test_a_plan_without_methods_is_refused() -> None:
    with pytest.raises(ConfigError):
        AssessmentPlan(methods=())
