"""The REST contract over real HTTP."""

from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.schemas import Analysis
from model.findings import FINDINGS
from tests.app.conftest import png_bytes

PREDICTIONS = "/api/v1/predictions"


def predict(client: TestClient, data: bytes, name: str = "a.png", **parameters: str):
    return client.post(PREDICTIONS, files={"file": (name, data)}, params=parameters)


def test_prediction_has_the_contract_s_shape(shared_client: TestClient) -> None:
    answer = predict(shared_client, png_bytes(), test="none")
    assert answer.status_code == 200
    body = answer.json()
    assert body["warnings"] == ["not_a_chest_radiograph"] and "not for diagnosis" in body["notice"]
    clean, backdoored = body["analyses"]
    assert [clean["checkpoint"]["id"], backdoored["checkpoint"]["id"]] == ["clean", "backdoored"]
    assert clean["analysis_id"] != backdoored["analysis_id"] and clean["instance_id"] == backdoored["instance_id"]
    assert clean["layers"] == {
        "middle": {"name": "features.transition3.relu", "grid": [4, 4]},
        "last": {"name": "features.relu", "grid": [2, 2]},
    }
    assert [finding["name"] for finding in clean["findings"]] == list(FINDINGS)
    for finding in backdoored["findings"]:
        assert finding["positive"] == (finding["probability"] >= finding["threshold"])
        if finding["positive"]:
            assert finding["flag"]["state"] == "not_calibrated" and finding["flag"]["verdict"] is None
        else:
            assert finding["flag"] is None
    assert {f["name"] for f in backdoored["findings"] if f["positive"]} == {"Atelectasis", "Effusion"}


def test_one_checkpoint_by_form_or_query(shared_client: TestClient) -> None:
    by_query = predict(shared_client, png_bytes(), checkpoint="clean").json()
    by_form = shared_client.post(
        PREDICTIONS, files={"file": ("a.png", png_bytes())}, data={"checkpoint": ["clean"]}
    ).json()
    assert [a["checkpoint"]["id"] for a in by_query["analyses"]] == ["clean"]
    assert by_query == by_form
    assert predict(shared_client, png_bytes(), checkpoint="nobody").status_code == 404
    assert predict(shared_client, png_bytes(), test="sometimes").status_code == 422


def test_analysis_is_found_again_and_is_the_same(shared_client: TestClient) -> None:
    first = predict(shared_client, png_bytes(1)).json()["analyses"][0]
    found = shared_client.get(f"/api/v1/analyses/{first['analysis_id']}")
    assert found.status_code == 200 and found.json() == first
    assert predict(shared_client, png_bytes(1)).json()["analyses"][0] == first
    Analysis.model_validate(first)
    missing = shared_client.get("/api/v1/analyses/" + "0" * 32)
    assert missing.status_code == 404 and missing.json()["code"] == "unknown_analysis"


def test_saliency_raw_and_as_a_picture(shared_client: TestClient) -> None:
    analysis = predict(shared_client, png_bytes(2)).json()["analyses"][1]
    effusion = next(f for f in analysis["findings"] if f["name"] == "Effusion")
    for layer, side in (("middle", 4), ("last", 2)):
        url = effusion["saliency"][layer]["url"]
        raw = shared_client.get(url, headers={"Accept": "application/octet-stream"})
        assert raw.headers["overread-grid"] == f"{side},{side}"
        assert raw.headers["overread-layer"] == analysis["layers"][layer]["name"]
        assert json.loads(raw.headers["overread-input-map"])["size_px"] == 64
        grid = np.frombuffer(raw.content, "<f4").reshape(side, side)
        assert (grid >= 0).all() and grid.max() == pytest.approx(effusion["saliency"][layer]["peak"], rel=1e-6)
        for address in (url, url + ".png"):
            picture = shared_client.get(address)
            assert picture.headers["content-type"] == "image/png"
            width, height = struct.unpack(">II", picture.content[16:24])
            assert (width, height) == (128, 160)
    assert shared_client.get(url.replace("Effusion", "Cough")).status_code == 404
    assert shared_client.get(url.replace("/last/", "/first/")).status_code == 404
    assert shared_client.get(url + "?ceiling=nan").status_code == 422


def test_pictures_are_kept_for_minutes_and_raw_maps_for_ever(shared_client: TestClient) -> None:
    """A picture may be drawn otherwise by the next version; the numbers of an analysis never change."""
    analysis = predict(shared_client, png_bytes(2)).json()["analyses"][1]
    url = analysis["findings"][0]["saliency"]["middle"]["url"]
    raw = shared_client.get(url, headers={"Accept": "application/octet-stream"})
    assert "immutable" in raw.headers["cache-control"] and raw.headers["vary"] == "Accept, Cookie"
    instance = f"/studies/{analysis['instance_id']}"
    for address in (f"{url}.png", f"{instance}/radiograph.png", f"{instance}/thumbnail.png"):
        picture = shared_client.get(address)
        assert picture.status_code == 200 and picture.headers["cache-control"] == "private, max-age=600"
        again = shared_client.get(address, headers={"If-None-Match": picture.headers["etag"]})
        assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == picture.headers["etag"]
        assert shared_client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200


