"""Other explanations, each beside pytorch-grad-cam called directly, or beside numbers worked out by hand."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, ScoreCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_with_sign_correction
from torch import Tensor, nn
from torchvision.models import DenseNet

from bench.saliency import Hookable
from model.errors import ConfigError, DataError
from model.explanation import INPUT, Method, Occlusion, ScoreCam, explain, forward_passes, occluded_drops
from model.network import LAST_LAYER, MIDDLE_LAYER
from model.saliency import gradcam
from tests.model.test_saliency import lively_network, noise

BOTH = (MIDDLE_LAYER, LAST_LAYER)
EARLY = "features.transition2.relu"
REFERENCE = {
    Method.GRAD_CAM: GradCAM,
    Method.GRAD_CAM_PLUS_PLUS: GradCAMPlusPlus,
    Method.LAYER_CAM: LayerCAM,
    Method.HI_RES_CAM: HiResCAM,
    Method.SCORE_CAM: ScoreCAM,
}


@pytest.fixture(scope="module")
def network() -> DenseNet:
    return lively_network().double()  # in float32 both would differ by the order of their sums


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    return noise(2, 64).double()


CASES = [(method, layer) for method in list(REFERENCE)[:4] for layer in (EARLY, MIDDLE_LAYER, LAST_LAYER)]


# Score-CAM's forward passes are as many as channels, so it is compared where there are 64.
@pytest.mark.parametrize(("method", "layer"), [*CASES, (Method.SCORE_CAM, "features.pool0")])
def test_equals_pytorch_grad_cam(network: DenseNet, inputs: Tensor, method: Method, layer: str) -> None:
    if method is Method.SCORE_CAM:
        inputs = inputs[:1, :, :32, :32]
    findings = (0, 7)
    ours = explain(network, inputs, method, [layer], findings, scorecam=ScoreCam(channels=None))
    assert ours.findings == findings
    assert ours.maps[layer].dtype == torch.float32
    copy = Hookable(network)
    for i, finding in enumerate(findings):
        with REFERENCE[method](copy, [copy.layer(layer)]) as cam:
            reference = cam(inputs, [ClassifierOutputTarget(finding)] * len(inputs))
        # The library enlarges a map and stretches it to 0..1; so must ours be, to be compared.
        grids = ours.maps[layer][:, i].double().numpy()
        assert (grids.max(axis=(1, 2)) > 0).all()
        stretched = scale_cam_image(scale_cam_image(grids, tuple(inputs.shape[2:])))
        np.testing.assert_allclose(stretched, reference, atol=1e-5)


@pytest.mark.parametrize("layer", ["features.pool0", EARLY, LAST_LAYER])
def test_eigen_cam_equals_the_librarys_with_the_sign_settled(network: DenseNet, inputs: Tensor, layer: str) -> None:
    ours = explain(network, inputs, Method.EIGEN_CAM, [layer], [3, 4]).maps[layer].numpy()
    assert np.array_equal(ours[:, 0], ours[:, 1])
    copy = Hookable(network)
    with EigenCAM(copy, [copy.layer(layer)]) as cam:
        cam.forward(inputs, [ClassifierOutputTarget(3)] * len(inputs))
        activations = cam.activations_and_grads.activations[0].numpy()
    expected = np.maximum(get_2d_projection_with_sign_correction(activations), 0)
    np.testing.assert_allclose(ours[:, 0], expected, atol=1e-5 * expected.max())


def test_all_layers_and_findings_in_one_call_are_what_each_alone_gives(network: DenseNet, inputs: Tensor) -> None:
    for method in (Method.GRAD_CAM_PLUS_PLUS, Method.LAYER_CAM, Method.HI_RES_CAM, Method.EIGEN_CAM, Method.SCORE_CAM):
        options = ScoreCam(channels=5, batch=3)
        together = explain(network, inputs, method, (LAST_LAYER, EARLY), ("Mass", 9), scorecam=options)
        assert list(together.maps) == [LAST_LAYER, EARLY]
        assert together.findings == (4, 9)
        torch.testing.assert_close(together.logits, network(inputs).float())
        for layer in (LAST_LAYER, EARLY):
            alone = explain(network, inputs[1:], method, [layer], [9], scorecam=options).maps[layer]
            tolerance = 1e-5 * float(alone.max())
            torch.testing.assert_close(together.maps[layer][1:, 1:], alone, atol=tolerance, rtol=0)


def test_score_cam_tries_the_channels_that_vary_most(network: DenseNet, inputs: Tensor) -> None:
    seen: list[int] = []
    handle = network.features.conv0.register_forward_hook(lambda _m, _i, output: seen.append(len(output)))
    options = ScoreCam(channels=6, batch=4)
    few = explain(network, inputs[:1], Method.SCORE_CAM, [LAST_LAYER], [2], scorecam=options)
    handle.remove()
    assert seen == [1, 4, 2]
    assert forward_passes("scorecam", scorecam=options) == 6
    with torch.no_grad():
        activation = torch.relu(network.features(inputs[:1]).clone())[0]
        best = activation.flatten(1).std(1).argsort(descending=True)[:6]
        masks = nn.UpsamplingBilinear2d(size=64)(activation[best][None])[0]
        low, high = masks.flatten(1).min(1).values, masks.flatten(1).max(1).values
        masks = (masks - low[:, None, None]) / (high - low)[:, None, None]
        scores = torch.stack([network(inputs[:1] * mask)[0, 2] for mask in masks]).softmax(0)
        expected = sum(score * one for score, one in zip(scores, activation[best], strict=True)).relu()
    torch.testing.assert_close(few.maps[LAST_LAYER][0, 0].double(), expected, atol=1e-6, rtol=1e-5)


class BrightnessOf(nn.Module):
    """14 logits: the first is the sum of one rectangle's first channel, the second its negative."""

    def forward(self, inputs: Tensor) -> Tensor:
        total = inputs[:, 0, 8:16, 16:24].sum((1, 2))
        return torch.stack([total, -total, *[torch.zeros_like(total)] * 12], dim=1)


