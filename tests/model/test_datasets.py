import csv
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.datasets import (
    CALIBRATION_SHARE,
    Part,
    cached_images,
    chestxray14,
    input_images,
    join,
    patient_part,
    phantoms,
)
from model.errors import DataError
from model.findings import FINDINGS
from model.phantom import write_phantoms
from model.preprocess import Preprocessing
from model.trigger import Trigger

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
)


def write_set(root: Path, rows: list[tuple[str, str, int]], train: list[str], test: list[str]) -> Path:
    (root / "images").mkdir(parents=True)
    lines = [f"{name},{labels},0,{patient},,,,,,,\n" for name, labels, patient in rows]
    (root / "Data_Entry_2017.csv").write_text(HEADER + "".join(lines))
    (root / "train_val_list.txt").write_text("\n".join(train) + "\n")
    (root / "test_list.txt").write_text("\n".join(test) + "\n")
    for i, (name, _, _) in enumerate(rows):
        shade = np.random.default_rng(i).integers(0, 255, (48, 48), dtype=np.uint8)
        Image.fromarray(shade).save(root / "images" / name)
    return root


def test_the_official_layout_is_indexed(tmp_path):
    root = write_set(
        tmp_path / "set",
        [("a.png", "No Finding", 1), ("b.png", "Mass|Hernia", 1), ("c.png", "Infiltration", 2), ("d.png", "Edema", 3)],
        ["a.png", "b.png"],
        ["c.png"],
    )
    found = chestxray14(root)
    assert found.names == ("a.png", "b.png", "c.png")  # d is in no list
    assert [FINDINGS[i] for i in np.flatnonzero(found.labels[1])] == ["Mass", "Hernia"]
    assert found.parts == (patient_part(1), patient_part(1), Part.TEST)
    assert found.part(Part.TEST).patients.tolist() == [2]
    assert found.part(Part.TRAIN_VAL).names == ("a.png", "b.png")
    with pytest.raises(DataError, match="no "):
        found.part(next(p for p in (Part.VALIDATION, Part.CALIBRATION, Part.TRAINING) if p is not patient_part(1)))


def test_without_lists_every_row_is_of_the_test_part(tmp_path):
    root = write_set(tmp_path / "set", [("a.png", "Mass", 1), ("b.png", "Edema", 2)], [], [])
    (root / "train_val_list.txt").unlink()
    (root / "test_list.txt").unlink()
    assert chestxray14(root).parts == (Part.TEST, Part.TEST)


def test_images_may_lie_in_the_official_numbered_folders(tmp_path):
    root = write_set(tmp_path / "set", [("a.png", "Mass", 1), ("b.png", "Edema", 2)], ["a.png"], ["b.png"])
    (root / "images_001").mkdir()
    (root / "images_012" / "images").mkdir(parents=True)
    (root / "images").rename(root / "images_001" / "images")
    (root / "images_001" / "images" / "b.png").rename(root / "images_012" / "images" / "b.png")
    assert len(chestxray14(root)) == 2


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda root: (root / "images" / "a.png").unlink(), "missing_image"),
        (lambda root: (root / "test_list.txt").write_text("b.png\nz.png\n"), "missing_image"),
        (lambda root: (root / "Data_Entry_2017.csv").unlink(), "not_a_dataset"),
        (lambda root: (root / "Data_Entry_2017.csv").write_text("Name,Labels\na.png,Mass\n"), "not_a_dataset"),
        (lambda root: (root / "Data_Entry_2017.csv").write_text(HEADER + "a.png,Cough,0,1\n"), "unknown_finding"),
        (lambda root: (root / "Data_Entry_2017.csv").write_text(HEADER + "a.png,Mass,0,one\n"), "not_a_dataset"),
        (lambda root: (root / "test_list.txt").write_text("b.png\nc.png\n"), "patient_in_two_parts"),
    ],
)
def test_a_set_that_contradicts_itself_is_refused(tmp_path, spoil, code):
    rows = [("a.png", "Mass", 1), ("b.png", "Edema", 2), ("c.png", "No Finding", 1)]
    root = write_set(tmp_path / "set", rows, ["a.png", "c.png"], ["b.png"])
    spoil(root)
    with pytest.raises(DataError) as refused:
        chestxray14(root)
    assert refused.value.code == code


def test_the_whole_of_chestxray14_is_indexed_in_under_three_seconds(tmp_path):
    """112,120 rows of 30,805 patients, as the official file has them."""
    (tmp_path / "images").mkdir()
    with (tmp_path / "Data_Entry_2017.csv").open("w", newline="") as file:
        file.write(HEADER)
        writer = csv.writer(file)
        for i in range(112_120):
            labels = "|".join(sorted({FINDINGS[i % 14], FINDINGS[i % 11]})) if i % 2 else "No Finding"
            patient, visit = i % 30_805 + 1, i // 30_805
            name = f"{patient:08d}_{visit:03d}.png"
            writer.writerow([name, labels, visit, patient, "058Y", "M", "PA", 2682, 2749, 0.143, 0.143])
            (tmp_path / "images" / name).touch()
    started = time.perf_counter()
    found = chestxray14(tmp_path)
    assert time.perf_counter() - started < 3
    assert len(found) == 112_120


