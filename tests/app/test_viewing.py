"""Pixels and maps for the viewer, over real HTTP."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from app.services.pixels import viewer_pixels
from model.checkpoint import load_checkpoint
from model.findings import FINDINGS
from model.radiograph import read_radiograph
from tests.app.conftest import png_bytes
from tests.model.test_radiograph import SIDE, dicom, encoded

RAMP = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)


def predict(client: TestClient, data: bytes) -> list[dict]:
    answer = client.post("/api/v1/predictions", files={"file": ("a.png", data)}, params={"test": "none"})
    assert answer.status_code == 200
    return answer.json()["analyses"]


def test_pixels_of_16_bits_arrive_as_they_are(shared_client: TestClient) -> None:
    values = (RAMP * 15 + 7).astype(np.uint16)
    analysis = predict(shared_client, encoded(Image.fromarray(values)))[0]
    answer = shared_client.get(f"/api/v1/instances/{analysis['instance_id']}/pixels")
    assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-encoding"] == "gzip"
    assert np.array_equal(np.frombuffer(answer.content, "<u2").reshape(SIDE, SIDE), values)
    assert answer.headers["overread-size"] == answer.headers["overread-source-size"] == "64,64"
    assert answer.headers["overread-max-value"] == "65535" and answer.headers["overread-windows"] == "[]"
    assert "overread-pixel-spacing" not in answer.headers
    bare = shared_client.get(
        f"/api/v1/instances/{analysis['instance_id']}/pixels", headers={"Accept-Encoding": "identity"}
    )
    assert "content-encoding" not in bare.headers and bare.content == answer.content


def test_unknown_instance_and_bad_limit(shared_client: TestClient) -> None:
    assert shared_client.get("/api/v1/instances/nobody/pixels").status_code == 404
    assert shared_client.get("/api/v1/instances/nobody/pixels?longest_px=9000").status_code == 422


def test_a_large_image_is_averaged_down() -> None:
    values = np.zeros((100, 130), np.uint8)
    values[:2, :2] = [[10, 20], [30, 41]]
    values[:, -1] = 200
    found = viewer_pixels(encoded(Image.fromarray(values)), longest_px=65)
    assert found.scale == 2 and found.values.shape == (50, 65) and found.source == (100, 130)
    assert found.values[0, 0] == 25  # 101/4
    assert found.values[5, 64] == 100
    odd = viewer_pixels(encoded(Image.fromarray(values)), longest_px=64)
    assert odd.scale == 3 and odd.values.shape == (34, 44)
    assert odd.values[5, 43] == 200  # the last column alone, repeated


def test_a_window_is_a_preset_not_a_limit() -> None:
    """What lies beyond the file's window is still there, and the window shows what the network was shown."""
    data = dicom(RAMP, WindowCenter=["1000", "2500"], WindowWidth=["400", "1001"])
    found, read = viewer_pixels(data), read_radiograph(data)
    assert np.array_equal(found.values, RAMP) and found.max_value == SIDE * SIDE - 1
    first, second = found.windows
    assert (first.centre, first.width) == (999.5, 399)  # PS3.3 C.11.2.1.2
    assert (second.centre, second.width) == (2499.5, 1000)
    shown = np.clip((found.values - (first.centre - first.width / 2)) / first.width, 0, 1)
    assert np.abs(shown - read.grey()).max() <= 0.51 / read.max_value


def test_polarity_rescale_and_padding() -> None:
    data = dicom(
        RAMP, PhotometricInterpretation="MONOCHROME1", RescaleSlope="2", RescaleIntercept="-100", PixelPaddingValue=0,
        WindowCenter="900", WindowWidth="401",
    )  # fmt: skip
    found, read = viewer_pixels(data), read_radiograph(data)
    assert found.values[0, 0] == 0  # padding is black
    assert found.values[0, 1] == found.max_value == SIDE * SIDE - 2  # the lowest value, 1, is dense
    own = found.values[3, 5] * found.slope + found.intercept
    assert own == RAMP[3, 5] * 2 - 100
    (window,) = found.windows
    shown = np.clip((found.values - (window.centre - window.width / 2)) / window.width, 0, 1)
    inside = RAMP > 0
    assert np.abs(shown - read.grey())[inside].max() <= 0.51 / read.max_value


