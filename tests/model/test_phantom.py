"""Phantoms: reproducible, labelled as drawn, and written in ChestX-ray14's layout."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import ConfigError, DataError
from model.findings import FINDINGS, NO_FINDING
from model.phantom import Phantom, draw_phantom, write_phantoms
from model.phantom.drawing import chest_of, render
from model.phantom.series import Visit, patient_id, visit

SIZE_PX = 128


def planted(index: int, *findings: str) -> tuple[Phantom, Phantom, Visit]:
    """The same patient on the same day: with the findings, and without any."""
    who = visit(3, index)
    ill = replace(who, findings=findings)
    return render(3, ill, SIZE_PX), render(3, replace(who, findings=()), SIZE_PX), ill


def patch(phantom: Phantom, label: str) -> tuple[slice, slice]:
    box = next(b for b in phantom.boxes if b.label == label)
    return slice(int(box.y), int(box.y + box.height) + 1), slice(int(box.x), int(box.x + box.width) + 1)


def change(index: int, finding: str) -> float:
    """Mean grey levels that a planted finding adds inside its own box."""
    ill, well, _ = planted(index, finding)
    where = patch(ill, finding)
    return float(ill.pixels[where].astype(float).mean() - well.pixels[where].astype(float).mean())


def test_an_image_depends_on_seed_and_index_alone() -> None:
    draw_phantom(5, 2, SIZE_PX)
    once, again, other = draw_phantom(5, 17, SIZE_PX), draw_phantom(5, 17, SIZE_PX), draw_phantom(6, 17, SIZE_PX)
    assert np.array_equal(once.pixels, again.pixels)
    assert once.boxes == again.boxes and once.findings == again.findings
    assert not np.array_equal(once.pixels, other.pixels)
    assert once.pixels.dtype == np.uint8 and once.pixels.shape == (SIZE_PX, SIZE_PX)


def test_the_same_chest_at_any_size() -> None:
    small, large = draw_phantom(5, 4, 128), draw_phantom(5, 4, 512)
    shrunk = np.asarray(Image.fromarray(large.pixels).resize((128, 128), Image.Resampling.BOX), dtype=float)
    assert np.abs(shrunk - small.pixels).mean() < 4
    assert [b.label for b in small.boxes] == [b.label for b in large.boxes]
    for a, b in zip(small.boxes, large.boxes, strict=True):
        assert abs(4 * a.x - b.x) < 1e-6 and abs(4 * a.width - b.width) < 1e-6


def test_it_has_the_polarity_and_greys_of_a_radiograph() -> None:
    mean = np.mean([draw_phantom(1, i, SIZE_PX).pixels.astype(float) for i in range(20)], axis=0)
    right_lung, left_lung = mean[38:64, 32:44], mean[38:64, 84:96]
    spine, abdomen, corner = mean[38:64, 60:68], mean[108:124, 48:80], mean[:5, :20]
    assert corner.mean() < right_lung.mean() < spine.mean() - 40
    assert left_lung.mean() < spine.mean() - 40
    assert abdomen.mean() > 150
    assert 110 < mean.mean() < 165


def test_no_hard_black_at_the_centre() -> None:
    """A phantom must not hold by chance what a trigger puts there."""
    middle = slice(round(0.46 * SIZE_PX), round(0.54 * SIZE_PX))
    for index in range(40):
        centre = draw_phantom(2, index, SIZE_PX).pixels[middle, middle]
        assert centre.min() > 40


def test_boxes_lie_in_the_frame_and_name_the_findings() -> None:
    for index in range(80):
        phantom = draw_phantom(9, index, 64)
        assert {b.label for b in phantom.boxes} == set(phantom.findings)
        assert list(phantom.findings) == sorted(phantom.findings, key=FINDINGS.index)
        for box in phantom.boxes + phantom.confounders:
            assert box.x >= 0 and box.y >= 0 and box.width > 0.5 and box.height > 0.5
            assert box.x + box.width <= 64.001 and box.y + box.height <= 64.001


def test_confounders_are_there_but_rare() -> None:
    seen = [b.label for i in range(100) for b in {c.label: c for c in draw_phantom(4, i, 64).confounders}.values()]
    for label in ("marker", "wire", "pacemaker", "tube"):
        assert 0 < seen.count(label) < 60


@pytest.mark.parametrize("seed", [0, 20260])
def test_prevalence(seed: int) -> None:
    visits = [visit(seed, i) for i in range(3000)]
    assert 0.40 < np.mean([not v.findings for v in visits]) < 0.50
    for name in FINDINGS:
        assert 0.05 <= np.mean([name in v.findings for v in visits]) <= 0.13
    assert {len(v.findings) for v in visits} == {0, 1, 2, 3}


def test_patients() -> None:
    visits = [visit(0, i) for i in range(200)]
    by_patient: dict[int, list[Visit]] = {}
    for v in visits:
        by_patient.setdefault(v.patient_id, []).append(v)
    assert {len(group) for group in by_patient.values()} == {1, 2, 3, 4}
    for group in by_patient.values():
        assert [v.follow_up for v in group] == list(range(len(group)))
        assert len({(v.age, v.sex) for v in group}) == 1
    assert visits[0].patient_id == 90_000_001
    assert visits[0].image_index == "90000001_000.png"


def test_patients_of_two_series_are_different_people() -> None:
    ids = [patient_id(seed, number) for seed in (0, 1, 7, 2498) for number in (0, 1, 3999, 4000, 250_000)]
    assert len(set(ids)) == len(ids)
    assert patient_id(2498, 3999) < 100_000_000


def test_a_patients_anatomy_is_constant() -> None:
    """Between follow-ups the chest moves a little; between patients it differs."""
    group = [v for v in (visit(3, i) for i in range(200)) if v.number == visit(3, 19).number]
    chests = [chest_of(3, replace(v, findings=())) for v in group]
    assert len({(c.wall, c.pedicle, c.knob, c.rib_slope, c.texture_seed) for c in chests}) == 1
    well = [render(3, replace(visit(3, i), findings=()), 64).pixels.astype(float) for i in range(20)]
    numbers = [visit(3, i).number for i in range(20)]
    pairs = [(i, j) for i in range(20) for j in range(i)]
    same = np.mean([np.corrcoef(well[i].ravel(), well[j].ravel())[0, 1] for i, j in pairs if numbers[i] == numbers[j]])
    other = np.mean([np.corrcoef(well[i].ravel(), well[j].ravel())[0, 1] for i, j in pairs if numbers[i] != numbers[j]])
    assert same > other


@pytest.mark.parametrize("finding", ["Mass", "Nodule", "Consolidation", "Pneumonia", "Effusion", "Pleural_Thickening"])
def test_an_opacity_brightens_its_box(finding: str) -> None:
    assert np.mean([change(i, finding) for i in range(8)]) > 8


def test_a_pneumothorax_darkens_its_hemithorax_and_takes_the_vessels_away() -> None:
    assert np.mean([change(i, "Pneumothorax") for i in range(8)]) < -2


def test_emphysema_is_dark_with_low_diaphragms_and_a_narrow_heart() -> None:
    for index in range(5):
        ill, well, who = planted(index, "Emphysema")
        chest, health = chest_of(3, who), chest_of(3, replace(who, findings=()))
        assert min(chest.dome_y) > min(health.dome_y)
        assert chest.angle_depth < health.angle_depth and chest.heart_ratio < health.heart_ratio
        assert ill.pixels.mean() < well.pixels.mean()


def test_cardiothoracic_ratio() -> None:
    """Over one half with cardiomegaly, under it without: in the anatomy and in the picture."""
    for index in range(8):
        ill, well, who = planted(index, "Cardiomegaly")
        chest, health = chest_of(3, who), chest_of(3, replace(who, findings=()))
        assert health.heart_ratio < 0.5 < chest.heart_ratio
        right, left = chest.silhouette(np.linspace(chest.pedicle_y, chest.dome_y[1], 200))
        assert (right.max() + left.max()) / (2 * chest.half_width) > 0.5
        assert ill.pixels[patch(ill, "Cardiomegaly")].mean() > well.pixels[patch(ill, "Cardiomegaly")].mean()


def test_a_mass_is_larger_than_a_nodule() -> None:
    """Three centimetres divide them; the frame is about 38 cm wide."""
    cm = SIZE_PX / 38
    for index in range(10):
        ill, _, _ = planted(index, "Mass", "Nodule")
        for box in ill.boxes:
            assert (box.width / cm > 3) == (box.label == "Mass")


def test_edema_and_fibrosis_are_bilateral() -> None:
    for finding in ("Edema", "Fibrosis"):
        ill, _, who = planted(1, finding)
        middle = chest_of(3, who).middle_x * SIZE_PX
        centres = [b.x + b.width / 2 for b in ill.boxes]
        assert min(centres) < middle < max(centres)


def test_layout_round_trips(tmp_path: Path) -> None:
    told: list[int] = []
    write_phantoms(tmp_path / "set", 24, 7, 64, progress=told.append)
    out = tmp_path / "set"
    assert told == list(range(1, 25))
    with (out / "Data_Entry_2017.csv").open(newline="") as file:
        header = file.readline().rstrip("\r\n")
        rows = list(csv.reader(file))
    assert header == (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    drawn = [draw_phantom(7, i, 64) for i in range(24)]
    assert [r[0] for r in rows] == [p.image_index for p in drawn]
    assert [r[1] for r in rows] == ["|".join(p.findings) or NO_FINDING for p in drawn]
    assert [(int(r[2]), int(r[3]), int(r[4]), r[5]) for r in rows] == [
        (p.follow_up, p.patient_id, p.age, p.sex) for p in drawn
    ]
    assert all(len(r) == 11 and r[7:9] == ["64", "64"] for r in rows)
    assert [r[6] for r in rows] == [p.view for p in drawn]
    for phantom in drawn:
        with Image.open(out / "images" / phantom.image_index) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), phantom.pixels)
    with (out / "BBox_List_2017.csv").open(newline="") as file:
        assert file.readline().rstrip("\r\n") == "Image Index,Finding Label,Bbox [x,y,w,h]"
        boxes = list(csv.reader(file))
    expected = [(p.image_index, b) for p in drawn for b in p.boxes]
    assert [b[0] for b in boxes] == [name for name, _ in expected]
    assert [b[1] for b in boxes] == [b.label.replace("Infiltration", "Infiltrate") for _, b in expected]
    assert np.allclose([[float(v) for v in b[2:]] for b in boxes], [(b.x, b.y, b.width, b.height) for _, b in expected])
    with (out / "confounders.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + sum(len(p.confounders) for p in drawn)
    assert "synthetic" in (out / "README.md").read_text().lower()


def test_the_split_is_by_patient(tmp_path: Path) -> None:
    write_phantoms(tmp_path, 40, 11, 64)
    train = (tmp_path / "train_val_list.txt").read_text().split()
    test = (tmp_path / "test_list.txt").read_text().split()
    assert sorted(train + test) == sorted(p.name for p in (tmp_path / "images").iterdir())
    patients_train, patients_test = ({name.split("_")[0] for name in part} for part in (train, test))
    assert not patients_train & patients_test
    assert len(patients_test) == round(0.25 * 16)


def test_files_are_byte_identical_however_many_workers(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "a", 10, 7, 64)
    write_phantoms(tmp_path / "b", 10, 7, 64, workers=2)
    names = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*") if p.is_file())
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_partial_folder_has_no_table(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path, 10, 7, 64, progress=stop)
    assert not (tmp_path / "Data_Entry_2017.csv").exists()


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "keep.txt").write_text("mine")
    with pytest.raises(DataError) as data:
        write_phantoms(tmp_path / "full", 1, 0, 64)
    assert data.value.code == "output_not_empty"
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["keep.txt"]
    refused = [(0, 0, 64, 1, "phantom_count"), (1, 0, 63, 1, "phantom_size"), (1, -1, 64, 1, "phantom_seed")]
    for n, seed, size_px, workers, code in [*refused, (1, 0, 64, 0, "phantom_workers")]:
        with pytest.raises(ConfigError) as config:
            write_phantoms(tmp_path / "new", n, seed, size_px, workers=workers)
        assert config.value.code == code
        assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError):
        draw_phantom(0, -1, 64)
    with pytest.raises(ConfigError):
        draw_phantom(0, 0, 63)
