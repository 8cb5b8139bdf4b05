"""The quicker copy gives the network's logits, whatever kind of network it is, and leaves the network alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.checkpoint import BUNDLED, load_checkpoint
from model.inference import optimized_for_inference
from model.network import RescaledDenseNet, build_network


@pytest.mark.parametrize(("channels", "rescaled"), [(3, False), (1, True)])
def test_the_logits_are_the_networks(channels: int, rescaled: bool) -> None:
    network = build_network(3, channels, rescaled).train()
    rng = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # untrained ones change nothing, and would hide an error in the folding
            shape = module.running_mean.shape
            module.running_mean.copy_(torch.randn(shape, generator=rng) / 10)
            module.running_var.copy_(torch.rand(shape, generator=rng) + 0.5)
            module.weight.data.copy_(torch.rand(shape, generator=rng) + 0.5)
            module.bias.data.copy_(torch.randn(shape, generator=rng) / 10)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimized = optimized_for_inference(network)
    assert network.training and not optimized.training
    assert type(optimized) is type(network) and isinstance(optimized, RescaledDenseNet) == rescaled
    inputs = torch.randn((2, channels, 96, 80), generator=rng)
    with torch.inference_mode():
        expected = network.eval()(inputs)
        for layout in (torch.contiguous_format, torch.channels_last):
            torch.testing.assert_close(optimized(inputs.contiguous(memory_format=layout)), expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.01
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(value.requires_grad for value in network.parameters())
    assert not any(value.requires_grad for value in optimized.parameters())


def test_a_trained_networks_logits_differ_by_rounding_alone() -> None:
    network = load_checkpoint(BUNDLED / "backdoored").network
    inputs = torch.randn((2, 3, 128, 128), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(inputs)
        torch.testing.assert_close(optimized_for_inference(network)(inputs), expected, atol=1e-4, rtol=0)
    assert expected.abs().max() > 1