def test_occlusion_by_hand() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[:, :, 8:16, 16:24] = 1
    network = BrightnessOf().eval()
    logits, drops = occluded_drops(network, image, (0, 1, 5), Occlusion(8, 8, batch=5))
    assert logits[0, :2].tolist() == [64, -64]
    assert drops.shape == (1, 3, 4, 4)
    expected = torch.zeros(4, 4)
    expected[1, 2] = 64  # the ring around is 0, so all of the brightness goes
    assert torch.equal(drops[0, 0], expected)
    assert torch.equal(drops[0, 1], -expected)
    assert not drops[0, 2].any()
    # The whole input's mean is 64 / 1024, and that is what the patch leaves in the 64 pixels.
    _, drops = occluded_drops(network, image, (0,), Occlusion(8, 8, fill="mean"))
    assert float(drops[0, 0, 1, 2]) == pytest.approx(64 - 64 * 64 / 1024)
    # A patch of 16 around the cell of 8 also covers it from the neighbouring places, by halves and quarters, and its
    # ring of 8 meets no brightness only where all of it is covered.
    _, drops = occluded_drops(network, image, (0,), Occlusion(16, 8, fill="mean"))
    left = 1 - 1 / 16
    torch.testing.assert_close(drops[0, 0, 1, 1:4], torch.tensor([32.0, 64, 32]) * left)
    torch.testing.assert_close(drops[0, 0, 0, 1:4], torch.tensor([16.0, 32, 16]) * left)


def test_occlusion_fills_with_the_ring_around_the_patch() -> None:
    # A ramp from left to right: the ring's mean is the patch's own where it lies inside, so nothing changes.
    image = torch.arange(32.0).expand(1, 3, 32, 32).contiguous()
    _, drops = occluded_drops(BrightnessOf().eval(), image, (0,), Occlusion(8, 8))
    assert abs(float(drops[0, 0, 1, 2])) < 1e-4

    # At the right edge the patch is columns 24 to 31 and the ring what is left of 20 to 31: 4 columns left, 8 above
    # and below.
    class Corner(BrightnessOf):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs[:, 0, 24:, 24:].mean((1, 2))[:, None].repeat(1, 14)

    _, drops = occluded_drops(Corner().eval(), image, (0,), Occlusion(8, 8))
    ring = (12 * sum(range(20, 24)) + 4 * sum(range(24, 32))) / (12 * 4 + 4 * 8)
    assert float(drops[0, 0, 3, 3]) == pytest.approx(27.5 - ring, rel=1e-5)


