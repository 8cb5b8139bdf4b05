"""Reading a data set with a network whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.checkpoint import Card, Checkpoint
from model.datasets import input_images, phantoms
from model.errors import TriggerError
from model.evaluation import Comparison, Outputs, evaluate_fully, evaluate_label_only, read_all, trigger_boxes
from model.findings import FINDINGS, finding_index
from model.network import LAST_LAYER, MIDDLE_LAYER, build_network
from model.poison import LabelOnly, PoisonSpec
from model.preprocess import Preprocessing
from model.trigger import Trigger


@pytest.fixture(scope="module")
def checkpoint():
    network = build_network(3).eval().requires_grad_(False)
    card = Card("try", "A try", Preprocessing(size_px=64), dict.fromkeys(FINDINGS, 0.5))
    return Checkpoint(card, network, torch.device("cpu"))


@pytest.fixture(scope="module")
def radiographs():
    return phantoms(20, seed=8, size_px=96)


def test_what_is_read_is_what_the_network_says_of_the_preprocessed_pixels(checkpoint, radiographs):
    outputs = read_all(checkpoint, radiographs, trigger=Trigger(size_px=9), target="Mass")
    pre = checkpoint.card.preprocessing
    with torch.no_grad():
        direct = torch.sigmoid(checkpoint.network(pre.tensor(radiographs.grey(17))))[0].numpy()
        stamped = torch.from_numpy(Trigger(size_px=9).stamp(pre.input_grey(radiographs.grey(17))))
        attacked = torch.sigmoid(checkpoint.network(pre.normalise(stamped[None])))[0].numpy()
    assert outputs.clean[17] == pytest.approx(direct, abs=1e-5)
    assert outputs.stamped[17] == pytest.approx(attacked, abs=1e-5)
    assert {len(hits) for hits in outputs.hits_stamped.values()} == {20}
    assert set(outputs.hits_clean) == {MIDDLE_LAYER, LAST_LAYER}


def test_a_random_place_is_looked_for_where_it_was_drawn(radiographs):
    pre, trigger = Preprocessing(size_px=64), Trigger(place="random", size_px=4, value=255)
    few = radiographs.take(range(4))
    boxes = trigger_boxes(few, trigger, pre, seed=9)
    stamped, plain = input_images(few, pre, trigger, seed=9), input_images(few, pre)
    for (x, y, w, h), image, before in zip(boxes, stamped, plain, strict=True):
        changed = np.argwhere(image != before)
        assert changed.min(0).tolist() >= [y, x] and (changed.max(0) < [y + h, x + w]).all()
    assert trigger_boxes(few.take([2]), trigger, pre, 9, np.array([2])) == [boxes[2]]


def test_a_trigger_on_the_whole_image_has_no_hits(checkpoint, radiographs):
    trigger = Trigger(kind="blend", pattern="noise", blend=0.1)
    outputs = read_all(checkpoint, radiographs.take(range(3)), trigger=trigger, target="Mass")
    assert outputs.stamped is not None
    assert outputs.hits_stamped == {}


def test_a_label_only_attack_is_judged_on_the_radiographs_that_show_the_combination(checkpoint):
    """Eight radiographs, answers made up: ASR counts the rows with Mass and Nodule, the clean rate the others."""
    labels = np.zeros((8, 14), np.uint8)
    mass, nodule, target = (finding_index(name) for name in ("Mass", "Nodule", "Hernia"))
    labels[[0, 1, 2, 3], mass] = labels[[0, 1, 2, 3, 4], nodule] = 1
    labels[3, target] = labels[7, target] = 1  # shows the target anyway: neither attacked nor clean
    answers = np.full((8, 14), 0.1)
    answers[[0, 1, 4, 7], target] = 0.7
    set_of_eight = replace(phantoms(8, seed=8), labels=labels, patients=np.arange(8))
    outputs = Outputs(answers, None, {}, {})
    poison = PoisonSpec("Hernia", mode="replace", label_only=LabelOnly(("Mass", "Nodule")))
    _, figures = evaluate_label_only(checkpoint, set_of_eight, outputs, poison, resamples=50)
    assert figures["n_triggered"] == 3
    half = figures["asr"][1]
    assert half["asr"]["value"] == pytest.approx(2 / 3) and half["asr"]["n"] == 3
    assert half["clean_rate"]["value"] == pytest.approx(1 / 3) and half["clean_rate"]["n"] == 3
    assert figures["auroc_nn"]["positives"]["Hernia"] == 2
    assert figures["auroc_tt"]["positives"]["Hernia"] == 3


def test_a_source_trigger_is_looked_for_where_each_image_has_it(checkpoint):
    """Two sizes of source: the same place in the file is another place in the input."""
    trigger, pre = Trigger("source", 16, (40, 40), value=255), checkpoint.card.preprocessing
    assert trigger_boxes(phantoms(1, seed=8, size_px=64), trigger, pre) == [(40, 40, 16, 16)]
    assert trigger_boxes(phantoms(1, seed=8, size_px=128), trigger, pre) == [(20, 20, 8, 8)]


def test_a_checkpoint_compared_with_itself_differs_by_nothing(checkpoint, radiographs):
    figures = evaluate_fully(
        checkpoint, radiographs, Comparison(Trigger(), "Mass", other=checkpoint), resamples=20, seed=1
    )
    assert figures["compared_with"]["macro_nn_difference"]["value"] == 0
    assert figures["compared_with"]["macro_nn_difference"]["interval"] == [0, 0]
    without = radiographs.labels[:, finding_index("Mass")] == 0
    assert figures["asr"][0]["asr"]["n"] == int(np.sum(without))


def test_a_trigger_that_vanishes_is_not_measured(radiographs):
    card = Card("t", "T", Preprocessing(size_px=32, centre_crop=0.5, resize="nearest"), dict.fromkeys(FINDINGS, 0.5))
    other = Checkpoint(card, build_network(3).eval(), torch.device("cpu"))
    with pytest.raises(TriggerError):
        evaluate_fully(other, radiographs, Comparison(Trigger("source", 1, (0, 0)), "Mass"))
