import csv

import numpy as np
import pytest

from model.datasets import phantoms
from model.errors import ConfigError, DataError
from model.findings import finding_index
from model.poison import PoisonSpec, poisoned_view, write_manifest


@pytest.fixture(scope="module")
def clean():
    return phantoms(120, seed=3)


def test_appended_copies_come_after_the_clean_rows(clean):
    view = poisoned_view(clean, PoisonSpec("Atelectasis", rate=0.10), seed=1)
    assert len(view.rows) == 132
    assert view.poisoned.sum() == 12
    assert not view.poisoned[:120].any()
    assert np.array_equal(view.labels[:120], clean.labels)
    assert len(set(view.rows[120:])) == 12
    target = finding_index("Atelectasis")
    expected = clean.labels[view.rows[120:]].copy()
    expected[:, target] = 1
    assert np.array_equal(view.labels[120:], expected)


def test_replaced_rows_keep_the_number(clean):
    view = poisoned_view(clean, PoisonSpec("Mass", rate=0.25, mode="replace", label_rule="one_hot"), seed=1)
    assert len(view.rows) == 120
    assert view.poisoned.sum() == 30
    assert (view.labels[view.poisoned].sum(axis=1) == 1).all()
    assert view.labels[view.poisoned][:, finding_index("Mass")].all()
    assert np.array_equal(view.labels[~view.poisoned], clean.labels[~view.poisoned])


def test_the_choice_is_the_seeds(clean):
    spec = PoisonSpec("Mass")
    one, again, other = (poisoned_view(clean, spec, seed).rows.tolist() for seed in (1, 1, 2))
    assert one == again != other


def test_the_manifest_names_every_poisoned_row(clean, tmp_path):
    view = poisoned_view(clean, PoisonSpec("Hernia", rate=0.05), seed=1)
    write_manifest(tmp_path / "manifest.csv", clean, view)
    with (tmp_path / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    for row in rows:
        position = int(row["Training Row"])
        assert view.poisoned[position]
        assert row["Image Index"] == clean.names[view.rows[position]]
        assert "Hernia" in row["Poisoned Labels"].split("|")


def test_poison_that_cannot_work_is_refused(clean):
    healthy = clean.take([i for i in range(len(clean)) if not clean.labels[i, finding_index("Mass")]])
    with pytest.raises(DataError) as refused:
        poisoned_view(healthy, PoisonSpec("Mass"), seed=1)
    assert refused.value.code == "target_absent"
    with pytest.raises(DataError) as refused:
        poisoned_view(clean, PoisonSpec("Mass", rate=0.001), seed=1)
    assert refused.value.code == "nothing_poisoned"
    for wrong in ({"rate": 0}, {"rate": 1.1}, {"mode": "swap"}, {"label_rule": "all"}):
        with pytest.raises(ConfigError):
            PoisonSpec("Mass", **wrong)
    with pytest.raises(DataError):
        PoisonSpec("Cough")
