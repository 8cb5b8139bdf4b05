import pytest
import torch
from torch.nn import functional as F

from model.errors import ConfigError
from model.network import LAST_LAYER, MIDDLE_LAYER, build_network, check_stage, head, last_activation, stages


def test_the_middle_layer_is_where_the_paper_points():
    listed = {stage.name: stage for stage in stages(224)}
    assert listed[MIDDLE_LAYER].grid == (14, 14)
    assert listed[MIDDLE_LAYER].channels == 1024
    assert listed[MIDDLE_LAYER].depth == pytest.approx(207 / 287, abs=0.01)
    assert listed[LAST_LAYER].grid == (7, 7)
    assert listed[LAST_LAYER].depth == 1.0
    assert list(listed) == sorted(listed, key=lambda name: listed[name].depth)


def test_the_same_seed_gives_the_same_network_and_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second, other = build_network(1), build_network(1), build_network(2)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.features.conv0.weight, second.features.conv0.weight)
    assert not torch.equal(first.features.conv0.weight, other.features.conv0.weight)


def test_head_and_last_activation_make_up_torchvisions_forward_pass():
    network = build_network(1).eval()
    inputs = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        normalised = network.features(inputs)
        assert torch.allclose(head(network, F.relu(normalised)), network(inputs), atol=1e-6)
        features = inputs
        for name, module in network.features.named_children():
            if name != "norm5":
                features = module(features)
        assert torch.allclose(head(network, last_activation(network, features)), network(inputs), atol=1e-6)


def test_an_unknown_layer_is_refused_with_the_choice():
    with pytest.raises(ConfigError, match=r"transition3\.relu"):
        check_stage("features.attention")
