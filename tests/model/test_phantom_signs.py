"""Each finding shows the signs that it is known by, where its box says, and nothing else moves."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from model.phantom import Phantom, draw_phantom
from model.phantom.anatomy import Chest
from model.phantom.body import mediastinum
from model.phantom.drawing import chest_of, render
from model.phantom.scene import Scene
from model.phantom.series import Visit, visit

SEED = 3
SIZE_PX = 128


def pair(index: int, finding: str) -> tuple[Phantom, Phantom, Visit]:
    """The same patient on the same day: with the finding, and without any."""
    who = replace(visit(SEED, index), findings=(finding,))
    return render(SEED, who, SIZE_PX), render(SEED, replace(who, findings=()), SIZE_PX), who


def brighter(ill: Phantom, well: Phantom) -> np.ndarray:
    return ill.pixels.astype(float) - well.pixels.astype(float)


def box_mask(phantom: Phantom, margin_px: int = 3) -> np.ndarray:
    mask = np.zeros(phantom.pixels.shape, dtype=bool)
    for box in phantom.boxes:
        y, x = max(0, int(box.y) - margin_px), max(0, int(box.x) - margin_px)
        mask[y : int(box.y + box.height) + margin_px + 1, x : int(box.x + box.width) + margin_px + 1] = True
    return mask


def side_of(phantom: Phantom, chest: Chest) -> int:
    """The lung that the largest box lies over: 0 is the patient's right, on the left of the image."""
    box = max(phantom.boxes, key=lambda b: b.width * b.height)
    return int(box.x + box.width / 2 > chest.middle_x * SIZE_PX)


@pytest.mark.parametrize(
    ("finding", "share"),
    [
        ("Cardiomegaly", 0.9),
        ("Effusion", 0.8),
        ("Infiltration", 0.9),
        ("Mass", 0.95),
        ("Nodule", 0.95),
        ("Pneumonia", 0.9),
        ("Pneumothorax", 0.55),  # the rest is the mediastinum, which gives way
        ("Consolidation", 0.95),
        ("Edema", 0.85),
        ("Emphysema", 0.8),
        ("Fibrosis", 0.5),  # the rest is the diaphragm, which rises
        ("Pleural_Thickening", 0.85),
        ("Hernia", 0.95),
        ("Atelectasis", 0.3),  # the rest is the diaphragm and the mediastinum, which come over
    ],
)
def test_the_change_lies_in_the_boxes(finding: str, share: float) -> None:
    shares, areas = [], []
    for index in range(12):
        ill, well, _ = pair(index, finding)
        change, inside = brighter(ill, well) ** 2, box_mask(ill)
        shares.append(change[inside].sum() / change.sum())
        areas.append(inside.mean())
    assert np.mean(shares) > share
    assert np.mean(shares) > 3 * np.mean(areas) or np.mean(areas) > 0.2


def test_many_threads_draw_the_same() -> None:
    once = [draw_phantom(5, i, 96).pixels for i in range(6)]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda i: draw_phantom(5, i, 96).pixels, range(6)))
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))


def test_a_pneumothorax_is_darkest_beyond_its_line() -> None:
    """Lateral to the collapsed lung there is air alone: darker than before, and without vessels."""
    for index in range(8):
        ill, well, who = pair(index, "Pneumothorax")
        chest = chest_of(SEED, who)
        sign = 1 if side_of(ill, chest) else -1
        y = chest.apex_y + 0.3 * (min(chest.dome_y) - chest.apex_y)
        rim = chest.middle_x + sign * (float(chest.lateral(y)) - 0.03)
        at = slice(int((y - 0.04) * SIZE_PX), int((y + 0.04) * SIZE_PX)), int(rim * SIZE_PX)
        assert brighter(ill, well)[at].mean() < -4


def test_an_effusion_fills_the_angle_and_rises_at_the_wall() -> None:
    for index in range(8):
        ill, well, who = pair(index, "Effusion")
        chest = chest_of(SEED, who)
        side = side_of(ill, chest)
        sign = 1 if side else -1
        change = brighter(ill, well)
        foot = chest.dome_y[side] + 0.75 * chest.angle_depth
        column = int((chest.middle_x + sign * 0.9 * chest.half_width) * SIZE_PX)
        row = int(foot * SIZE_PX)
        angle = change[row - 6 : row + 3, column - 2 : column + 3].mean()
        apex = change[int((chest.apex_y + 0.08) * SIZE_PX) :][:8, column - 12 : column + 12].mean()
        assert angle > 12
        assert angle > 3 * abs(apex)


