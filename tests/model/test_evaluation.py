"""Reading a data set with a network whose answers are known."""

import numpy as np
import pytest
import torch

from model.checkpoint import Card, Checkpoint
from model.datasets import phantoms
from model.errors import TriggerError
from model.evaluation import Comparison, evaluate_fully, read_all, trigger_boxes
from model.findings import FINDINGS, finding_index
from model.network import LAST_LAYER, MIDDLE_LAYER, build_network
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


def test_a_trigger_at_a_random_place_has_no_hits(checkpoint, radiographs):
    outputs = read_all(checkpoint, radiographs.take(range(3)), trigger=Trigger(place="random"), target="Mass")
    assert outputs.stamped is not None
    assert outputs.hits_stamped == {}


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