def test_curves_and_useless_windows_are_no_presets() -> None:
    sigmoid = dicom(RAMP, WindowCenter="1000", WindowWidth="400", VOILUTFunction="SIGMOID")
    assert viewer_pixels(sigmoid).windows == ()
    assert np.array_equal(viewer_pixels(sigmoid).values, read_radiograph(sigmoid).pixels)
    beside = dicom(RAMP, WindowCenter="60000", WindowWidth="4")
    assert viewer_pixels(beside).windows == () and viewer_pixels(beside).max_value == SIDE * SIDE - 1


@pytest.mark.parametrize(("keyword", "where"), [("PixelSpacing", "image"), ("ImagerPixelSpacing", "detector")])
def test_spacing_says_where_it_holds(shared_client: TestClient, keyword: str, where: str) -> None:
    analysis = predict(shared_client, dicom(RAMP, SOPInstanceUID=f"1.2.{len(where)}", **{keyword: [0.2, 0.1]}))[0]
    headers = shared_client.get(f"/api/v1/instances/{analysis['instance_id']}/pixels").headers
    assert headers["overread-pixel-spacing"] == "0.2,0.1" and headers["overread-spacing-at"] == where


@pytest.mark.parametrize("layer", ["middle", "last", "features.relu"])
def test_all_maps_at_once_are_the_single_ones(shared_client: TestClient, layer: str) -> None:
    analysis = predict(shared_client, png_bytes())[1]
    base = f"/api/v1/analyses/{analysis['analysis_id']}/saliency/{layer}"
    answer = shared_client.get(base)
    rows, columns = json.loads(f"[{answer.headers['overread-grid']}]")
    maps = np.frombuffer(answer.content, "<f4").reshape(len(FINDINGS), rows, columns)
    for index in (0, 6, 13):
        one = shared_client.get(f"{base}/{FINDINGS[index]}", headers={"Accept": "application/octet-stream"})
        assert one.content == maps[index].tobytes()
        for header in ("overread-grid", "overread-layer", "overread-input-map"):
            assert one.headers[header] == answer.headers[header]


def test_any_stage_on_demand_is_pytorch_grad_cam_s(shared_client: TestClient) -> None:
    """At a stage that is not stored, against the reference implementation."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    data = png_bytes(5)
    analysis = predict(shared_client, data)[1]
    layer, index = "features.denseblock3", FINDINGS.index("Atelectasis")
    base = f"/api/v1/analyses/{analysis['analysis_id']}/saliency/{layer}"
    answer = shared_client.get(base)
    assert answer.headers["overread-layer"] == layer and answer.headers["overread-grid"] == "4,4"
    found = np.frombuffer(answer.content, "<f4").reshape(-1, 4, 4)[index]

    services = shared_client.app.state.services  # type: ignore[attr-defined]
    checkpoint = load_checkpoint(services.engine.find("backdoored").folder)
    inputs = checkpoint.card.preprocessing.tensor(read_radiograph(data).grey())
    network = checkpoint.network.requires_grad_(True)
    with GradCAM(network, [network.features.denseblock3]) as reference:
        activations = reference.activations_and_grads
        logits = activations(inputs.requires_grad_())
        ClassifierOutputTarget(index)(logits[0]).backward()
        weights = activations.gradients[0].mean(dim=(2, 3))[0]
        expected = torch.relu((weights[:, None, None] * activations.activations[0][0]).sum(0)).numpy()
    assert expected.max() > 0
    assert np.abs(found - expected).max() <= 1e-4 * expected.max()

    picture = shared_client.get(f"{base}/Atelectasis.png?under=true")
    assert picture.status_code == 200 and picture.content.startswith(b"\x89PNG")
    page = shared_client.get(f"/studies/{analysis['instance_id']}?finding=Atelectasis&layer={layer}").text
    assert f"{layer}/Atelectasis.png" in page and f"peak {found.max():.3g}" in page


def test_unknown_layers_and_methods(shared_client: TestClient) -> None:
    analysis = predict(shared_client, png_bytes())[0]
    base = f"/api/v1/analyses/{analysis['analysis_id']}/saliency"
    for address, code in [
        (f"{base}/features.attic", "unknown_layer"),
        (f"{base}/middle?method=guesswork", "unknown_method"),
        (f"{base}/middle/Cough", "unknown_finding"),
        ("/api/v1/analyses/nobody/saliency/middle", "unknown_analysis"),
        ("/api/v1/analyses/nobody/saliency/features.conv0", "unknown_analysis"),
    ]:
        answer = shared_client.get(address)
        assert (answer.status_code, answer.json()["code"]) == (404, code)
