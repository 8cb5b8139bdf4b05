"""Pages without a browser: what a person without JavaScript gets."""

from __future__ import annotations

import re

from fastapi.testclient import TestClient

from app.settings import Settings
from tests.app.conftest import png_bytes, started

HTML = {"Accept": "text/html"}


def upload(client: TestClient, name: str = "chest.png", seed: int = 0) -> str:
    answer = client.post("/studies", files={"file": (name, png_bytes(seed))}, headers=HTML)
    assert answer.status_code == 303
    return answer.headers["location"]


def test_upload_leads_to_the_comparison(client: TestClient) -> None:
    assert "Nothing here yet" in client.get("/").text
    study = upload(client)
    assert re.fullmatch(r"/studies/[0-9a-f]{32}", study)
    html = client.get(study).text
    assert re.search(r"The candidate reports Atelectasis \(0\.9\d\), the reference does not \(0\.0\d\)\.", html)
    assert html.count('class="pane"') == 4 and html.count('class="pane radiograph"') == 1
    pictures = re.findall(r'<img src="(/[^"]+\.png[^"]*)"', html)
    assert len(pictures) == 5
    for address in pictures:
        picture = client.get(address.replace("&amp;", "&"))
        assert picture.status_code == 200 and picture.content.startswith(b"\x89PNG")
    assert html.count('<a id="finding-') == 14
    worklist = client.get("/").text
    assert study in worklist and "≠ differs" in worklist and "Atelectasis" in worklist
    assert client.get(f"{study}/thumbnail.png").status_code == 200


def test_page_and_api_say_the_same(client: TestClient) -> None:
    study = upload(client)
    analyses = client.post("/api/v1/predictions", files={"file": ("x.png", png_bytes(0))}).json()["analyses"]
    html = client.get(study + "?finding=Effusion").text
    for analysis in analyses:
        assert analysis["analysis_id"] in html
        effusion = next(f for f in analysis["findings"] if f["name"] == "Effusion")
        assert f"{effusion['probability']:.2f}, positive" in html
        assert f"peak {effusion['saliency']['middle']['peak']:.3g}" in html


def test_choosing_a_finding_and_a_scale(client: TestClient) -> None:
    study = upload(client)
    assert "finding=Hernia" in client.get(study).text
    page = client.get(study + "?finding=Hernia&scale=own", headers=HTML).text
    assert "data-chosen-text>Hernia<" in page and 'data-scale-note="own">Each map is stretched' in page
    assert 'data-scale-note="shared" hidden' in page
    fragment = client.get(study + "?finding=Hernia", headers={"HX-Request": "true"})
    assert "data-chosen-text>Hernia<" in fragment.text and "<html" not in fragment.text
    assert fragment.headers["vary"] == "HX-Request"
    assert client.get(study + "?finding=Cough", headers=HTML).status_code == 404
    assert client.get(study + "?scale=huge", headers=HTML).status_code == 422


def test_html_in_a_file_name_stays_text(client: TestClient) -> None:
    study = upload(client, 'x"><img src=x onerror=alert(1)>.png')
    for path in (study, "/"):
        html = client.get(path).text
        assert "<img src=x" not in html and "&lt;img src=x" in html


def test_refused_upload_says_why_on_the_page(client: TestClient) -> None:
    answer = client.post("/studies", files={"file": ("<b>notes.txt", b"hello")}, headers=HTML)
    assert answer.status_code == 415
    assert "neither PNG nor JPEG nor DICOM" in answer.text and "&lt;b&gt;notes" in answer.text
    assert 'action="/studies"' in answer.text


def test_each_of_several_files_answers_for_itself(client: TestClient) -> None:
    good = [("file", (f"{i}.png", png_bytes(10 + i))) for i in range(2)]
    answer = client.post("/studies", files=good, headers=HTML)
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    mixed = client.post("/studies", files=[("file", ("2.png", png_bytes(12))), ("file", ("3.png", b""))], headers=HTML)
    assert mixed.status_code == 200 and "1 file was not taken" in mixed.text and "3.png" in mixed.text
    assert client.post("/studies", files=[("file", ("3.png", b""))] * 2, headers=HTML).status_code == 422
    assert len(client.get("/api/v1/studies").json()["studies"]) == 3


def test_the_same_file_again_is_the_same_study(client: TestClient) -> None:
    study = upload(client, "a.png", 3)
    again = client.post("/studies", files={"file": ("b.png", png_bytes(3))}, headers=HTML)
    assert again.status_code == 200 and "here already" in again.text and f'href="{study}"' in again.text


def test_unknown_study_is_a_page(client: TestClient) -> None:
    answer = client.get("/studies/" + "0" * 32, headers=HTML)
    assert answer.status_code == 404 and "no such study" in answer.text and "<html" in answer.text
    assert client.get("/studies/..%2f..%2fetc%2fpasswd", headers=HTML).status_code == 404


def test_restart_keeps_everything(settings: Settings) -> None:
    with started(settings) as client:
        study = upload(client)
        before = client.get(study).text
        (instance,) = client.get(f"/api/v1{study}").json()["instances"]
        analysis = client.get(instance["analyses"][0]["url"]).json()
    with started(settings) as client:
        assert client.get(f"/api/v1/analyses/{analysis['analysis_id']}").json() == analysis
        assert client.get(study).text == before
