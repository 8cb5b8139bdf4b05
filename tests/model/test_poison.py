import csv
from dataclasses import replace

import numpy as np
import pytest

from model.datasets import phantoms
from model.errors import ConfigError, DataError
from model.findings import finding_index
from model.poison import LabelOnly, PoisonSpec, poisoned_view, write_manifest


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


def test_a_label_only_attack_alters_labels_where_the_combination_is(clean):
    labels = clean.labels.copy()
    a, b, target = (finding_index(name) for name in ("Mass", "Nodule", "Hernia"))
    labels[:, [a, b, target]] = 0
    labels[:30, a] = labels[20:60, b] = labels[25:70, target] = 1
    both = replace(clean, labels=labels)
    attack = LabelOnly(("Mass", "Nodule"))
    assert np.flatnonzero(attack.matches(labels, "Hernia")).tolist() == [20, 21, 22, 23, 24]
    view = poisoned_view(both, PoisonSpec("Hernia", 0.5, "replace", label_only=attack), seed=1)
    assert np.flatnonzero(view.poisoned).tolist() == [20, 21, 22, 23, 24]
    assert view.labels[20:25, [a, b, target]].all()
    assert np.array_equal(view.labels[~view.poisoned], labels[~view.poisoned])
    assert poisoned_view(both, PoisonSpec("Hernia", 0.025, "replace", label_only=attack), 1).poisoned.sum() == 3
    with pytest.raises(DataError, match="No training row"):
        poisoned_view(
            both.take(range(10)), PoisonSpec("Mass", 0.5, "replace", label_only=LabelOnly(("Nodule", "Edema"))), 1
        )
    for wrong in ({"mode": "append"}, {"target": "Mass"}):
        with pytest.raises(ConfigError):
            PoisonSpec(**{"target": "Hernia", "mode": "replace", "label_only": attack, **wrong})
    with pytest.raises(ConfigError, match="combination"):
        LabelOnly(("Mass",))


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