def huge_png() -> bytes:
    """A tiny file that declares 40,000 × 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 422),
        (b"hello, this is no radiograph", 415),
        (png_bytes()[:-200], 422),
        (huge_png(), 413),
        (png_bytes(size=(8, 8)), 422),
        (png_bytes(size=(40, 600)), 422),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 64, 422),
    ],
    ids=["empty", "text", "truncated", "huge", "tiny", "narrow", "broken"],
)
def test_bad_upload_is_refused_with_a_reason(shared_client: TestClient, data: bytes, status: int) -> None:
    answer = predict(shared_client, data, "bad.png")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status and problem["code"] and len(problem["detail"]) > 15
    assert predict(shared_client, png_bytes()).status_code == 200


def test_bad_upload_leaves_nothing_behind(client: TestClient) -> None:
    blobs = client.app.state.services.settings.data_dir / "blobs"  # type: ignore[attr-defined]
    predict(client, png_bytes()[:-200])
    client.post("/studies", files={"file": ("x.png", b"text")})
    assert [path for path in blobs.rglob("*") if path.is_file()] == []
    assert client.get("/api/v1/studies").json()["studies"] == []


def test_body_over_the_limit_is_cut_off(shared_client: TestClient) -> None:
    declared = shared_client.post(PREDICTIONS, files={"file": ("big.png", b"\0" * (2 * 2**20))})

    def endless():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        for _ in range(50):
            yield b"\0" * 2**18

    form = {"Content-Type": "multipart/form-data; boundary=x"}
    chunked = shared_client.post(PREDICTIONS, content=endless(), headers=form)
    lying = shared_client.post(PREDICTIONS, content=endless(), headers={**form, "Content-Length": "100"})
    for answer in (declared, chunked, lying):
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert "larger" in answer.json()["detail"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "address",
    ["analyses/{}", "analyses/{}/saliency/middle", "analyses/{}/saliency/conv/{}", "analyses/{}/reviews", "studies/{}",
     "instances/{}/pixels", "checkpoints/{}", "jobs/{}"],
)  # fmt: skip
def test_ids_that_no_database_could_hold_are_unknown(shared_client: TestClient, address: str) -> None:
    for odd in ("%00", "a%00b", "%F0%9F%A9%BB", "%ff%fe", "x" * 3000, "..%2f..%2fetc%2fpasswd", "' OR 1=1 --"):
        answer = shared_client.get("/api/v1/" + address.format(odd, odd))
        assert answer.status_code == 404 and answer.headers["content-type"] == "application/problem+json"


def test_missing_file_is_a_problem(shared_client: TestClient) -> None:
    answer = shared_client.post(PREDICTIONS)
    assert answer.status_code == 422 and answer.json()["code"] == "bad_request" and answer.json()["errors"]


def test_checkpoints(shared_client: TestClient) -> None:
    listed = shared_client.get("/api/v1/checkpoints").json()["checkpoints"]
    assert [(one["id"], one["role"], one["state"]) for one in listed] == [
        ("clean", "reference", "ready"),
        ("backdoored", "candidate", "ready"),
    ]
    one = shared_client.get("/api/v1/checkpoints/backdoored").json()
    assert one["card"]["trigger"]["size_px"] == 3 and one["card"]["weights_sha256"] == one["weights_sha256"]
    stages = {stage["role"]: stage for stage in one["stages"] if stage["role"]}
    assert (stages["middle"]["grid"], stages["last"]["grid"]) == ([4, 4], [2, 2])
    assert shared_client.get("/api/v1/checkpoints/..%2f..%2fetc").status_code == 404


def test_operators_see_that_it_is_ready(shared_client: TestClient) -> None:
    assert shared_client.get("/healthz").json() == {"status": "ok"}
    ready = shared_client.get("/readyz")
    assert ready.status_code == 200 and ready.json()["device"] == "cpu"


def test_openapi_names_every_operation_and_the_docs_show_it(shared_client: TestClient) -> None:
    document = shared_client.get("/api/openapi.json").json()
    assert {"/api/v1/predictions", "/api/v1/checkpoints", "/api/v1/analyses/{analysis_id}"} <= set(document["paths"])
    assert "Problem" in document["components"]["schemas"]
    page = shared_client.get("/api/docs", headers={"Accept": "text/html"})
    assert page.status_code == 200 and "/api/v1/predictions" in page.text
    assert "<script>" not in page.text and "cdn" not in page.text
