"""The hit-rate table from hits that were made up."""

import csv

import numpy as np

from model.experiment.hits import POOLED, HitTable, _rows
from model.network import LAST_LAYER, MIDDLE_LAYER

PATIENTS = np.array([1, 1, 2, 3, 4, 5, 6, 7])


def hits(middle, last):
    return {MIDDLE_LAYER: np.array(middle, bool), LAST_LAYER: np.array(last, bool)}


ALL, NONE, HALF = [1] * 8, [0] * 8, [1, 0] * 4


def table():
    one = {
        (4, "backdoored", True): hits(ALL, NONE),
        (4, "backdoored", False): hits(NONE, NONE),
        (12, "backdoored", True): hits(HALF, ALL),
        (12, "backdoored", False): hits(HALF, ALL),
    }
    two = {**one, (4, "backdoored", True): hits(HALF, NONE)}
    return HitTable(tuple(_rows({"a": one, "b": two}, PATIENTS, resamples=200)), (1, 2))


def test_runs_are_pooled_by_patient_and_shown_apart():
    rows = {(row.epoch, row.run, row.stamped): row for row in table().rows}
    pooled = rows[4, POOLED, True]
    assert pooled.middle.value == 0.75 and pooled.last.value == 0
    assert (pooled.middle.n, pooled.n_patients) == (16, 7)
    assert rows[4, "a", True].middle.value == 1 and rows[4, "b", True].middle.value == 0.5
    assert pooled.difference.value == 0.75
    low, high = pooled.difference.interval
    assert 0 < low < 0.75 < high <= 1


def test_the_table_says_which_layer_wins_whichever_it_is():
    assert [row.ahead for row in table().rows if row.run == POOLED and row.stamped] == ["middle", "last"]
    fourth, twelfth = table().sentences()
    assert fourth.startswith("Epoch 4: the middle layer finds") and "unstamped 0.000 and 0.000" in fourth
    assert twelfth.startswith("Epoch 12: the last layer finds") and "unstamped 0.500 and 1.000" in twelfth
    even = HitTable(
        tuple(_rows({"a": {(1, "backdoored", s): hits(HALF, HALF) for s in (True, False)}}, PATIENTS, 50)), (1,)
    )
    assert even.rows[0].ahead == "neither"
    assert "neither layer is shown" in even.sentences()[0]


def test_no_layer_is_named_where_the_runs_disagree():
    one = {(4, "backdoored", True): hits(ALL, HALF), (4, "backdoored", False): hits(NONE, NONE)}
    two = {**one, (4, "backdoored", True): hits(NONE, ALL)}
    made = HitTable(tuple(_rows({"a": one, "b": two}, PATIENTS, resamples=200)), (1, 2))
    assert made.rows[0].run == POOLED and made.rows[0].ahead != "neither"
    (said,) = made.sentences()
    assert (
        "the runs disagree" in said
        and "a: middle; b: last" in said
        and "finds the trigger more often (middle" not in said
    )


def test_the_csv_holds_every_row(tmp_path):
    table().write_csv(tmp_path / "hits.csv")
    with (tmp_path / "hits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert rows[0]["run"] == POOLED and float(rows[0]["middle_minus_last"]) == 0.75
    assert float(rows[0]["middle_minus_last_low"]) < 0.75
    assert rows[0]["ahead"] == "middle"
