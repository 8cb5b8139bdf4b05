"""Pixels and maps for the viewer, over real HTTP."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import numpy as np
import pytest
import torch
from fastapi import Request
from fastapi.testclient import TestClient
from PIL import Image

import app.inference.batching
import app.services.viewing
from app.decoding import viewer_pixels
from app.inference import RawReading
from app.settings import Settings
from bench.soak import post
from model.checkpoint import Checkpoint, load_checkpoint
from model.explanation import explain
from model.findings import FINDINGS
from model.radiograph import Radiograph, read_radiograph
from tests.app.conftest import png_bytes, served
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


def test_stored_files_are_decoded_in_confined_processes_and_each_for_itself(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes long keeps nobody from seeing another; who asks for the same meanwhile waits for that decoding."""
    slow, quick = (predict(client, png_bytes(seed))[0]["instance_id"] for seed in (7, 8))
    services = client.app.state.services  # type: ignore[attr-defined]
    entered, gate, real, calls = threading.Event(), threading.Event(), services.decoder.read, []

    def held(data: bytes, *arguments: object, **options: object) -> Radiograph:
        calls.append(hashlib.sha256(data).hexdigest()[:32])
        if calls[-1] == slow:
            entered.set()
            assert gate.wait(30)
        return real(data, *arguments, **options)

    monkeypatch.setattr(services.analyses.display, "_decode", held)
    monkeypatch.setattr("model.radiograph.raster.Image.open", None)  # nothing is decoded in this process
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.get, f"/studies/{slow}/radiograph.png") for _ in range(2)]
        assert entered.wait(20)
        assert client.get(f"/studies/{quick}/radiograph.png").status_code == 200
        assert client.get(f"/api/v1/instances/{slow}/pixels").status_code == 200
        gate.set()
        assert {one.result(20).status_code for one in waiting} == {200}
    assert sorted(calls) == sorted([slow, quick])


def test_a_file_that_breaks_its_decoder_when_shown_is_a_problem(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = predict(client, png_bytes(7))[0]["instance_id"]
    services = client.app.state.services  # type: ignore[attr-defined]
    services.decoder.timeout_s = 0.0
    answer = client.get(f"/api/v1/instances/{instance}/pixels")
    assert (answer.status_code, answer.json()["code"]) == (422, "too_costly")
    services.decoder.timeout_s = 4.0
    assert client.get(f"/studies/{instance}/radiograph.png").status_code == 200


class Parts:
    """Holds the second part of an occlusion, and notes who has the device when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.order: list[str] = []
        self.entered, self.gate = threading.Event(), threading.Event()
        self._forward, self._read = app.services.viewing._forward, app.inference.batching.read_batch
        monkeypatch.setattr(app.services.viewing, "_forward", self.forward)
        monkeypatch.setattr(app.inference.batching, "read_batch", self.read)

    def forward(self, checkpoint: Checkpoint, inputs: torch.Tensor) -> torch.Tensor:
        self.order.append("part")
        if len(self.order) == 2:
            self.entered.set()
            assert self.gate.wait(30)
        return self._forward(checkpoint, inputs)

    def read(self, *arguments: Any) -> list[RawReading]:
        self.order.append("radiograph")
        return self._read(*arguments)


def test_radiographs_are_read_between_the_parts_of_an_occlusion(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis, other = predict(client, png_bytes(7))
    base = "/api/v1/analyses/{}/saliency/middle?method=occlusion"
    parts = Parts(monkeypatch)
    with ThreadPoolExecutor(3) as pool:
        occlusion = pool.submit(client.get, base.format(analysis["analysis_id"]))
        assert parts.entered.wait(20)
        refused = client.get(base.format(other["analysis_id"]))  # one at a time
        prediction = pool.submit(predict, client, png_bytes(8))
        engine = client.app.state.services.engine  # type: ignore[attr-defined]
        while not engine.waiting:
            time.sleep(0.005)
        parts.gate.set()
        assert len(prediction.result(20)) == 2 and occlusion.result(20).status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (503, "busy") and int(refused.headers["retry-after"]) > 0
    assert parts.order == ["part", "part", "radiograph", "radiograph", "part", "part", "part"]  # 1 + 16 places, by 4

    services = client.app.state.services  # type: ignore[attr-defined]
    checkpoint = load_checkpoint(services.engine.find("clean").folder)
    inputs = checkpoint.card.preprocessing.tensor(read_radiograph(png_bytes(7)).grey())
    expected = explain(checkpoint.network, inputs, "occlusion").maps["input"][0].numpy()
    found = np.frombuffer(occlusion.result().content, "<f4").reshape(expected.shape)
    assert np.abs(found - expected).max() < 1e-4


def test_an_explanation_over_the_limit_is_put_off(shared_client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = predict(shared_client, png_bytes(9))[0]
    monkeypatch.setattr(app.services.viewing, "LIMIT_S", 0.0)
    answer = shared_client.get(f"/api/v1/analyses/{analysis['analysis_id']}/saliency/middle?method=occlusion")
    assert (answer.status_code, answer.json()["code"]) == (503, "too_slow") and int(answer.headers["retry-after"]) > 0
    page = shared_client.get(f"/studies/{analysis['instance_id']}?method=occlusion")
    assert page.status_code == 200 and "too busy for this explanation" in page.text


def test_an_explanation_that_nobody_waits_for_stops(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, real = Parts(monkeypatch), Request.is_disconnected

    async def patiently(request: Request) -> bool:  # the connection's end takes its time to arrive
        with anyio.fail_after(20):
            while parts.entered.is_set() and not await real(request):
                await anyio.sleep(0.01)
        return parts.entered.is_set()

    monkeypatch.setattr(Request, "is_disconnected", patiently)
    with served(settings) as url:
        port = int(url.rpartition(":")[2])
        status, answer = post(port, "/api/v1/predictions", "a.png", png_bytes(7))
        assert status == 200
        key = answer["analyses"][0]["analysis_id"]  # type: ignore[index]
        parts.order.clear()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", f"/api/v1/analyses/{key}/saliency/middle?method=occlusion")
        assert parts.entered.wait(20)
        connection.close()
        parts.gate.set()
        assert post(port, "/api/v1/predictions", "a.png", png_bytes(8))[0] == 200
    assert parts.order.count("part") == 2