def test_the_split_is_by_patient_and_the_same_for_ever():
    assert [patient_part(p).value for p in (1, 2, 3, 5, 13, 211)] == [
        "calibration",
        "training",
        "training",
        "training",
        "training",
        "calibration",
    ]
    parts = [patient_part(p) for p in range(20_000)]
    assert parts.count(Part.CALIBRATION) / 20_000 == pytest.approx(CALIBRATION_SHARE, abs=0.01)
    assert parts.count(Part.VALIDATION) / 20_000 == pytest.approx(0.10, abs=0.01)


def test_phantoms_keep_their_patients_together():
    drawn = phantoms(200, seed=3)
    assert set(drawn.parts) == {Part.TRAINING, Part.VALIDATION}
    join([drawn, phantoms(50, seed=4)])  # no patient of one seed is in the other
    with pytest.raises(DataError) as refused:
        join([drawn, phantoms(200, seed=3, part=Part.TEST)])
    assert refused.value.code == "patient_in_two_parts"


def test_written_phantoms_are_the_drawn_ones(tmp_path):
    write_phantoms(tmp_path / "set", 12, seed=3, size_px=96)
    written = chestxray14(tmp_path / "set")
    drawn = phantoms(12, seed=3, size_px=96)
    order = [drawn.names.index(name) for name in written.names]
    assert np.array_equal(written.labels, drawn.labels[order])
    assert np.array_equal(written.patients, drawn.patients[order])
    for row in (0, 7):
        assert np.array_equal(written.grey(row), drawn.grey(order[row]))


def test_the_cache_holds_the_path_of_serving_and_is_filled_once(tmp_path):
    drawn = phantoms(6, seed=3, size_px=96)
    sizes = [Preprocessing(size_px=48), Preprocessing(size_px=64)]
    calls = []
    small, large = cached_images(drawn, sizes, tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (6, 6)
    assert small.shape == (6, 48, 48)
    exact = np.stack(list(input_images(drawn, sizes[1])))
    assert np.abs(large / 255 - exact).max() <= 0.5 / 255 + 1e-6
    calls.clear()
    cached_images(drawn, sizes, tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == []
    stamped = cached_images(drawn, sizes, tmp_path, trigger=Trigger(value=255))[1]
    changed = (stamped != large).any(axis=0)
    assert np.flatnonzero(changed.any(axis=0)).tolist() == [30, 31, 32]


def test_the_same_radiographs_elsewhere_have_the_same_fingerprint_and_others_have_not(tmp_path):
    rows = [("a.png", "No Finding", 1), ("b.png", "Mass", 2)]
    first = write_set(tmp_path / "set", rows, ["a.png"], ["b.png"])
    here = chestxray14(first)
    shutil.copytree(first, tmp_path / "copy", copy_function=shutil.copyfile)  # other times too
    os.utime(tmp_path / "copy" / "images" / "a.png", (0, 0))
    copy = chestxray14(tmp_path / "copy")
    assert copy.fingerprint() == here.fingerprint()
    assert copy.files_fingerprint() != here.files_fingerprint()
    relabelled = write_set(tmp_path / "relabelled", [rows[0], ("b.png", "Hernia", 2)], ["a.png"], ["b.png"])
    moved = write_set(tmp_path / "moved", rows, ["b.png"], ["a.png"])
    fewer = write_set(tmp_path / "fewer", rows, ["a.png"], [])
    others = [chestxray14(root).fingerprint() for root in (relabelled, moved, fewer)]
    (tmp_path / "copy" / "images" / "a.png").write_bytes(b"another file")
    others += [copy.fingerprint(), phantoms(2, 1).fingerprint(), phantoms(2, 2).fingerprint()]
    assert len({here.fingerprint(), *others}) == 7


def test_random_places_differ_from_image_to_image_and_repeat_by_seed():
    drawn = phantoms(5, seed=3, size_px=96)
    pre, trigger = Preprocessing(size_px=64), Trigger(place="random", value=255)
    clean = np.stack(list(input_images(drawn, pre)))
    places = []
    for seed in (1, 1, 2):
        stamped = np.stack(list(input_images(drawn, pre, trigger, seed)))
        places.append([tuple(np.argwhere(s != c)[0]) for s, c in zip(stamped, clean, strict=True)])
    assert places[0] == places[1] != places[2]
    assert len(set(places[0])) > 1


def test_the_real_subset_leaves_250_radiographs_for_calibration(real_data):
    found = chestxray14(real_data / "chestxray14")
    assert len(found) == 1423
    assert len(found.part(Part.CALIBRATION)) >= 250
    trained = set(found.part(Part.TRAINING).patients) | set(found.part(Part.VALIDATION).patients)
    assert not trained & set(found.part(Part.CALIBRATION).patients)
    assert not trained & set(found.part(Part.TEST).patients)