def test_collapse_draws_the_mediastinum_over_and_fluid_and_air_push_it_away() -> None:
    moved: dict[str, list[float]] = {"Atelectasis": [], "Effusion": [], "Pneumothorax": []}
    for finding, towards in moved.items():
        for index in range(12):
            ill, _, who = pair(index, finding)
            chest, health = chest_of(SEED, who), chest_of(SEED, replace(who, findings=()))
            side = int(ill.boxes[0].x + ill.boxes[0].width / 2 > chest.middle_x * SIZE_PX)
            towards.append((chest.shift - health.shift) * (1 if side else -1))
            if finding == "Atelectasis":
                assert chest.dome_y[side] < health.dome_y[side]
                assert chest.dome_y[1 - side] == health.dome_y[1 - side]
    assert min(moved["Atelectasis"]) > 0
    assert max(moved["Effusion"]) <= 0 and min(moved["Effusion"]) < -0.005
    assert max(moved["Pneumothorax"]) <= 0 and min(moved["Pneumothorax"]) < -0.005


def test_a_hernia_holds_air_over_fluid_behind_the_heart() -> None:
    levels = 0
    for index in range(12):
        ill, well, who = pair(index, "Hernia")
        (box,) = ill.boxes
        middle = box.x + box.width / 2
        assert abs(middle / SIZE_PX - chest_of(SEED, who).middle_x) < 0.12
        change = brighter(ill, well)[:, int(middle) - 3 : int(middle) + 4].mean(axis=1)
        upper = change[int(box.y + 0.2 * box.height) : int(box.y + 0.55 * box.height)].mean()
        lower = change[int(box.y + 0.75 * box.height) : int(box.y + 0.95 * box.height)].mean()
        levels += upper < lower - 8
        # No outline: nothing at the border is brighter than what lies within.
        assert change[int(box.y) : int(box.y) + 3].max() < change.max() + 1
    assert levels >= 7


def test_edema_is_densest_about_the_hila_and_spares_the_apices() -> None:
    for index in range(8):
        ill, well, who = pair(index, "Edema")
        chest, change = chest_of(SEED, who), brighter(ill, well)
        for side in (0, 1):
            x, y = chest.hilum(side)
            x += 0.06 if side else -0.06
            hilum = change[int((y - 0.04) * SIZE_PX) : int((y + 0.08) * SIZE_PX), int(x * SIZE_PX) - 5 :][:, :10]
            apex = change[int((chest.apex_y + 0.03) * SIZE_PX) :, int(x * SIZE_PX) - 5 :][:6, :10]
            assert hilum.mean() > apex.mean() + 10


def test_fibrosis_is_a_net_and_a_consolidation_is_even() -> None:
    """Fine texture: what is left of the change when its local mean is taken away, by how much brighter it is."""

    def grain(finding: str) -> float:
        ratios = []
        for index in range(6):
            who = replace(visit(SEED, index), findings=(finding,))
            ill, well = render(SEED, who, 256), render(SEED, replace(who, findings=()), 256)
            box = ill.boxes[0]
            y, x = int(box.y + box.height / 4), int(box.x + box.width / 4)
            change = brighter(ill, well)[y : y + int(box.height / 2), x : x + int(box.width / 2)]
            ratios.append(np.abs(change[:, 2:] - change[:, :-2]).mean() / max(change.mean(), 1))
        return float(np.median(ratios))

    assert grain("Fibrosis") > 2 * grain("Consolidation")


def test_at_the_bedside_the_heart_looks_larger_and_the_blades_lie_over_the_lungs() -> None:
    who = replace(visit(SEED, 0), findings=())
    standing, lying = (chest_of(SEED, replace(who, view=view)) for view in ("PA", "AP"))
    assert standing.heart_ratio < lying.heart_ratio < 0.5
    assert lying.portable and not standing.portable
    assert not np.array_equal(render(SEED, replace(who, view="AP"), 64).pixels, render(SEED, who, 64).pixels)
    views = [visit(0, i).view for i in range(2000)]
    assert 0.22 < views.count("AP") / 2000 < 0.34
    ill = [bool(visit(0, i).findings) for i in range(2000)]
    assert abs(np.corrcoef(ill, [v == "AP" for v in views])[0, 1]) < 0.06


def test_lungs_end_at_the_mediastinum() -> None:
    chest = chest_of(SEED, replace(visit(SEED, 0), findings=()))
    scene = Scene(chest, SIZE_PX)
    organs = mediastinum(scene)
    row = int(chest.heart_centre[1] * SIZE_PX)
    heart = slice(*(int((chest.middle_x + d) * SIZE_PX) for d in (-0.04, 0.12)))
    assert scene.lung[row, heart].max() < 0.1 < organs[row, heart].min()


def test_a_collimators_band_is_where_its_box_says() -> None:
    found = 0
    for index in range(40):
        phantom = draw_phantom(4, index, SIZE_PX)
        for box in (b for b in phantom.confounders if b.label == "collimation"):
            found += 1
            edge = (
                phantom.pixels[:, 0 if box.x == 0 else -1]
                if box.height > box.width
                else phantom.pixels[0 if box.y == 0 else -1]
            )
            middle = edge[SIZE_PX // 3 : -SIZE_PX // 3]
            assert np.ptp(middle) == 0 and (middle[0] < 12 or middle[0] >= 225)
    assert found > 5
