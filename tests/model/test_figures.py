"""The paper's figure: what its panels hold, and that its files are the same twice."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from model.checkpoint import Card, Checkpoint
from model.figures import Panel, draw_figure, read_panel, save_figure, truncated_gradcam
from model.findings import FINDINGS
from model.network import LAST_LAYER, MIDDLE_LAYER, build_network
from model.preprocess import Preprocessing
from model.saliency import gradcam
from model.trigger import Trigger


@pytest.fixture(scope="module")
def checkpoint():
    card = Card("try", "A try", Preprocessing(size_px=64), dict.fromkeys(FINDINGS, 0.5))
    return Checkpoint(card, build_network(3).eval().requires_grad_(False), torch.device("cpu"))


def test_the_released_code_s_map_weighs_transition_3_by_the_classifier(checkpoint):
    network, inputs = checkpoint.network, torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    kept = []
    handle = network.features.transition3.norm.register_forward_hook(lambda _m, _i, out: kept.append(out.clone()))
    with torch.no_grad():
        network(inputs)
    handle.remove()
    activation = F.relu(kept[0])
    by_hand = sum(network.classifier.weight[5, k] / 16 * activation[:, k] for k in range(1024)).relu()
    truncated = truncated_gradcam(network, inputs, 5)
    assert truncated.shape == (2, 4, 4)
    assert torch.allclose(truncated, by_hand, atol=1e-6)
    true = gradcam(network, inputs, (MIDDLE_LAYER, LAST_LAYER), [5]).maps[MIDDLE_LAYER][:, 0]
    assert not torch.allclose(truncated, true, atol=1e-3)


def test_a_panel_lies_over_the_source_and_rings_the_trigger(checkpoint):
    grey = np.full((128, 128), 0.5, np.float32)
    panel = read_panel(checkpoint, grey, Trigger(size_px=4, place=(10, 20)), "Mass")
    assert panel.box == (20, 40, 8, 8)
    assert (panel.grey[40:48, 20:28] == 0).all() and (grey == 0.5).all()
    assert {name: one.shape for name, one in panel.maps.items()} == {"last": (128, 128), "middle": (128, 128)}
    assert 0 < panel.probability < 1
    whole = read_panel(checkpoint, grey, Trigger(kind="blend", pattern="noise", blend=0.1), "Mass")
    assert whole.box is None and not np.array_equal(whole.grey, grey)
    assert np.array_equal(read_panel(checkpoint, grey, None, "Mass").grey, grey)


def test_the_files_show_every_panel_and_are_the_same_twice(tmp_path):
    def panel(value, where):
        one = np.zeros((40, 40), np.float32)
        one[where, where] = value
        return Panel(np.full((40, 40), 0.5, np.float32), {"last": one, "middle": one * 0}, 0.25, (4, 4, 3, 3))

    rows = [(1, panel(0.2, 5), panel(0.4, 30)), (12, panel(0, 5), panel(2, 30))]
    for name in ("one", "two"):
        png, svg = save_figure(draw_figure(rows, title="Where they look", caption=["A square."]), tmp_path / name)
        assert Image.open(png).width > 1200
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    text = svg.read_text()
    for wanted in (
        "epoch 12",
        "last layer, clean twin",
        "middle layer, backdoored twin",
        "peak 0.4",
        "not for diagnosis",
    ):
        assert wanted in text
    columns = ["last layer, clean", "last layer, backdoored", "middle layer, clean", "middle layer, backdoored"]
    assert [text.index(c) for c in columns] == sorted(text.index(c) for c in columns)