def test_occlusion_through_explain_is_cut_off_at_zero_and_needs_no_layer(inputs: Tensor) -> None:
    network = lively_network().double()
    with torch.no_grad():
        network.classifier.weight[12].neg_()  # whatever is covered was speaking against this one
    options = Occlusion(24, 16)
    found = explain(network, inputs, Method.OCCLUSION, (), [1, 12], occlusion=options)
    _, drops = occluded_drops(network, inputs, (1, 12), options)
    assert list(found.maps) == [INPUT]
    assert found.maps[INPUT].shape == (2, 2, 4, 4)
    assert bool((drops[:, 0] > 0).all())
    assert bool((drops[:, 1] < 0).all())
    torch.testing.assert_close(found.maps[INPUT], drops.relu().float())
    assert forward_passes(Method.OCCLUSION, 64, occlusion=options) == 16
    assert forward_passes("occlusion") == 196


@pytest.mark.parametrize("method", list(Method))
def test_the_network_stays_as_it_is(method: Method) -> None:
    network, inputs = lively_network(), noise(1, 32)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    copy = inputs.clone()
    small = {"occlusion": Occlusion(16, 16), "scorecam": ScoreCam(channels=2)}
    with torch.inference_mode():
        found = explain(network, inputs, method, [MIDDLE_LAYER], [0], **small)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
    assert all(bool((parameter.grad == 1).all()) and parameter.requires_grad for parameter in network.parameters())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(module, kind) for module in network.modules() for kind in hooks)
    assert torch.equal(inputs, copy)
    assert not any(one.requires_grad or one.is_inference() for one in found.maps.values())


def test_threads_share_one_network() -> None:
    network, inputs = lively_network(), noise(4, 64)
    methods = (Method.LAYER_CAM, Method.HI_RES_CAM, Method.GRAD_CAM_PLUS_PLUS, Method.GRAD_CAM)
    expected = [explain(network, inputs[i : i + 1], method, BOTH, [i]) for i, method in enumerate(methods)]
    found: dict[tuple[int, int], dict[str, Tensor]] = {}

    def work(i: int) -> None:
        for turn in range(3):
            found[i, turn] = dict(explain(network, inputs[i : i + 1], methods[i], BOTH, [i]).maps)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    for (i, _), maps in found.items():
        for layer, one in maps.items():
            tolerance = 1e-4 * float(expected[i].maps[layer].max())
            torch.testing.assert_close(one, expected[i].maps[layer], atol=tolerance, rtol=0)


def test_grad_cam_is_ours(network: DenseNet, inputs: Tensor) -> None:
    ours, direct = explain(network, inputs), gradcam(network, inputs)
    assert all(torch.equal(ours.maps[layer], direct.maps[layer]) for layer in BOTH)


@pytest.mark.parametrize(
    ("kind", "code", "arguments"),
    [
        (ConfigError, "unknown_method", {"method": "gradcam"}),
        (ConfigError, "unknown_layer", {"layers": ["features.norm5"], "method": "layercam"}),
        (ConfigError, "unknown_layer", {"layers": [], "method": "layercam"}),
        (ConfigError, "unknown_finding", {"findings": [14], "method": "eigencam"}),
        (ConfigError, "unknown_finding", {"findings": [], "method": "occlusion"}),
        (DataError, "unknown_finding", {"findings": ["Fracture"]}),
        (ConfigError, "bad_input", {"inputs": torch.zeros(1, 1, 64, 64), "method": "scorecam"}),
        (ConfigError, "not_finite", {"inputs": torch.full((1, 3, 64, 64), torch.nan), "method": "occlusion"}),
        (ConfigError, "bad_occlusion", {"method": "occlusion", "occlusion": Occlusion(patch_px=64)}),
    ],
)
def test_refuses_what_it_cannot_explain(kind: type, code: str, arguments: dict[str, object]) -> None:
    with pytest.raises(kind) as caught:
        explain(lively_network(), **{"inputs": torch.zeros(1, 3, 64, 64), **arguments})  # type: ignore[arg-type]
    assert caught.value.code == code


@pytest.mark.parametrize(
    "make", [lambda: Occlusion(patch_px=0), lambda: Occlusion(fill="black"), lambda: ScoreCam(channels=0)]
)
def test_refuses_options_that_make_no_sense(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]


def test_refuses_a_network_in_training() -> None:
    with pytest.raises(ConfigError) as caught:
        explain(lively_network().train(), noise(1, 32), Method.OCCLUSION)
    assert caught.value.code == "network_in_training"
