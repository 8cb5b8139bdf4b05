"""A study's export: recomputable from what it holds, and printable."""

from __future__ import annotations

import hashlib
import json
import re

from fastapi.testclient import TestClient

from app.schemas import StudyExport
from tests.app.conftest import png_bytes

HTML = {"Accept": "text/html"}


def prepared(client: TestClient) -> tuple[str, list[dict[str, object]]]:
    """A study with three reviews, and another one's review between them."""
    study = client.post("/studies", files={"file": ("<i>chest</i>.png", png_bytes())}).headers["location"]
    own = client.post("/api/v1/predictions", files={"file": ("a.png", png_bytes())}).json()["analyses"]
    other = client.post("/api/v1/predictions", files={"file": ("b.png", png_bytes(1))}).json()["analyses"]
    for analysis, body in (
        (own[1], {"verdict": "agree", "finding": "Atelectasis"}),
        (other[0], {"verdict": "unsure"}),
        (own[1], {"verdict": "supplement", "added_findings": ["Nodule", "old fracture"], "comment": "<u>here</u>"}),
        (own[0], {"verdict": "disagree", "reason": "finding_missed"}),
    ):
        address = f"/api/v1/analyses/{analysis['analysis_id']}/reviews"
        assert client.post(address, json=body).status_code == 201
    return study, own


def test_the_json_holds_what_is_needed_to_recompute_and_to_verify(client: TestClient) -> None:
    study, own = prepared(client)
    answer = client.get(f"{study}/export.json")
    assert (
        "attachment" in answer.headers["content-disposition"] and "chest" not in answer.headers["content-disposition"]
    )
    out = answer.json()
    StudyExport.model_validate(out)
    assert out["image"]["sha256"] == hashlib.sha256(png_bytes()).hexdigest() and out["exported_by"] == "local"
    assert out["analyses"] == own and "not for diagnosis" in out["notice"]
    for analysis in own:
        card = out["checkpoints"][analysis["checkpoint"]["id"]]
        assert card["weights_sha256"] == analysis["checkpoint"]["weights_sha256"]
        assert card["operating_points"] == {one["name"]: one["threshold"] for one in analysis["findings"]}
    chain = out["chain"]
    assert chain["intact"] and chain["length"] == 4 and len(chain["rows"]) == 3
    for row, entry in zip(chain["rows"], out["entries"], strict=True):
        assert hashlib.sha256((row["previous_hash"] + row["document"]).encode()).hexdigest() == row["hash"]
        assert row["hash"] == entry["hash"] and json.loads(row["document"])["verdict"] == entry["verdict"]
    assert chain["head"] == chain["rows"][-1]["hash"]
    assert chain["rows"][1]["previous_hash"] != chain["rows"][0]["hash"]  # the other study's lies between
    assert [one["airai"] for one in out["entries"]] == ["accepted", "supplemented", "rejected"]
    assert out["recompute"] == "overread predict FILE --checkpoint clean --checkpoint backdoored --test full --json"


def test_the_page_prints_images_table_history_and_notice(client: TestClient) -> None:
    study, own = prepared(client)
    html = client.get(f"{study}/export", headers=HTML).text
    assert html.count("not for diagnosis") == 2 and "What raises Atelectasis" in html
    pictures = [one.replace("&amp;", "&") for one in re.findall(r'<img src="([^"]+)"', html)]
    assert len(pictures) == 5
    for address in pictures:
        assert client.get(address).content.startswith(b"\x89PNG")
    assert html.count('<th scope="row">') == 14
    assert "Adds Nodule, old fracture." in html and "(AIRAI: supplemented)" in html and "A finding was missed." in html
    assert "&lt;u&gt;here" in html and "<u>" not in html and "<i>chest" not in html
    for analysis in own:
        assert analysis["checkpoint"]["weights_sha256"] in html  # type: ignore[index]
    other = client.get(f"{study}/export?finding=Hernia", headers=HTML).text
    assert "What raises Hernia" in other and other.count("saliency/middle/Hernia") == 2
    assert client.get(f"{study}/export?finding=Cough", headers=HTML).status_code == 404
    assert client.get("/studies/" + "0" * 32 + "/export", headers=HTML).status_code == 404
    assert "style=" not in html and "<script" not in html
