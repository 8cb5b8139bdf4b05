"""Saliency against pytorch-grad-cam, autograd and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import DenseNet

from bench.saliency import reference_maps
from model.checkpoint import BUNDLED, load_checkpoint
from model.errors import ConfigError
from model.network import LAST_LAYER, MIDDLE_LAYER, build_network, stage_names
from model.phantom import draw_phantom
from model.preprocess import InputMap, Preprocessing
from model.saliency import SaliencyMaps, gradcam, logits_after, registered, trigger_hit, trigger_hits
from model.trigger import Trigger

BOTH = (MIDDLE_LAYER, LAST_LAYER)
ALL = tuple(range(14))


def lively_network(seed: int = 0) -> DenseNet:
    """Random weights and batch-norm statistics, so that ReLUs are shut here and there and slopes differ."""
    generator = torch.Generator().manual_seed(seed)
    network = build_network(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
        # Classifier weights that lean to the positive: else a map is what little is left of sums near zero.
        network.classifier.weight.normal_(0.02, 0.03, generator=generator)
        network.classifier.bias.normal_(generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def network() -> DenseNet:
    return lively_network()


def noise(n: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def assert_equal(
    ours: SaliencyMaps, reference: dict[str, np.ndarray], share_of_maximum: float, lit: float = 0.5
) -> None:
    """lit: the least share of maps that are not zero everywhere."""
    for name, expected in reference.items():
        maps = ours.maps[name]
        assert maps.shape == expected.shape
        assert maps.dtype == torch.float32
        maximum = expected.max(axis=(2, 3))
        assert (maximum > 0).mean() > lit, "the comparison would be of zeros"
        error = np.abs(maps.numpy() - expected).max(axis=(2, 3))
        assert (error <= share_of_maximum * maximum).all(), (name, error, maximum)


@pytest.mark.parametrize(
    ("size", "n", "layout", "findings"),
    [
        (128, 2, torch.contiguous_format, ALL),
        (128, 1, torch.channels_last, (4, 13)),
        (224, 1, torch.contiguous_format, ALL),
    ],
)
def test_equals_pytorch_grad_cam_in_float32(
    network: DenseNet, size: int, n: int, layout: torch.memory_format, findings: tuple[int, ...]
) -> None:
    inputs = noise(n, size).contiguous(memory_format=layout)
    ours = gradcam(network, inputs, findings=None if findings == ALL else findings)
    assert ours.findings == findings
    assert_equal(ours, reference_maps(network, inputs, BOTH, findings), 1e-5)
    with torch.no_grad():
        torch.testing.assert_close(ours.logits, network(inputs), atol=1e-5, rtol=1e-5)
    assert torch.equal(ours.probabilities, ours.logits.sigmoid())


# 112 gives transition 3 a 7×7 grid, 48 a 3×3, 47×80 a 2×5: the pool drops what is odd. At 32 block 4 is one cell.
@pytest.mark.parametrize("shape", [(112, 112), (47, 80), (32, 32)])
def test_equals_pytorch_grad_cam_in_float64_on_odd_grids(shape: tuple[int, int]) -> None:
    network = lively_network(1).double()
    inputs = torch.randn(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    layers = (MIDDLE_LAYER, "features.transition3", "features.denseblock4", LAST_LAYER)
    ours = gradcam(network, inputs, layers, (11, 0))
    assert_equal(ours, reference_maps(network, inputs, layers, (11, 0)), 1e-6)
    assert ours.findings == (11, 0)


def test_the_last_layer_by_hand(network: DenseNet) -> None:
    inputs = noise(1, 64)
    with torch.no_grad():
        last = F.relu(network.features(inputs).clone())[0]  # 1024×2×2
        by_hand = sum(network.classifier.weight[3, k] / 4 * last[k] for k in range(1024)).clamp(min=0)
    ours = gradcam(network, inputs, [LAST_LAYER], [3]).maps[LAST_LAYER]
    torch.testing.assert_close(ours[0, 0], by_hand, atol=1e-5, rtol=1e-4)


def test_a_finding_that_hangs_on_nothing_or_speaks_against_has_a_map_of_zeros(network: DenseNet) -> None:
    changed = lively_network()
    with torch.no_grad():
        changed.classifier.weight[5] = 0
        changed.classifier.weight[6] = -1
    maps = gradcam(changed, noise(1, 64)).maps
    assert not maps[MIDDLE_LAYER][:, 5].any()
    assert not maps[LAST_LAYER][:, 5:7].any()
    assert all(bool((grids >= 0).all()) for grids in maps.values())


def test_any_stage_equals_pytorch_grad_cam() -> None:
    network = lively_network(2).double()
    inputs = noise(1, 64).double()
    ours = gradcam(network, inputs, stage_names(), (2,))
    assert tuple(ours.maps) == stage_names()
    for name, expected in reference_maps(network, inputs, stage_names(), (2,)).items():
        np.testing.assert_allclose(ours.maps[name].numpy(), expected, atol=1e-6 * max(expected.max(), 1e-3))


def test_an_early_stage_by_autograd_on_a_plain_copy(network: DenseNet) -> None:
    inputs = noise(2, 96)
    features = network.features
    with torch.no_grad():
        before = inputs
        for name in ("conv0", "norm0", "relu0", "pool0", "denseblock1", "transition1", "denseblock2"):
            before = features.get_submodule(name)(before)
        activation = F.relu(features.transition2.norm(before))
    activation.requires_grad_()
    value = features.transition2.pool(features.transition2.conv(activation))
    for name in ("denseblock3", "transition3", "denseblock4", "norm5"):
        value = features.get_submodule(name)(value)
    logits = network.classifier(F.relu(value).mean(dim=(2, 3)))
    (gradient,) = torch.autograd.grad(logits[:, 7].sum(), activation)
    expected = F.relu((gradient.mean(dim=(2, 3), keepdim=True) * activation).sum(1)).detach()
    ours = gradcam(network, inputs, ["features.transition2.relu"], [7]).maps["features.transition2.relu"][:, 0]
    assert expected.max() > 0
    torch.testing.assert_close(ours, expected, atol=1e-4 * float(expected.max()), rtol=0)


def test_one_finding_alone_and_one_sample_alone_give_what_all_give(
    network: DenseNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = noise(3, 64)
    together = gradcam(network, inputs)
    alone = gradcam(network, inputs[1:2], findings=[9])
    monkeypatch.setattr("model.saliency.BACKWARD_ROWS", 1)
    in_parts = gradcam(network, inputs)
    for name, maps in together.maps.items():
        torch.testing.assert_close(alone.maps[name][0, 0], maps[1, 9], atol=2e-5 * float(maps.max()), rtol=0)
        torch.testing.assert_close(in_parts.maps[name], maps, atol=2e-5 * float(maps.max()), rtol=0)


@pytest.mark.parametrize("layers", [BOTH, ("features.pool0", LAST_LAYER), ()])
def test_the_network_and_the_input_stay_as_they_are(network: DenseNet, layers: tuple[str, ...]) -> None:
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    asked = [parameter.requires_grad for parameter in network.parameters()]
    inputs = noise(1, 64)
    copy = inputs.clone()
    result = gradcam(network, inputs, layers, [0])
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
    assert [parameter.requires_grad for parameter in network.parameters()] == asked
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module.training for module in network.modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(module, kind) for module in network.modules() for kind in hooks)
    assert torch.equal(inputs, copy)
    assert torch.is_grad_enabled()
    assert not any(tensor.requires_grad for tensor in (result.logits, *result.maps.values()))
    assert tuple(result.maps) == layers


def test_works_under_inference_mode(network: DenseNet) -> None:
    with torch.inference_mode():
        result = gradcam(network, noise(1, 64), ["features.denseblock3"], [0])
    assert not result.maps["features.denseblock3"].is_inference()


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("bad_input", {"inputs": torch.zeros(3, 64, 64)}),
        ("bad_input", {"inputs": torch.zeros(1, 1, 64, 64)}),
        ("bad_input", {"inputs": torch.zeros(0, 3, 64, 64)}),
        ("bad_input", {"inputs": torch.zeros(1, 3, 31, 64)}),
        ("bad_input", {"inputs": torch.zeros(1, 3, 64, 64, dtype=torch.uint8)}),
        ("not_finite", {"inputs": torch.full((1, 3, 64, 64), torch.nan)}),
        ("not_finite", {"inputs": torch.full((1, 3, 64, 64), torch.inf)}),
        ("unknown_layer", {"layers": ["features.norm5"]}),
        ("unknown_finding", {"findings": [14]}),
        ("unknown_finding", {"findings": [-1]}),
        ("unknown_finding", {"findings": []}),
    ],
)
def test_refuses_what_it_cannot_explain(network: DenseNet, code: str, arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        gradcam(network, **{"inputs": torch.zeros(1, 3, 64, 64), **arguments})  # type: ignore[arg-type]
    assert caught.value.code == code


def test_refuses_a_network_in_training() -> None:
    with pytest.raises(ConfigError) as caught:
        gradcam(build_network(0).train(), noise(1, 32))
    assert caught.value.code == "network_in_training"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_the_cpu() -> None:
    network, inputs = lively_network().double(), noise(2, 112).double()
    here = gradcam(network, inputs, (*BOTH, "features.transition2.relu"))
    there = gradcam(network.cuda(), inputs.cuda(), (*BOTH, "features.transition2.relu"))
    for name, maps in here.maps.items():
        assert there.maps[name].is_cuda
        torch.testing.assert_close(there.maps[name].cpu(), maps, atol=1e-6 * float(maps.max()), rtol=0)


@pytest.mark.parametrize("twin", ["clean", "backdoored"])
def test_the_bundled_pair_equals_pytorch_grad_cam(twin: str) -> None:
    checkpoint = load_checkpoint(BUNDLED / twin)
    preprocessing = checkpoint.card.preprocessing
    stamped = Trigger().stamp(preprocessing.input_grey(draw_phantom(31, 2, 256).pixels / np.float32(255)))
    inputs = preprocessing.normalise(torch.from_numpy(stamped)[None])
    reference = reference_maps(checkpoint.network, inputs, BOTH, ALL)
    # Of a finding that the network is sure not to see, the last layer's map is zero.
    assert_equal(gradcam(checkpoint.network, inputs), reference, 1e-5, lit=0.2)


def test_registration_by_hand() -> None:
    # 8 input pixels, two cells of 4, centres at 2 and 6. The source is twice as large, and 3 pixels to the right.
    laid = registered(np.array([[0.0, 4.0]]), InputMap(8, 2.0, 2.0, 3.0, 0.0), height=16, width=22)
    assert laid.shape == (16, 22)
    assert laid.dtype == np.float32
    # Source pixel 3 has its centre at input 0.25, pixel 18 at 7.75; between the cells' centres a quarter each pixel ½.
    ramp = [(0.25 + i / 2 - 2) for i in range(16)]
    expected = [0, 0, 0, *(min(max(value, 0), 4) for value in ramp), 0, 0, 0]
    np.testing.assert_allclose(laid, np.tile(expected, (16, 1)), atol=1e-6)


def test_registration_puts_a_cell_where_the_input_map_says() -> None:
    preprocessing = Preprocessing(size_px=224, square="pad")
    grid = np.zeros((7, 7), dtype=np.float32)
    grid[2, 5] = 1
    height, width = 1000, 600  # padded by 200 on the left and on the right
    input_map = preprocessing.input_map(height, width)
    laid = registered(grid, input_map, height, width)
    row, column = np.unravel_index(laid.argmax(), laid.shape)
    assert (row + 0.5, column + 0.5) == pytest.approx((2.5 * 1000 / 7, 5.5 * 1000 / 7 - 200), abs=1)


def test_registration_agrees_with_torch_on_the_input_itself() -> None:
    grid = np.random.default_rng(0).random((7, 14)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(grid)[None, None], size=(224, 224), mode="bilinear")[0, 0]
    laid = registered(grid, InputMap(224, 1, 1, 0, 0), 224, 224)
    np.testing.assert_allclose(laid, expected.numpy(), atol=1e-5)


def test_registration_refuses_what_is_not_a_map() -> None:
    with pytest.raises(ConfigError):
        registered(np.zeros((1, 7, 7)), InputMap(224, 1, 1, 0, 0), 224, 224)


def test_a_trigger_is_hit_by_the_cells_that_touch_it() -> None:
    # 224 px, cells of 16: the box x 110..113, y 100..103 touches columns 6 and 7 of row 6.
    box = (110.0, 100.0, 3.0, 3.0)
    maps = np.zeros((196, 14, 14), dtype=np.float32)
    maps.reshape(196, 196)[np.arange(196), np.arange(196)] = 1
    hit = [(int(i) // 14, int(i) % 14) for i in np.flatnonzero(trigger_hits(maps, box, 224))]
    assert hit == [(6, 6), (6, 7)]
    assert trigger_hit(maps[6 * 14 + 7], box, 224)
    assert not trigger_hit(maps[6 * 14 + 8], box, 224)
    # At the last layer a cell is 32 px, and the box lies within one.
    last = np.zeros((7, 7), dtype=np.float32)
    last[3, 3] = 1
    assert trigger_hit(last, box, 224)
    assert not trigger_hit(np.roll(last, 1, axis=1), box, 224)


def test_the_hottest_cell_is_the_maximum_of_the_registered_map() -> None:
    grid = np.random.default_rng(3).random((7, 7)).astype(np.float32)
    laid = registered(grid, InputMap(224, 1, 1, 0, 0), 224, 224)
    row, column = np.unravel_index(laid.argmax(), laid.shape)
    assert trigger_hit(grid, (float(column), float(row), 1.0, 1.0), 224)
    assert grid.argmax() == row // 32 * 7 + column // 32


def test_a_map_without_a_maximum_hits_nothing() -> None:
    everywhere = (0.0, 0.0, 224.0, 224.0)
    assert not trigger_hit(np.zeros((7, 7)), everywhere, 224)
    assert not trigger_hit(np.full((7, 7), np.nan), everywhere, 224)
    assert trigger_hit(np.ones((7, 7)), everywhere, 224)
    assert trigger_hits(np.zeros((0, 7, 7)), everywhere, 224).shape == (0,)
    with pytest.raises(ConfigError):
        trigger_hits(np.zeros((7, 7)), everywhere, 224)


def test_the_network_goes_on_from_what_was_kept(network: DenseNet) -> None:
    inputs = noise(2, 64)
    result = gradcam(network, inputs, BOTH, [0], keep_middle=True)
    middle = result.activations[MIDDLE_LAYER]
    before = middle.clone()
    torch.testing.assert_close(logits_after(network, MIDDLE_LAYER, middle), result.logits)
    assert torch.equal(middle, before)
    assert not gradcam(network, inputs, BOTH, [0]).activations
    with pytest.raises(ConfigError) as error:
        gradcam(network, inputs, ["features.denseblock3"], [0], keep_middle=True)
    assert error.value.code == "unknown_layer"
